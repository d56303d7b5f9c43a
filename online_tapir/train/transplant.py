"""Weights for a model with other grids than the one they were trained in, which at first computes the same.

Mixer weights of what only the new model has are zero, and those of what only the old one has are dropped.
"""

from itertools import zip_longest

import torch
from torch import Tensor

from online_tapir.model.config import NEIGHBOURS, TapirConfig
from online_tapir.model.tapir import Tapir
from tapir_kernels import PATCH_SAMPLES


def transplanted(old: Tapir, config: TapirConfig, backbone: dict[str, Tensor]) -> Tapir:
    """A model of `config` with this backbone and the heads of `old`, fitted to its inputs and outputs.

    Backbone weights that are not given keep their random values.
    """
    model = Tapir(config)
    heads = {name: tensor.float() for name, tensor in old.state_dict().items() if not name.startswith("backbone.")}
    enter, leave = _columns(old.config, config), _rows(old.config, config)
    state = model.state_dict() | {f"backbone.{name}": tensor for name, tensor in backbone.items()}
    for name, tensor in heads.items():
        if name == "refiner.mixer.enter.weight":
            state[name] = _moved(tensor.T, enter).T.contiguous()
        elif name in ("refiner.mixer.leave.weight", "refiner.mixer.leave.bias"):
            state[name] = _moved(tensor, leave)
        else:
            state[name] = tensor
    model.load_state_dict(state)
    return model


def grown(old: Tapir, config: TapirConfig) -> Tapir:
    """`old` with the grids and neighbours of `config`, whose other parts it has; new ones weigh nothing at first."""
    return transplanted(old, config, {name: tensor.float() for name, tensor in old.backbone.state_dict().items()})


def _moved(old: Tensor, sources: list[int]) -> Tensor:
    """Rows of `old` in a new order; zeros where the source is -1."""
    index = torch.tensor(sources)
    return torch.where((index >= 0).view(-1, *[1] * (old.ndim - 1)), old[index.clamp_min(0)], torch.zeros(()))


def _features(old: TapirConfig, new: TapirConfig) -> list[int]:
    """Where each of the new model's feature channels was in the old one's, -1 for nowhere."""
    sources: list[int] = []
    start = old.feature_channels
    for known, wanted in zip_longest(reversed(old.described_channels), reversed(new.described_channels), fillvalue=0):
        start -= known
        sources = [start + c if c < known else -1 for c in range(wanted)] + sources
    return sources


def _rows(old: TapirConfig, new: TapirConfig) -> list[int]:
    """Of the mixer's output: two of position, two logits, then features."""
    return [0, 1, 2, 3, *(4 + s if s >= 0 else -1 for s in _features(old, new))]


def _columns(old: TapirConfig, new: TapirConfig) -> list[int]:
    """Of the mixer's input.

    Motion, logits and features; patches and peaks of query and last sight; three of the last sight's place; the patches
    of the query's neighbours.
    """
    sources = _rows(old, new)
    start = 4 + old.feature_channels
    for _ in range(2):
        for numbers in (PATCH_SAMPLES, 2):
            missing = (new.grids - old.grids) * numbers  # of the finest grids; below zero, those are left out
            sources += [-1] * missing + list(range(start + max(0, -missing), start + old.grids * numbers))
            start += old.grids * numbers
    own = [start, start + 1, start + 2]
    start += 3
    known, wanted = (PATCH_SAMPLES * model.neighbour_grids for model in (old, new))
    shift = PATCH_SAMPLES * (len(new.described_by) - len(old.described_by))  # grids correspond from the coarsest on
    for neighbour in range(NEIGHBOURS):
        first = start + neighbour * known - shift
        own += [first + sample if 0 <= sample - shift < known else -1 for sample in range(wanted)]
    return sources + own
