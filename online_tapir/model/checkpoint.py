"""Reads and writes weights files, without ever running code from them."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from online_tapir.errors import ConfigError, WeightsError
from online_tapir.files import replacing
from online_tapir.model import haiku, public, weights_store
from online_tapir.model.backbone import EXTRA_EXPANSION
from online_tapir.model.config import NEIGHBOURS, PRESETS, TapirConfig, preset
from online_tapir.model.memory import MIB, memory_errors, memory_of, ran_out
from online_tapir.model.public import Shape
from online_tapir.model.tapir import Tapir
from tapir_kernels import PATCH_SAMPLES

FORMAT = "online-tapir/weights"
VERSION = "1"
EMBEDDED = ("small",)
MOST_ITERATIONS = 4  # the number that the public checkpoints were trained with
Form = Literal["safetensors", "PyTorch", "Haiku"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name_or_path: str | Path,
    weights: str | Path | None = None,
    device: str = "auto",
    dtype: torch.dtype | str | None = None,
    iterations: int | None = None,
    visible_above: float | None = None,
) -> Tapir:
    """Loads a model ready to track: a preset (`small`, `bootstapir`, `tapir`) or a weights file of this project.

    `weights` is a file that replaces the preset's weights: a PyTorch state dict, a .safetensors or the public Haiku
    .npy. The package contains the weights of `small`; the public checkpoints are downloaded on first use (see
    `weights_store`). `device` is a torch device, or "auto" for the first GPU, or the CPU if there is none. `dtype` is
    float32 (the default), bfloat16 or float16, by name or as a torch dtype. `iterations` (1 to 4) replaces the number
    of refinements per frame that the model was trained with: fewer are faster and less accurate. `visible_above`
    replaces the certainty, 0 to 1, above which a point counts as visible.

    Raises ConfigError for an unknown preset, device or dtype, for invalid `iterations` and for too little memory;
    WeightsError for a file that is missing, corrupt, made for another model, or cannot be fetched.
    """
    target = choose_device(device)
    with memory_errors(lambda: f"{target} has no free memory; stop other programs that use it, or use --device cpu"):
        precision = choose_dtype(dtype, target)
    if str(name_or_path) in PRESETS:
        config, state = _preset_weights(preset(str(name_or_path)), weights)
    elif weights is None and Path(name_or_path).suffix == ".safetensors":
        config, state = read_weights(Path(name_or_path))
    else:
        raise ConfigError(
            f"no preset {str(name_or_path)!r}; there are {', '.join(PRESETS)}, or give a .safetensors file"
        )
    if iterations is not None:
        config = with_iterations(config, iterations)
    if visible_above is not None:
        config = replace(config, visible_above=visible_above)
    with memory_errors(lambda: _too_large(config, state, target, precision)):
        model = Tapir(config)  # not on the meta device: random numbers there cost torch a second of imports
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        model.requires_grad_(False)
        model.to(target, precision)
        model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def _too_large(config: TapirConfig, state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> str:
    memory = memory_of(device, model=0, held=0)
    free = "less" if memory is None else f"{memory.free / MIB:.0f} of {memory.total / MIB:.0f} MiB free"
    needed = sum(tensor.numel() for tensor in state.values()) * dtype.itemsize / MIB
    return (
        f"{config.name!r} takes {needed:.1f} MiB before its first point, and {device} has {free}: stop other programs, "
        f"or choose another --device, --dtype bfloat16 or a smaller model"
    )


def with_iterations(config: TapirConfig, iterations: int) -> TapirConfig:
    """`config` with `iterations` refinements a frame; ConfigError unless 1 to 4. The weights do not depend on it."""
    if not 1 <= iterations <= MOST_ITERATIONS:
        raise ConfigError(f"{iterations} iterations asked for; give 1 to {MOST_ITERATIONS}")
    return replace(config, iterations=iterations)


def choose_device(name: str) -> torch.device:
    """The torch device called `name`; "auto" is the first GPU, or the CPU. ConfigError if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used: {reason}; try --device cpu or auto") from error
    return device


def choose_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """The dtype to compute in, float32 for None. ConfigError if it is unknown or `device` cannot run a model in it."""
    chosen = DTYPES.get(str(dtype).removeprefix("torch.")) if dtype is not None else torch.float32
    if chosen is None:
        raise ConfigError(f"dtype {str(dtype)!r} is not supported; choose {', '.join(DTYPES)}")
    reason = _cannot_compute(chosen, device)
    if reason is not None:
        raise ConfigError(f"{device} cannot compute in {dtype}: {reason}; choose another, float32 works everywhere")
    return chosen


def _cannot_compute(dtype: torch.dtype, device: torch.device) -> str | None:
    """Why a convolution and a matrix product fail in `dtype` on `device`; None if they work."""
    try:
        x = torch.zeros(1, 8, 8, 8, dtype=dtype, device=device)
        F.gelu(F.conv2d(x, x) @ x.mT[..., :1, :])
    except (RuntimeError, NotImplementedError) as error:
        if ran_out(error):
            raise
        return str(error).splitlines()[0]
    return None


