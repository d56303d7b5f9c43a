"""Draws Average Jaccard over the hours that training took, run by run, from the figures that `train` printed.

`bench/weights/curve.csv` keeps those of the second `small`; what was changed at each of its stages is in the cards.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bench.command import BenchError, run

FIGURES = Path(__file__).parent / "weights" / "curve.csv"


@dataclass(frozen=True, slots=True)
class Run:
    """One line of the plot: stages that went on from each other, or one that was tried and not kept."""

    name: str
    stages: tuple[str, ...]  # of every point
    hours: tuple[float, ...]  # of both cores, since training of the second `small` began
    jaccard: tuple[float, ...]  # percent, on the twelve validation clips of `train`


def read(path: Path) -> list[Run]:
    """The runs in a CSV file of columns run, stage, hours and jaccard, in its order. Raises BenchError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                (one["run"], one["stage"], float(one["hours"]), float(one["jaccard"])) for one in csv.DictReader(file)
            ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"{path} is no table of run, stage, hours and jaccard: {error}") from error
    if not rows:
        raise BenchError(f"{path} has no rows of run, stage, hours and jaccard")
    runs = []
    for name in dict.fromkeys(row[0] for row in rows):
        _, stages, hours, jaccard = zip(*(row for row in rows if row[0] == name), strict=True)
        runs.append(Run(name, stages, hours, jaccard))
    return runs


def draw(runs: Sequence[Run], path: Path) -> None:
    """One line a run, with the name of a stage where it begins."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes, last = figure.add_subplot(), max(hours for one in runs for hours in one.hours)
    for drawn in runs:
        (line,) = axes.plot(drawn.hours, drawn.jaccard, marker="o", markersize=3, linewidth=1.2, label=drawn.name)
        crowded, before = 0, -last  # names near each other, one below the other; where the last one is
        for index, stage in enumerate(drawn.stages):
            if index == 0 or drawn.stages[index - 1] != stage:
                at = (drawn.hours[index], drawn.jaccard[index])
                right = at[0] > 0.85 * last  # there is no room to its right
                crowded = crowded + 1 if at[0] - before < 0.15 * last else 0
                before = at[0]
                axes.annotate(
                    stage,
                    at,
                    xytext=(-3 if right else 3, -11 - 10 * crowded),
                    textcoords="offset points",
                    ha="right" if right else "left",
                    fontsize=7,
                    color=line.get_color(),
                )
    axes.set(xlabel="hours of both cores", ylabel="Average Jaccard on twelve validation clips, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def main(
    *,
    figures: Annotated[Path, Parameter(help="The CSV file.")] = FIGURES,
    out: Annotated[Path, Parameter(help="The plot, .svg or .png.")] = Path("training.svg"),
) -> None:
    """Draw the curve of the second `small`, or of another file's runs."""
    runs = read(figures)
    for one in runs:
        print(f"{one.name}: {one.jaccard[0]:.1f} to {one.jaccard[-1]:.1f} in {one.hours[-1] - one.hours[0]:.1f} hours")
    draw(runs, out)


if __name__ == "__main__":
    run(main)
