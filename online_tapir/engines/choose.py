"""Which engine a run gets: the fastest that is installed, and that computes what torch computes.

A precision below float32 is taken unasked where it is faster, by `python -m bench.engines`, and keeps to 0.05 px of
float32 in the median and 0.2 at p95, and to 0.3 of its Average Jaccard.
"""

from dataclasses import dataclass

import torch

from online_tapir.engines import quantized
from online_tapir.engines.engine import Engine, Report, logger
from online_tapir.engines.runtimes import (
    BFLOAT16_FLAGS,
    INT8_FLAGS,
    OPENVINO,
    RUNTIMES,
    TILES,
    Runtime,
    processor_flags,
)
from online_tapir.errors import ConfigError
from online_tapir.model.tapir import Tapir

ASKED = ("auto", "torch", *RUNTIMES)
PRECISIONS = ("auto", "float32", "bfloat16", "int8")
APPROXIMATE = ("small",)  # models whose encoder may be computed in less than float32 unasked; the public ones are exact


@dataclass(frozen=True, slots=True)
class Choice:
    """A runtime, None for torch, with the precision of the encoder and the reason."""

    runtime: Runtime | None
    precision: str
    why: str

    @property
    def name(self) -> str:
        return "torch" if self.runtime is None else self.runtime.name


def choose(
    asked: str, model: str, device: str, dtype: str, precision: str = "auto", *, calibrated: bool = False
) -> Choice:
    """The engine for a model's name on a device, in the dtype of `--dtype`.

    `auto` is OpenVINO on a CPU. Its encoder is computed in bfloat16 or int8 where the processor is faster at it, for
    models that are not compared with a public checkpoint; in int8 only if it was `calibrated` (`quantized.find`).
    Raises ConfigError for one that is not installed or cannot do it.
    """
    if asked not in ASKED:
        raise ConfigError(f"--engine {asked!r} is not one of {', '.join(ASKED)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    choice = _choose(asked, model, device, dtype, precision, calibrated=calibrated)
    if choice.runtime is None and precision not in ("auto", choice.precision):
        raise ConfigError(
            f"--precision {precision} is of an engine's encoder, and torch computes here ({choice.why}); "
            f"leave it out, or use --dtype"
        )
    return choice


def choose_for(model: Tapir, asked: str, precision: str = "auto") -> Choice:
    """`choose` for a model that is loaded."""
    first = next(model.parameters())
    dtype, calibrated = str(first.dtype).removeprefix("torch."), quantized.find(model) is not None
    return choose(asked, model.config.name, str(first.device), dtype, precision, calibrated=calibrated)


def _choose(asked: str, model: str, device: str, dtype: str, precision: str, *, calibrated: bool) -> Choice:
    if asked == "torch":
        return Choice(None, dtype, "asked for")
    if torch.device(device).type != "cpu":
        return _torch(asked, dtype, f"{device} runs torch and this project's own kernels")
    if dtype != "float32":
        return _torch(asked, dtype, f"--dtype {dtype} is torch's")
    runtime = OPENVINO if asked == "auto" else RUNTIMES[asked]
    if asked == "auto" and runtime.missing:
        return Choice(
            None, dtype, f"{runtime.name} is not installed; {runtime.install} makes a CPU several times faster"
        )
    runtime.require()
    why = "asked for" if asked != "auto" else "the fastest on a CPU (python -m bench.engines)"
    if precision == "auto":
        taken = _fastest(processor_flags(), calibrated=calibrated) if model in APPROXIMATE else "float32"
        return Choice(runtime, taken if taken in runtime.precisions else "float32", why)
    if precision not in runtime.precisions:
        raise ConfigError(f"--engine {runtime.name} computes in {' or '.join(runtime.precisions)}, not {precision}")
    if precision == "bfloat16" and not processor_flags() & BFLOAT16_FLAGS:
        return Choice(runtime, "float32", f"{why}; this processor has no bfloat16")
    return Choice(runtime, precision, why)


def _fastest(flags: frozenset[str], *, calibrated: bool) -> str:
    """The fastest precision of an encoder for a processor with these flags."""
    if calibrated and flags & INT8_FLAGS and not flags & TILES:
        return "int8"
    return "bfloat16" if flags & BFLOAT16_FLAGS else "float32"


def make(choice: Choice, threads: int, report: Report = logger.info) -> Engine | None:
    """The engine that was chosen; None for torch."""
    return None if choice.runtime is None else Engine(choice.runtime, choice.precision, threads, report)


def _torch(asked: str, dtype: str, why: str) -> Choice:
    if asked not in ("auto", "torch"):
        raise ConfigError(f"--engine {asked} cannot be used: {why}; leave it out, or use --device cpu in float32")
    return Choice(None, dtype, why)
