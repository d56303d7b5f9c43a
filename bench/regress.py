"""Detects regressions: compares every figure of a bench result with an older result from the same machine.

    python -m bench.regress NEW.json --against OLD.json --threshold 1.1

Ratios are of cost: figures where higher is better, such as frames per second, are inverted, so that above 1 always
means worse. The exit code is 1 if a ratio exceeds the threshold. Some figures are shown but never fail: p99 and
maxima, which depend on a few frames; counts; figures that are not above zero; and times that grew by at most LEAST_MS.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from bench.command import BenchError, JsonFile, PlotFile, run
from bench.plots import Document, read
from bench.report import finish

Better = Literal["lower", "higher"]

# A figure is classified by the last name on its path through the document that contains one of these words.
NOT_JUDGED = (
    {"p99", "max", "slowest"}  # these depend on a few frames
    | {"points", "frames", "frame", "videos", "found", "returned", "files", "threads", "dropped", "target"}
    | {"difference"}  # from the public code, in the last bits
)
LOWER = {"ms", "us", "ns", "mib", "bytes", "px", "error", "busy", "over", "ratio", "differs"}
HIGHER = {"fps", "faster", "jaccard", "accuracy", "rate", "answered", "tflops", "share", "speedup"}
LEFT_OUT = {"distribution_ms", "samples", "count", "thresholds_px"}  # only for drawing, or not a figure
NAMES = ("tracker", "data", "points", "name", "case")  # that identify a run in a list, if it has no `setting`
SAME_MACHINE = ("processor", "cores", "usable_cpus", "gpu", "torch_threads")
LEAST_MS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The older result and the threshold."""

    against: Annotated[Path, Parameter(help="An older result of the same bench with the same settings.")]
    threshold: Annotated[
        float, Parameter(help="Fail if a cost exceeds the old one by this factor.", validator=Number(gte=1))
    ] = 1.1


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of both documents; `cost_ratio` is above 1 if it got worse, None if it is not judged."""

    figure: str
    old: float
    new: float
    better: Better | None
    cost_ratio: float | None
    worse: bool  # above the threshold


def main(
    new: Annotated[Path, Parameter(help="The JSON document of a bench.")],
    *,
    settings: Annotated[Settings, Parameter(name="*")],
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Compare a result with an older one of the same bench, settings and machine; exit code 1 if it got worse."""
    ratios = compare(read(new), read(settings.against), settings.threshold)
    show(ratios, settings.threshold)
    finish("regress", {"new": new, **asdict(settings)}, {"ratios": ratios}, json, plot)
    sys.exit(any(ratio.worse for ratio in ratios))


def compare(new: Document, old: Document, threshold: float) -> list[Ratio]:
    """The ratio of every figure that is in both documents.

    Raises BenchError if they differ in bench, settings or machine, or share no figure.
    """
    check_alike("bench", {"bench": new["bench"]}, {"bench": old["bench"]})
    check_alike("machine", *({key: one["machine"].get(key) for key in SAME_MACHINE} for one in (new, old)))
    check_alike("settings", new["settings"], old["settings"])
    ours, theirs = dict(figures(new["results"])), dict(figures(old["results"]))
    shared = [path for path in ours if path in theirs]
    if not shared:
        raise BenchError("the two documents share no figure; were they written by versions far apart?")
    return [ratio(path, ours[path], theirs[path], threshold) for path in shared]


def check_alike(what: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    for key in dict.fromkeys((*new, *old)):
        if new.get(key) != old.get(key):
            raise BenchError(
                f"the {what} of the two documents differ, so they are not comparable: {key} is {new.get(key)!r} "
                f"in the new one, {old.get(key)!r} in the old one; measure both alike"
            )


def figures(held: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every number in a document's results, with its path of names."""
    if isinstance(held, Mapping):
        for key, value in held.items():
            if key != "setting" and key not in LEFT_OUT:
                yield from figures(value, (*path, key))
    elif isinstance(held, list):
        for index, value in enumerate(held):
            yield from figures(value, (*path, name_of(value) or str(index)))
    elif isinstance(held, int | float) and not isinstance(held, bool):
        yield path, held


def name_of(one: Any) -> str:
    """A name that identifies a run in its list; empty if there is none."""
    if not isinstance(one, Mapping):
        return ""
    setting = one.get("setting", {key: one[key] for key in NAMES if isinstance(one.get(key), str | int)})
    return ", ".join(value if isinstance(value, str) else f"{value} {key}" for key, value in setting.items())


def ratio(path: tuple[str, ...], new: float, old: float, threshold: float) -> Ratio:
    better = direction(path)
    cost = None
    if better is not None and min(new, old) > 0:
        cost = round(new / old if better == "lower" else old / new, 4)
    matters = not is_time(path) or new - old > LEAST_MS
    return Ratio(" / ".join(path), old, new, better, cost, cost is not None and cost > threshold and matters)


def direction(path: tuple[str, ...]) -> Better | None:
    """Whether lower or higher is better, from the names on a figure's path; None if it is not judged."""
    for name in reversed(path):
        found = words(name)
        if found & NOT_JUDGED:
            return None
        if found & LOWER:
            return "lower"
        if found & HIGHER:
            return "higher"
    return None


def is_time(path: tuple[str, ...]) -> bool:
    return any("ms" in words(name) for name in path)


def words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))


def show(ratios: list[Ratio], threshold: float) -> None:
    table = Table(title=f"cost, new over old; above {threshold:g} is worse", title_justify="left")
    table.add_column("", overflow="fold")
    for heading in ("old", "new", "better", "cost"):
        table.add_column(heading, justify="right")
    for one in ratios:
        cost = "-" if one.cost_ratio is None else f"{one.cost_ratio:.3f}{' WORSE' if one.worse else ''}"
        table.add_row(one.figure, f"{one.old:.4g}", f"{one.new:.4g}", one.better or "-", cost)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    run(main)
