"""Output of every bench: a table, then a JSON document on the last line with the figures and all that produced them.

A spread is the median, p95, p99 and maximum by nearest rank; there are no means. `bench.plots` draws pictures from the
document alone, so that committed results can be redrawn.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch
from numpy.typing import ArrayLike
from rich.console import Console
from rich.table import Table

from bench.plots import draw
from online_tapir.live.status import percentile

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "triton", "numpy", "opencv-python", "rerun-sdk", "pyzmq", "msgpack")
OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
MIB = 2**20
RANKS = (*range(100), 99.5, 99.9, 100)  # per cent, at which a distribution is stored


@dataclass(frozen=True, slots=True)
class Spread:
    """The number of values and their percentiles, in the values' own unit."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: ArrayLike) -> "Spread":
        """The spread of at least one value [N], none of them NaN."""
        array = np.asarray(values, np.float64)
        assert len(array), "nothing was measured"
        assert not np.isnan(array).any(), "NaN among what was measured"
        return cls(len(array), *(round(percentile(array, q), 4) for q in (50, 95, 99, 100)))


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution for drawing a curve: the values at RANKS, in the values' own unit."""

    percent: tuple[float, ...]
    value: tuple[float, ...]  # for each of `percent`, the value at that rank

    @classmethod
    def of(cls, values: ArrayLike) -> "Distribution":
        """The distribution of at least one value [N], none of them NaN."""
        ordered = np.sort(np.asarray(values, np.float64))
        assert len(ordered), "nothing was measured"
        assert not np.isnan(ordered).any(), "NaN among what was measured"
        ranks = np.maximum(np.ceil(len(ordered) * np.array(RANKS) / 100).astype(int) - 1, 0)
        return cls(RANKS, tuple(np.round(ordered[ranks], 4).tolist()))


def machine() -> dict[str, Any]:
    """The machine that was measured on; `load` is its load average of the last minute, other processes included."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "usable_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch_threads": torch.get_num_threads(),
        "openmp": {name: os.environ[name] for name in OPENMP if name in os.environ},
        "load": round(psutil.getloadavg()[0], 2),
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries that the time is spent in; None for those not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def commit(folder: Path = ROOT) -> str | None:
    """The commit checked out in `folder`, with `+changes` if files differ from it; None outside a repository."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changes = _git(folder, "status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+changes" if changes else head


def print_table(title: str, spreads: Mapping[str, Spread], facts: Mapping[str, object]) -> None:
    """One row for each spread, then one for each single figure."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("p50", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    for name, spread in spreads.items():
        table.add_row(name, *(f"{value:.2f}" for value in (spread.p50, spread.p95, spread.p99, spread.max)))
    table.add_section()
    for name, value in facts.items():
        table.add_row(name, str(value))
    Console(highlight=False).print(table)


def finish(
    name: str,
    settings: object,
    results: Mapping[str, object],
    json_file: Path | None = None,
    plot_file: Path | None = None,
    *,
    interval: str | None = None,
) -> None:
    """Prints a bench's JSON document as the last line, writes it to `json_file` and draws it into `plot_file`.

    `interval` says in words what the times include, and what is excluded as warm-up. Raises BenchError for a bench that
    has no picture, or a picture that is neither .svg nor .png.
    """
    document = {
        "bench": name,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "settings": settings,
        "interval": interval,
        "results": results,
    }
    line = json.dumps(document, default=_plain, allow_nan=False)
    if json_file is not None:
        json_file.write_text(line + "\n", encoding="utf-8")
    print(line, flush=True)  # before drawing, so that a failed picture loses no figures
    if plot_file is not None:
        draw([json.loads(line)], plot_file)


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return value.name  # its folder is specific to the machine
    raise TypeError(f"{type(value).__name__} cannot be stored in a bench's JSON")
