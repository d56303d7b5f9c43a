"""Converts the public JAX checkpoint of causal TAPIR, a NumPy pickle of Haiku parameters, to the public PyTorch names.

The names are those of the parameters that the public JAX model's initialiser creates. `checkpoint` refuses a file with
unknown or missing names. Only plain data is unpickled (see `safe_pickle`).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from online_tapir.errors import WeightsError
from online_tapir.model import public, safe_pickle
from online_tapir.model.config import TapirConfig
from online_tapir.model.public import Shape

MAGIC = b"\x93NUMPY"
ROOT = "tapir/~/"

_HEADS = {
    "hid1": "cost_volume_regression_1",
    "hid2": "cost_volume_regression_2",
    "hid3": "cost_volume_occlusion_1",
    "hid4": "cost_volume_occlusion_2",
    "occ_out": "occlusion_out",
}
_IN_RESIDUAL_BLOCK = {
    "proj_conv": "shortcut_conv",
    "conv_0": "conv_0",
    "conv_1": "conv_1",
    "bn_0": "instancenorm_0",
    "bn_1": "instancenorm_1",
}
# Haiku's weights are [height, width, in, out], [taps, 1, channels] or [in, out]. Axis orders to and from PyTorch:
_TO_PYTORCH = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}
_FROM_PYTORCH = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0)}


def is_haiku(state: dict[str, Tensor]) -> bool:
    """Whether the tensors have Haiku's names, as `read` returns them."""
    return any(name.startswith(ROOT) for name in state)


def read(path: Path) -> dict[str, Tensor]:
    """The parameters of a Haiku checkpoint, each named `module/parameter`, with the file's shapes.

    Raises WeightsError for a file that is cut short, holds anything else, or would run code.
    """
    try:
        with path.open("rb") as file:
            kind = _read_header(file)
            held = safe_pickle.load(file) if kind == np.dtype(object) else None
    except safe_pickle.RefusedPickleError as error:
        raise WeightsError(f"{path} is not a checkpoint that can be read without running code: {error}") from error
    except Exception as error:  # a damaged pickle can raise any exception
        raise WeightsError(f"{path} is cut short or damaged ({error!r}); fetch or copy it again") from error
    checkpoint = held.item() if isinstance(held, np.ndarray) and held.ndim == 0 else held
    params = checkpoint.get("params") if isinstance(checkpoint, dict) else None
    if not isinstance(params, dict) or not all(isinstance(module, dict) for module in params.values()):
        raise WeightsError(f"{path} is a NumPy file, but holds no Haiku parameters; is it the right file?")
    return {
        f"{module}/{name}": _tensor(path, f"{module}/{name}", value)
        for module, parameters in params.items()
        for name, value in parameters.items()
    }


def name_table(config: TapirConfig) -> dict[str, str]:
    """Maps each Haiku name, `module/parameter`, to its public PyTorch name."""
    return {_haiku_name(name): name for name in public.name_table(config)}


def shapes(public_shapes: dict[str, Shape]) -> dict[str, Shape]:
    """The shape that each Haiku parameter must have, given the public PyTorch tensors' shapes."""
    return {
        _haiku_name(name): tuple(shape[axis] for axis in _FROM_PYTORCH[len(shape)])
        for name, shape in public_shapes.items()
    }


def to_public(state: dict[str, Tensor], config: TapirConfig) -> dict[str, Tensor]:
    """Converts Haiku parameters, whose names and shapes have been checked, to the public PyTorch state dict."""
    return {
        name: state[haiku].permute(_TO_PYTORCH[state[haiku].ndim]).contiguous()
        for haiku, name in name_table(config).items()
    }


def _haiku_name(name: str) -> str:
    """The Haiku name of a public PyTorch tensor."""
    module, _, leaf = name.rpartition(".")
    if "norm" in module.rpartition(".")[2] or ".bn_" in module:
        parameter = {"weight": "scale", "bias": "offset"}[leaf]
    else:
        parameter = {"weight": "w", "bias": "b"}[leaf]
    return f"{ROOT}{_haiku_module(module.split('.'))}/{parameter}"


def _haiku_module(parts: list[str]) -> str:
    """Haiku puts `~` before a module made in a constructor, and numbers same-named modules made in a call."""
    match parts:
        case ["resnet_torch", "initial_conv"]:
            return "resnet/~/initial_conv"
        case ["resnet_torch", "block_groups", group, "blocks", block, layer]:
            return f"resnet/~/block_group_{group}/~/block_{block}/~/{_IN_RESIDUAL_BLOCK[layer]}"
        case ["extra_convs", "blocks", block, "layer_norm"]:
            return f"extra_convs/{_nth('layer_norm', int(block))}"
        case ["extra_convs", "blocks", block, "conv" | "conv_1" as layer]:
            return f"extra_convs/{_nth('conv2_d', 2 * int(block) + (layer == 'conv_1'))}"
        case ["torch_cost_volume_track_mods", head]:
            return _HEADS[head]
        case ["torch_pips_mixer", "blocks", block, *_, layer]:
            return f"pips_mlp_mixer/{_nth('block', int(block))}/{layer}"
        case ["torch_pips_mixer", layer]:
            return f"pips_mlp_mixer/{layer}"
    raise AssertionError(f"no Haiku module for {'.'.join(parts)}")


def _nth(name: str, index: int) -> str:
    return f"{name}_{index}" if index else name


def _read_header(file: Any) -> np.dtype[Any]:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read_header(file)[2]


def _tensor(path: Path, name: str, value: Any) -> Tensor:
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        raise WeightsError(f"{path}: {name} is not an array of floating-point numbers; fetch or copy it again")
    return torch.from_numpy(np.array(value, np.float32))
