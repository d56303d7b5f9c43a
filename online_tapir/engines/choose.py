"""Which engine a run gets: the fastest that is installed, and that computes what torch computes."""

from dataclasses import dataclass

import torch

from online_tapir.engines.engine import Engine, Report, logger
from online_tapir.engines.runtimes import OPENVINO, RUNTIMES, Runtime, has_bfloat16
from online_tapir.errors import ConfigError

ASKED = ("auto", "torch", *RUNTIMES)
APPROXIMATE = ("small",)  # models whose encoder may be computed in bfloat16 unasked; the public ones stay exact


@dataclass(frozen=True, slots=True)
class Choice:
    """A runtime, None for torch, with the precision of the encoder and the reason."""

    runtime: Runtime | None
    precision: str
    why: str

    @property
    def name(self) -> str:
        return "torch" if self.runtime is None else self.runtime.name


def choose(asked: str, model: str, device: str, dtype: str, precision: str = "auto") -> Choice:
    """The engine for a model's name on a device, in the dtype of `--dtype`.

    `auto` is OpenVINO on a CPU. Its encoder is computed in bfloat16 where the processor has it, for models that are
    not compared with a public checkpoint. Raises ConfigError for one that is not installed or cannot do it.
    """
    if asked not in ASKED:
        raise ConfigError(f"--engine {asked!r} is not one of {', '.join(ASKED)}")
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
    if precision == "auto":
        fast = "bfloat16" in runtime.precisions and has_bfloat16() and model in APPROXIMATE
        precision = "bfloat16" if fast else "float32"
    if precision not in runtime.precisions:
        raise ConfigError(f"--engine {runtime.name} computes in {' or '.join(runtime.precisions)}, not {precision}")
    why = "asked for" if asked != "auto" else "the fastest on a CPU (python -m bench.engines)"
    return Choice(runtime, precision, why)


def make(choice: Choice, threads: int, report: Report = logger.info) -> Engine | None:
    """The engine that was chosen; None for torch."""
    return None if choice.runtime is None else Engine(choice.runtime, choice.precision, threads, report)


def _torch(asked: str, dtype: str, why: str) -> Choice:
    if asked not in ("auto", "torch"):
        raise ConfigError(f"--engine {asked} cannot be used: {why}; leave it out, or use --device cpu in float32")
    return Choice(None, dtype, why)