def save_weights(path: Path, model: Tapir, notes: dict[str, str], dtype: torch.dtype = torch.float16) -> None:
    """Writes the weights and their configuration to a .safetensors file; `notes` go into its metadata."""
    metadata = {"format": FORMAT, "version": VERSION, "config": json.dumps(asdict(model.config)), **notes}
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata)


def read_weights(path: Path) -> tuple[TapirConfig, dict[str, Tensor]]:
    """The configuration and the tensors of a .safetensors file that this project wrote."""
    state, metadata = _read_safetensors(path)
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise WeightsError(
            f"{path} is a safetensors file, but not one of online-tapir's; name its preset along with --weights"
        )
    if metadata.get("version") != VERSION:
        raise WeightsError(
            f"{path} has format version {metadata.get('version')}, this program reads {VERSION}; upgrade it"
        )
    try:
        config = _config_of(json.loads(metadata["config"]), state)
        check_state(state, config, str(path))
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, ConfigError) as error:
        raise WeightsError(f"{path} describes a model that this version cannot build: {error}") from error
    return config, state


def read_state(path: Path, config: TapirConfig) -> tuple[TapirConfig, dict[str, Tensor]]:
    """Reads any checkpoint file for `config`: the configuration it fits, and its tensors under this project's names.

    The configuration is `config`, except where versions of a preset differ, so that the file decides: causal TAPIR's
    pooled grids, of which the public code has one in some places and none in others, and the neighbours of `small`'s
    queries. Names may be this project's or those of the public PyTorch or Haiku
    checkpoints. Pickles are read without running code.
    """
    state = read_tensors(path)
    config = _as_in(state, config)
    check_state(state, config, str(path))
    if haiku.is_haiku(state):
        state = haiku.to_public(state, config)
    return config, public.from_public(state, config) if public.is_public(state) else state


@dataclass(frozen=True, slots=True)
class Weights:
    """The contents of a weights file, under this project's names."""

    form: Form
    config: TapirConfig
    state: dict[str, Tensor]
    notes: dict[str, str]  # free-form metadata from its writer


def inspect(path: Path, name: str | None = None) -> Weights:
    """Reads a weights file of any supported form, for preset `name`.

    Without `name`, the configuration is the one in the file's metadata, or else the preset that its tensors fit.
    Raises WeightsError if they fit no preset, or not `name`.
    """
    form = file_form(path)
    if name is None and form == "safetensors":
        metadata = _read_safetensors(path)[1]
        if metadata.get("format") == FORMAT:
            notes = {key: text for key, text in metadata.items() if key not in ("format", "version", "config")}
            return Weights(form, *read_weights(path), notes)
    tensors = read_tensors(path)
    config = fitting_preset(tensors) if name is None else preset(name)
    if config is None:
        raise WeightsError(
            f"{path} fits no preset: it holds {len(tensors)} tensors, {min(tensors, default='none')} first"
        )
    return Weights(form, *read_state(path, config), {})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint file, under the file's own names."""
    match file_form(path):
        case "safetensors":
            return _read_safetensors(path)[0]
        case "PyTorch":
            return _read_pytorch(path)
        case "Haiku":
            return haiku.read(path)


def file_form(path: Path) -> Form:
    """Detects a file's format from its first bytes. WeightsError if it is not a weights format."""
    _check_there(path)
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(haiku.MAGIC):
        return "Haiku"
    if start.startswith((b"PK", b"\x80")):
        return "PyTorch"
    if start[8:9] == b"{":
        return "safetensors"
    if start.lstrip().startswith(b"<"):
        raise WeightsError(f"{path} is a web page, not a checkpoint; open it to see what the server said")
    raise WeightsError(f"{path} is not a checkpoint: neither PyTorch, safetensors nor NumPy; fetch it again")


def check_state(state: dict[str, Tensor], config: TapirConfig, source: str) -> None:
    """WeightsError, naming the tensor, if one is missing, extra, of the wrong shape for `config` or not finite."""
    fault = _misfit(state, config)
    if fault is not None:
        other = fitting_preset(state)
        advice = "is it for another model?" if other is None else f"it looks like preset {other.name!r}, name that one"
        raise WeightsError(f"{source} does not fit preset {config.name!r}: {fault}; {advice}")
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{source} is damaged: {name} has values that are not finite; fetch or train it again")


def fitting_preset(state: dict[str, Tensor]) -> TapirConfig | None:
    """The preset that a checkpoint's tensors fit, under any of the naming schemes; None if they fit none."""
    candidates = (_as_in(state, config) for config in PRESETS.values())
    return next((config for config in candidates if _misfit(state, config) is None), None)


def _misfit(state: dict[str, Tensor], config: TapirConfig) -> str | None:
    """Describes the first mismatch between the tensors and `config`; None if all fit."""
    wanted = _wanted_shapes(state, config)
    missing = sorted(wanted.keys() - state.keys())
    extra = sorted(state.keys() - wanted.keys())
    if missing or extra:
        counted = [
            f"{len(names)} {what} ({names[0]})" for names, what in ((missing, "missing"), (extra, "unknown")) if names
        ]
        return f"{' and '.join(counted)} tensors"
    for name, shape in wanted.items():
        found = tuple(state[name].shape)
        if found != shape:
            return f"{name} is {found}, not {shape}"
    return None


