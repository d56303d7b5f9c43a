"""Coverage-guided fuzzing (atheris) of every reader of external input.

Each target of `bench.fuzz_targets` runs in its own process and starts from valid input. Half of the cases are
structure-aware mutations, so that they get past the first checks. A reader may only raise the project's own errors.
Failures are any other exception, allocating more than 2 GiB, a case that takes longer than `--slowest`, a crash of the
process, and growing memory. Memory is compared from a fifth of the cases to the end, after freed memory has been
returned to the system.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from bench.command import BenchError, Count, JsonFile, run
from bench.fuzz_targets import SETTLED, TARGETS
from bench.report import ROOT, finish

GROWTH = 1.05, 32.0  # of memory; both must be exceeded: a ratio, and MiB that libFuzzer's corpus may add
INTERVAL = "a case: one call of a reader, from its bytes to its result or error, including writing the file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to fuzz, and for how long."""

    cases: Annotated[int | None, Parameter(help="Total cases. [default: 1,000,000]", validator=Count)] = None
    minutes: Annotated[float | None, Parameter(help="Total time, instead of --cases.", validator=Number(gt=0))] = None
    targets: Annotated[
        tuple[str, ...], Parameter(help="Only these. [default: all]", consume_multiple=True, negative=())
    ] = ()
    largest: Annotated[int, Parameter(help="Largest case, bytes.", validator=Count)] = 65_536
    slowest: Annotated[int, Parameter(help="Seconds a case may take.", validator=Count)] = 10
    seed: Annotated[int, Parameter(help="Seed of the fuzzer.", validator=Count)] = 1


def main(settings: Annotated[Settings, Parameter(name="*")] = Settings(), *, json: JsonFile = None) -> None:
    """Fuzz every reader of messages, files and weights; fail on a crash, a hang or growing memory."""
    if find_spec("atheris") is None:
        raise BenchError("atheris is not installed; pip install 'online-tapir[fuzz]'")
    if settings.cases is not None and settings.minutes is not None:
        raise BenchError("--cases and --minutes both say when it ends; give one of them")
    names = settings.targets or tuple(TARGETS)
    if unknown := set(names) - set(TARGETS):
        raise BenchError(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    results = [{"target": name, **fuzz(settings, name, len(names))} for name in names]
    show(results)
    finish("fuzz", settings, {"targets": results}, json, interval=INTERVAL)
    if failed := [result["target"] for result in results if result["wrong"]]:
        raise BenchError(f"failures in {', '.join(failed)}; the JSON has the first case of each, in hexadecimal")


def fuzz(settings: Settings, name: str, targets: int) -> dict[str, Any]:
    """Fuzzes one of `targets` targets for its share of the cases or of the time; returns its figures."""
    with TemporaryDirectory() as folder:
        report, log = Path(folder) / "report.json", Path(folder) / "log"
        words = [sys.executable, "-m", "bench.fuzz_targets", name, str(report), *flags(settings, targets)]
        with log.open("w") as out:
            ended = subprocess.run(
                [*words, f"-artifact_prefix={folder}/"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            ).returncode
        said = log.read_text(encoding="utf-8", errors="replace")
        if not report.exists():
            raise BenchError(f"the process of {name!r} did not start: {said.strip().splitlines()[-1:]}")
        findings = json.loads(report.read_text(encoding="utf-8"))
        fatal = [file.read_bytes()[:4096].hex() for file in Path(folder).glob("*-*") if file.is_file()]
    return judged(findings, ended, said, fatal)


def flags(settings: Settings, targets: int) -> list[str]:
    """libFuzzer's flags: when to end, its limits and its seed."""
    if settings.minutes is not None:
        end = f"-max_total_time={max(round(settings.minutes * 60 / targets), 1)}"
    else:
        end = f"-runs={-(-(settings.cases or 1_000_000) // targets)}"
    limits = [f"-timeout={settings.slowest}", "-rss_limit_mb=0", f"-max_len={settings.largest}"]
    return [end, *limits, f"-seed={settings.seed}", "-print_final_stats=1"]


def judged(findings: dict[str, Any], ended: int, said: str, fatal: list[str]) -> dict[str, Any]:
    """The figures of a target; `wrong` lists its failures in words."""
    samples = findings["rss_mib"]
    cases = int(found[1]) if (found := re.search(r"stat::number_of_executed_units: (\d+)", said)) else findings["cases"]
    settled = [mib for at, mib in samples if at >= SETTLED * findings["cases"]] or [samples[-1][1]]
    ratio = round(settled[-1] / settled[0], 4)
    wrong = [f"{failure['what']} ({failure['times']} times)" for failure in findings["failures"].values()]
    if ended != 0:
        wrong.append(f"its process ended with {ended}: {last_words(said)}")
    if ratio > GROWTH[0] and settled[-1] - settled[0] > GROWTH[1]:
        wrong.append(f"memory grew from {settled[0]} to {settled[-1]} MiB")
    covered = re.findall(r"cov: (\d+)", said)
    return {
        "cases": cases,
        "refused_share": round(findings["refused"] / max(findings["cases"], 1), 4),
        "branches_covered": int(covered[-1]) if covered else None,
        "slowest_ms": round(findings["slowest_ms"], 2),
        "rss_mib_settled": settled[0],
        "rss_mib_at_the_end": settled[-1],
        "ratio": ratio,
        "wrong": wrong,
        "failures": list(findings["failures"].values()),
        "fatal_cases_hex": fatal,
    }


def last_words(said: str) -> str:
    """The line with libFuzzer's error, or the end of its output if there is none."""
    return next((line for line in said.splitlines() if "ERROR: libFuzzer" in line), said.strip()[-200:])


def show(results: list[dict[str, Any]]) -> None:
    table = Table(title="Fuzzed readers", title_justify="left")
    for heading in ("target", "cases", "refused", "branches", "slowest ms", "MiB, settled to end", "wrong"):
        table.add_column(heading, justify="left" if heading in ("target", "wrong") else "right")
    for one in results:
        memory = f"{one['rss_mib_settled']:.0f} to {one['rss_mib_at_the_end']:.0f}"
        counts = (f"{one['cases']:,}", f"{one['refused_share']:.0%}", str(one["branches_covered"]))
        table.add_row(one["target"], *counts, f"{one['slowest_ms']:.1f}", memory, "\n".join(one["wrong"]) or "nothing")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    run(main)
