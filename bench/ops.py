"""Every op at a preset's shapes: the median time of its kernel and of its reference, and its roofline limit.

The limit is the longer of two times: the minimum memory traffic at the measured rate of a large copy, and the
arithmetic at the measured rate of a large matrix product. An op whose data stays in a cache may beat it. On a GPU many
calls of an op are recorded in one CUDA graph; on a CPU only the reference is run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from bench.cases import FRAME, OpTime, op_cases, timed
from bench.command import Count, JsonFile, run
from bench.rates import Limits
from bench.report import finish
from online_tapir.model.checkpoint import DTYPES, choose_device
from online_tapir.model.config import preset
from tapir_kernels import backend

INTERVAL = "one call of an op, its inputs on the device; warm-up calls are excluded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which shapes, in which dtype and where, and for how long."""

    model: Annotated[str, Parameter(help="Preset.")] = "bootstapir"
    points: Annotated[int, Parameter(help="Number of points.", validator=Count)] = 256
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], Parameter(help="Dtype of all tensors.")] = "float32"
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"
    seconds: Annotated[float, Parameter(help="Seconds per measurement.", validator=Number(gte=0))] = 0.2


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
) -> None:
    """Time every op's kernel and reference, and compare them with its limit."""
    device, dtype = choose_device(settings.device), DTYPES[settings.dtype]
    kernels = backend(device).name == "triton"
    with torch.inference_mode():
        limits = Limits.measured(device, dtype, settings.seconds)
        cases = op_cases(preset(settings.model), settings.points, device, dtype, FRAME)
        found = [timed(case, device, limits, settings.seconds, kernels) for case in cases]
    show(settings, found)
    facts = {"backend": backend(device), "limits": limits}
    finish("ops", settings, {**facts, "ops": found}, json, interval=INTERVAL)


def show(settings: Settings, found: Sequence[OpTime]) -> None:
    table = Table(
        title=f"{settings.model}, {settings.points} points, {settings.dtype}; ms a call", title_justify="left"
    )
    table.add_column("op")
    table.add_column("shape")
    for heading in ("kernel", "reference", "limit", "difference"):
        table.add_column(heading, justify="right")
    for each in found:
        kernel = "" if each.kernel_ms is None else f"{each.kernel_ms:.4f}"
        difference = "" if each.difference is None else f"{each.difference:g}"
        table.add_row(each.op, each.shape, kernel, f"{each.reference_ms:.4f}", f"{each.limit_ms:.4f}", difference)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    run(main)
