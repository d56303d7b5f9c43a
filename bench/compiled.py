"""Compiles every kernel for its target GPUs, without needing one: reports registers, shared memory and spills.

Compiles all `compile_cases()` of `tapir_kernels.gpu` - the shapes that the presets use, in each dtype - for compute
capability 8.0, 9.0 and 12.0 and for an MI300. Fails if a case does not compile, spills registers, or takes 100 KB of
shared memory or more. Does not measure speed.
"""

import pkgutil
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from typing import Annotated, Any

import triton
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from triton.compiler import ASTSource

from bench.command import BenchError, Count, JsonFile, run
from bench.report import finish
from tapir_kernels import gpu
from tapir_kernels.gpu.launch import INTERPRETED, OPTIONS, TARGETS, CompileCase

SHARED_LIMIT = 100_000  # bytes: the limit per program on compute capability 12.0, less a small margin
ALIGNMENT = 16  # bytes; torch aligns every allocated tensor to at least this


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to compile, and for which targets."""

    only: Annotated[str, Parameter(help="Only cases whose name contains this.")] = ""
    targets: Annotated[tuple[str, ...], Parameter(help="Target devices.", consume_multiple=True)] = tuple(TARGETS)
    jobs: Annotated[int, Parameter(help="Parallel compiler processes.", validator=Count)] = 2


@dataclass(frozen=True, slots=True)
class Resources:
    """Resource usage of one program of a compiled kernel."""

    case: str
    target: str
    warps: int
    registers: int = 0  # per thread
    shared_bytes: int = 0
    spilled_bytes: int = 0  # per thread; on AMD, a spilled register counts as four bytes
    error: str | None = None  # why it did not compile

    @property
    def passes(self) -> bool:
        return self.error is None and self.spilled_bytes == 0 and self.shared_bytes < SHARED_LIMIT


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
) -> None:
    """Compile every kernel for every target and print its resource usage."""
    found = list(compiled(settings))
    _print(found)
    finish("compiled", settings, {"cases": found}, json)
    failed = [each for each in found if not each.passes]
    if failed:
        names = ", ".join(f"{each.case} for {each.target}" for each in failed)
        raise BenchError(f"{len(failed)} of {len(found)} fail to compile, spill, or take 100 KB: {names}")


def compiled(settings: Settings) -> Iterator[Resources]:
    """Compiles each selected case for each target.

    Raises BenchError if no case matches, a target is unknown, or kernels are interpreted.
    """
    if INTERPRETED.value:
        raise BenchError("TRITON_INTERPRET is set, so nothing can be compiled; unset it")
    unknown = set(settings.targets) - set(TARGETS)
    if unknown:
        raise BenchError(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    work = [
        (module, index, target)
        for module in modules()
        for index, case in enumerate(cases(module))
        for target in settings.targets
        if settings.only in case.name
    ]
    if not work:
        raise BenchError(f"no case has {settings.only!r} in its name")
    if settings.jobs == 1:
        yield from (resources(*each) for each in work)
        return
    with ProcessPoolExecutor(settings.jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(resources, *zip(*work, strict=True))


def modules() -> list[str]:
    """The modules of `tapir_kernels.gpu` that have cases."""
    names = [f"{gpu.__name__}.{found.name}" for found in pkgutil.iter_modules(gpu.__path__)]
    return [name for name in names if hasattr(import_module(name), "compile_cases")]


def cases(module: str) -> Sequence[CompileCase]:
    found: Sequence[CompileCase] = import_module(module).compile_cases()
    return found


def resources(module: str, index: int, target: str) -> Resources:
    """Compiles one of a module's cases and returns its resources; a compiler error is returned in `error`."""
    case = cases(module)[index]
    try:
        kernel = compile_case(case, target)
    except Exception as error:  # the compiler's errors share no base class
        return Resources(case.name, target, case.num_warps, error=" ".join(f"{type(error).__name__}: {error}".split()))
    read = _of_cubin if "cubin" in kernel.asm else _of_amdgcn
    registers, shared, spilled = read(kernel)
    return Resources(case.name, target, case.num_warps, registers, shared + kernel.metadata.shared, spilled)


def compile_case(case: CompileCase, target: str) -> Any:
    """Compiles the case's kernel for the named target."""
    names = case.kernel.arg_names
    signature = {name: case.signature.get(name, "constexpr") for name in names}
    aligned = {
        (position,): [["tt.divisibility", ALIGNMENT]]
        for position, name in enumerate(names)
        if signature[name].startswith("*")
    }
    source = ASTSource(case.kernel, signature=signature, constexprs=dict(case.constexprs), attrs=aligned)
    options = {"num_warps": case.num_warps, "num_stages": case.num_stages, **OPTIONS}
    return triton.compile(source, target=TARGETS[target], options=options)


def _of_cubin(kernel: Any) -> tuple[int, int, int]:
    """Registers, static shared memory and stack plus local bytes of a cubin, as NVIDIA's cuobjdump reports them."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figure = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", text)}
    return figure["REG"], figure["SHARED"], figure["STACK"] + figure["LOCAL"]


def _of_amdgcn(kernel: Any) -> tuple[int, int, int]:
    """Vector registers, static LDS and bytes of scratch and spilled registers, from the metadata in the assembly."""
    figure = {name: int(value) for name, value in re.findall(r"^\s*-?\s*\.(\w+):\s+(\d+)$", kernel.asm["amdgcn"], re.M)}
    spilled = 4 * (figure["vgpr_spill_count"] + figure["sgpr_spill_count"])
    return figure["vgpr_count"], figure["group_segment_fixed_size"], figure["private_segment_fixed_size"] + spilled


def _print(found: Sequence[Resources]) -> None:
    table = Table(title="compiled kernels: resources of one program", title_justify="left")
    for heading in ("case", "target"):
        table.add_column(heading)
    for heading in ("warps", "registers", "shared, bytes", "spilled, bytes", ""):
        table.add_column(heading, justify="right")
    for each in found:
        figures = (each.warps, each.registers, each.shared_bytes, each.spilled_bytes)
        table.add_row(each.case, each.target, *map(str, figures), "" if each.passes else each.error or "over the limit")
    Console(highlight=False, width=150).print(table)


if __name__ == "__main__":
    run(main)