def _wanted_shapes(state: dict[str, Tensor], config: TapirConfig) -> dict[str, Shape]:
    """The shapes that `config` needs, under the naming scheme of `state`."""
    ours = {name: tuple(tensor.shape) for name, tensor in Tapir(config).state_dict().items()}
    if haiku.is_haiku(state):
        return haiku.shapes(public.public_shapes(config, ours))
    return public.public_shapes(config, ours) if public.is_public(state) else ours


def _as_in(state: dict[str, Tensor], config: TapirConfig) -> TapirConfig:
    """`config` as a checkpoint has it, where versions of a preset differ; unchanged if it fits neither.

    Causal TAPIR has a pooled grid or none; `small` had no neighbours in its first version.
    """
    variants = {
        "tapir": [replace(config, pyramid_levels=1 - config.pyramid_levels)] if config.pyramid_levels in (0, 1) else [],
        "small": [replace(config, neighbour_grids=0)],
    }
    others = variants.get(config.name, [])
    if not others or _misfit(state, config) is None:
        return config
    return next((other for other in others if _misfit(state, other) is None), config)


def _preset_weights(config: TapirConfig, weights: str | Path | None) -> tuple[TapirConfig, dict[str, Tensor]]:
    if weights is not None:
        return read_state(Path(weights), config)
    if config.name in EMBEDDED:
        with as_file(files("online_tapir") / "weights" / f"{config.name}.safetensors") as path:
            return read_state(path, config)
    path = weights_store.fetched(weights_store.release(config.name), check=lambda path: read_state(path, config))
    return read_state(path, config)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    _check_there(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        # Not the open file's get_tensor: in safetensors 0.8 it leaks 64 bytes per tensor.
        return load(path.read_bytes()), metadata
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a complete safetensors file ({error}); fetch or copy it again") from error
    except KeyError as error:
        raise WeightsError(f"{path} holds numbers of type {error}, which no model here uses") from error


def _read_pytorch(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            cut = file.read(2) == b"PK" and not zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # is_zipfile raises this if a zip's end records contradict each other
        cut = True
    if cut:
        raise WeightsError(f"{path} is cut short at {path.stat().st_size:,} bytes; fetch or copy it again")
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler can raise anything; all of it means an unreadable file
        reason = next(iter(str(error).splitlines()), repr(error))
        raise WeightsError(
            f"{path} is not a PyTorch state dict that can be read without running code ({reason})"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(f"{path} holds {type(found).__name__}, not a state dict of tensors")
    return found


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}; check the path")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty; fetch or copy it again")


def _config_of(fields: Any, state: dict[str, Tensor]) -> TapirConfig:
    """Parses the configuration in a file's metadata; ValueError or TypeError if its tensors cannot fit it.

    Callers build a model from it to compare with the tensors. Whatever the metadata says, that model must not have more
    weights than the file.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"a {type(fields).__name__} is not a configuration")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    config = TapirConfig(**values)
    for field in dataclass_fields(TapirConfig):
        told = getattr(config, field.name)
        if _kind(told) not in (_kind(field.default), {int} if field.default == () else None):
            raise TypeError(f"{field.name} is {str(told)[:40]}")
    layers = (*config.blocks, config.extra_convs, config.mixer_depth, config.pyramid_levels)
    widths = (
        *(config.stem_width, *config.widths, *config.grid_widths),
        *(config.match_width, config.mixer_width, config.mixer_expansion),
    )
    if min(layers) < 0 or sum(layers) > len(state) or min(*config.blocks, *widths) < 1:
        raise ValueError(f"layers {layers} of widths {widths} do not match its {len(state)} tensors")
    held, needed = sum(tensor.numel() for tensor in state.values()), _main_weights(config)
    if needed > held:
        raise ValueError(f"such a model has more than {needed:,} weights, but the file holds {held:,}")
    return config


def _main_weights(config: TapirConfig) -> int:
    """Counts the weights of the layers that grow quadratically with the widths: nearly all of a model's."""
    around = 3 * 3
    sources = (config.stem_width, *config.widths[:-1])
    blocks = (1, 1, 1, 1) if config.trunk == "lean" else config.blocks
    groups = zip(sources, config.widths, blocks, strict=True)
    convs = sum(around * (source * width + (2 * count - 1) * width**2) for source, width, count in groups)
    extra = config.extra_convs * 2 * around * EXTRA_EXPANSION * config.lowres_channels**2
    head = around * 2 * config.match_width**2
    mixer = config.mixer_depth * 2 * config.mixer_expansion * config.mixer_width**2
    patches = config.grids + NEIGHBOURS * config.neighbour_grids
    around_mixer = config.mixer_width * (2 * config.feature_channels + PATCH_SAMPLES * patches)
    return convs + extra + head + mixer + around_mixer


def _kind(value: object) -> object:
    """The type of a value; for a tuple, the set of its items' types."""
    return {type(one) for one in value} if isinstance(value, tuple) else type(value)
