"""Weights in and out of files; nothing that could run code is ever read."""

import json
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from online_tapir.errors import ConfigError, WeightsError
from online_tapir.model import public
from online_tapir.model.config import PRESETS, TapirConfig, preset
from online_tapir.model.tapir import Tapir

FORMAT = "online-tapir/weights"
VERSION = "1"
EMBEDDED = ("small",)


def load_model(
    name_or_path: str | Path,
    weights: str | Path | None = None,
    device: str = "auto",
    dtype: torch.dtype | None = None,
) -> Tapir:
    """A model ready to track: a preset (`small`, `bootstapir`, `tapir`) or a weights file of this project's own.

    `weights` is a file to use in place of the preset's; `small` has its own inside the package. `device` is a torch
    device, or "auto" for the first GPU there is and the CPU otherwise; `dtype` is float32 where it is not given.

    Raises ConfigError for an unknown preset or device, WeightsError for a file that is missing, corrupt or made for
    another model.
    """
    target = choose_device(device)
    if str(name_or_path) in PRESETS:
        config = preset(str(name_or_path))
        state = read_state(Path(weights), config) if weights is not None else _embedded_state(config)
    elif weights is None and Path(name_or_path).suffix == ".safetensors":
        config, state = read_weights(Path(name_or_path))
    else:
        raise ConfigError(
            f"no preset {str(name_or_path)!r}; there are {', '.join(PRESETS)}, or give a .safetensors file"
        )
    with torch.device("meta"):
        model = Tapir(config)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    model.requires_grad_(False)
    model.to(target, dtype or torch.float32).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def choose_device(name: str) -> torch.device:
    """The torch device called `name`; "auto" is the first GPU, or the CPU. ConfigError where there is none such."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used: {reason}; try --device cpu or auto") from error
    return device


def save_weights(path: Path, model: Tapir, notes: dict[str, str], dtype: torch.dtype = torch.float16) -> None:
    """Writes the weights and their configuration to a .safetensors file; `notes` go into its metadata."""
    metadata = {"format": FORMAT, "version": VERSION, "config": json.dumps(asdict(model.config)), **notes}
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata)
    partial.replace(path)


def read_weights(path: Path) -> tuple[TapirConfig, dict[str, Tensor]]:
    """The configuration and the tensors of a .safetensors file that this project wrote."""
    state, metadata = _read_safetensors(path)
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise WeightsError(
            f"{path} is a safetensors file, but not one of online-tapir's; name its preset beside --weights"
        )
    if metadata.get("version") != VERSION:
        raise WeightsError(
            f"{path} has format version {metadata.get('version')}, this program reads {VERSION}; upgrade it"
        )
    try:
        config = _config_of(json.loads(metadata["config"]))
    except (TypeError, ValueError, ConfigError) as error:
        raise WeightsError(f"{path} describes a model that this version cannot build: {error}") from error
    check_state(state, config, str(path))
    return config, state


def read_state(path: Path, config: TapirConfig) -> dict[str, Tensor]:
    """The tensors for `config` from a .safetensors file, or from a PyTorch state dict read with weights_only.

    Names are this project's own, or the public PyTorch checkpoints' (see `public`).
    """
    state = _read_safetensors(path)[0] if path.suffix == ".safetensors" else _read_pytorch(path)
    check_state(state, config, str(path))
    return public.from_public(state, config) if public.is_public(state) else state


def check_state(state: dict[str, Tensor], config: TapirConfig, source: str) -> None:
    """WeightsError names the tensor that is missing, extra or of the wrong shape for `config`."""
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in Tapir(config).state_dict().items()}
    if public.is_public(state):
        wanted = public.public_shapes(config, wanted)
    missing = sorted(wanted.keys() - state.keys())
    extra = sorted(state.keys() - wanted.keys())
    if missing or extra:
        counted = [
            f"{len(names)} {what} ({names[0]})" for names, what in ((missing, "missing"), (extra, "unknown")) if names
        ]
        fault = f"{' and '.join(counted)} tensors"
        raise WeightsError(f"{source} does not fit preset {config.name!r}: {fault}; is it another model's?")
    for name, shape in wanted.items():
        if tuple(state[name].shape) != shape:
            found = tuple(state[name].shape)
            raise WeightsError(f"{source} does not fit preset {config.name!r}: {name} is {found}, not {shape}")
        if not torch.isfinite(state[name]).all():
            raise WeightsError(f"{source} is damaged: {name} holds numbers that are not finite; fetch or train it anew")


def _embedded_state(config: TapirConfig) -> dict[str, Tensor]:
    if config.name not in EMBEDDED:
        raise WeightsError(
            f"preset {config.name!r} has no weights inside the package; give its checkpoint with --weights FILE, "
            f"or use one that has: {', '.join(EMBEDDED)}"
        )
    with as_file(files("online_tapir") / "weights" / f"{config.name}.safetensors") as path:
        return read_state(path, config)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    _check_there(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(f"{path} is no whole safetensors file ({error}); fetch or copy it again") from error


def _read_pytorch(path: Path) -> dict[str, Tensor]:
    _check_there(path)
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets; all of it means the same here
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{path} is no PyTorch state dict that can be read without running code ({reason})"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(f"{path} holds {type(found).__name__}, not a state dict of tensors")
    return found


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}; check the path")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty; fetch or copy it again")


def _config_of(fields: dict[str, Any]) -> TapirConfig:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    return TapirConfig(**values)
