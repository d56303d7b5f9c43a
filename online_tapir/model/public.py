"""Converts the public PyTorch checkpoints of causal TAPIR to this project's tensors.

The name table is one-to-one: every public tensor becomes one of ours, and each of ours comes from one of theirs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from online_tapir.model.config import TapirConfig
from tapir_kernels import TEMPORAL_TAPS

Shape = tuple[int, ...]
Convert = Callable[[Tensor, int], Tensor]  # a public tensor and the mixer's expansion, to ours


def _as_is(tensor: Tensor, expansion: int) -> Tensor:
    return tensor


def _taps(tensor: Tensor, expansion: int) -> Tensor:
    """Depthwise weights [M C, 1, taps] as [taps, M, C]; channel c produces channels Mc..Mc+M-1."""
    return tensor.view(-1, expansion, TEMPORAL_TAPS).permute(2, 1, 0).contiguous()


def _bias(tensor: Tensor, expansion: int) -> Tensor:
    """[M C] as [M, C]."""
    return tensor.view(-1, expansion).T.contiguous()


def _summed(tensor: Tensor, expansion: int) -> Tensor:
    """Sums the second temporal bias over its groups, its only use: [M C] as [C]."""
    return tensor.view(-1, expansion).sum(dim=1)


def name_table(config: TapirConfig) -> dict[str, tuple[str, Convert]]:
    """Maps each public name to our name and the function that converts the tensor."""
    table: dict[str, tuple[str, Convert]] = {"resnet_torch.initial_conv.weight": ("backbone.stem.weight", _as_is)}

    def rename(public: str, ours: str, *parts: str) -> None:
        for part in parts:
            table[f"{public}.{part}"] = (f"{ours}.{part}", _as_is)

    for group, blocks in enumerate(config.blocks):
        for block in range(blocks):
            public, ours = f"resnet_torch.block_groups.{group}.blocks.{block}", f"backbone.groups.{group}.{block}"
            if block == 0:
                rename(f"{public}.proj_conv", f"{ours}.project", "weight")
            for index in (0, 1):
                rename(f"{public}.bn_{index}", f"{ours}.norm{index + 1}.norm", "weight", "bias")
                rename(f"{public}.conv_{index}", f"{ours}.conv{index + 1}", "weight")
    for block in range(config.extra_convs):
        public, ours = f"extra_convs.blocks.{block}", f"backbone.extra.{block}"
        for theirs, mine in (("layer_norm", "norm"), ("conv", "widen"), ("conv_1", "narrow")):
            rename(f"{public}.{theirs}", f"{ours}.{mine}", "weight", "bias")
    heads = {
        "hid1": "hidden",
        "hid2": "heat",
        "hid3": "occlusion_conv",
        "hid4": "occlusion_hidden",
        "occ_out": "occlusion_out",
    }
    for theirs, mine in heads.items():
        rename(f"torch_cost_volume_track_mods.{theirs}", f"matching.{mine}", "weight", "bias")

    mixer = "torch_pips_mixer"
    rename(f"{mixer}.linear", "refiner.mixer.enter", "weight", "bias")
    rename(f"{mixer}.layer_norm", "refiner.mixer.norm", "weight")
    rename(f"{mixer}.linear_1", "refiner.mixer.leave", "weight", "bias")
    for block in range(config.mixer_depth):
        public, ours = f"{mixer}.blocks.{block}", f"refiner.mixer.blocks.{block}"
        rename(f"{public}.layer_norm", f"{ours}.temporal_norm", "weight")
        table[f"{public}.mlp1_up.weight"] = (f"{ours}.temporal.widen", _taps)
        table[f"{public}.mlp1_up.bias"] = (f"{ours}.temporal.widen_bias", _bias)
        table[f"{public}.mlp1_up_1.weight"] = (f"{ours}.temporal.narrow", _taps)
        table[f"{public}.mlp1_up_1.bias"] = (f"{ours}.temporal.narrow_bias", _summed)
        rename(f"{public}.layer_norm_1", f"{ours}.channel_norm", "weight")
        for theirs, mine in (("mlp2_up", "widen"), ("mlp2_down", "narrow")):
            rename(f"{public}.conv_channels_mixer.{theirs}", f"{ours}.{mine}", "weight", "bias")
    return table


def is_public(state: dict[str, Tensor]) -> bool:
    """Whether a state dict uses the public names."""
    return "resnet_torch.initial_conv.weight" in state


def public_shapes(config: TapirConfig, ours: dict[str, Shape]) -> dict[str, Shape]:
    """The shape that each public tensor must have, given our own tensors' shapes."""
    undone: dict[Convert, Callable[[Shape], Shape]] = {
        _as_is: lambda shape: shape,
        _taps: lambda shape: (shape[1] * shape[2], 1, TEMPORAL_TAPS),
        _bias: lambda shape: (shape[0] * shape[1],),
        _summed: lambda shape: (shape[0] * config.mixer_expansion,),
    }
    return {public: undone[convert](ours[name]) for public, (name, convert) in name_table(config).items()}


def from_public(state: dict[str, Tensor], config: TapirConfig) -> dict[str, Tensor]:
    """Converts a public state dict, whose names and shapes have been checked, to ours."""
    return {
        name: convert(state[public].to(torch.float32), config.mixer_expansion)
        for public, (name, convert) in name_table(config).items()
    }
