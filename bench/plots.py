"""Pictures of bench results, drawn only from their JSON documents, so that committed results can be redrawn.

    python -m bench.plots bench/results/*.json --out FOLDER       one picture for each document that has one
    python -m bench.plots A.json B.json --plot FILE.svg           documents of one bench in one picture

The same documents give the same bytes: files contain no dates and no random ids. Measures nothing.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import matplotlib as mpl
import numpy as np
from cyclopts import Parameter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.command import BenchError, run

Document = Mapping[str, Any]
Run = Mapping[str, Any]

WIDTH = 8.6  # inches: at this width, 9-point text matches a README's
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")  # the Okabe-Ito palette
DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
INK, FAINT = "#333333", "#8A8A8A"
RATES = (30, 60)  # frames a second; drawn as lines in pictures of times
MOST_RATIOS = 30
LEAST_MS = 0.1  # prices below this, or negative from noise, are drawn here
STAGES = {  # segments of a bar: a colour, and the stages that are summed in it
    "wait for the model, grab": ("#C9C9C9", ("capture",)),
    "encode": ("#0072B2", ("encode",)),
    "match": ("#56B4E9", ("match",)),
    "refine": ("#009E73", ("refine",)),
    "not the model": ("#D55E00", ("upload", "download", "publish", "receive")),
}
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
LOOK: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
    "svg.hashsalt": "online-tapir",
}


def draw(documents: Sequence[Document], path: Path) -> None:
    """Draws documents of one bench into `path`, an .svg or a .png.

    Raises BenchError for another file type, for documents of several benches, and for a bench that has no picture.
    """
    if path.suffix not in (".svg", ".png"):
        raise BenchError(f"--plot {path} is neither .svg nor .png; name one of these")
    with mpl.rc_context(LOOK):
        drawn = picture(documents)
        drawn.savefig(path, metadata={"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None})


def picture(documents: Sequence[Document]) -> Figure:
    """The figure for documents of one bench. Raises BenchError as `draw` does, and if a document lacks needed data."""
    benches = {document["bench"] for document in documents}
    if len(benches) != 1:
        raise BenchError(f"documents of {', '.join(sorted(benches)) or 'no bench'} make no picture; give one bench's")
    name = benches.pop()
    if name not in PICTURES:
        raise BenchError(f"bench {name!r} has no picture; these have one: {', '.join(PICTURES)}")
    try:
        return PICTURES[name](documents)
    except KeyError as error:
        raise BenchError(
            f"a document of bench {name!r} has no {error}: another version wrote it; measure again"
        ) from error


def live(documents: Sequence[Document]) -> Figure:
    """The distribution of latencies, one curve per run, and the median times of the stages."""
    runs = [(document, one) for document in documents for one in document["results"]["runs"]]
    figure, (left, right) = canvas("Capture to receive, the whole program", documents, 2, height=3.6 + 0.12 * len(runs))
    labels = run_labels(documents, runs)
    rates = sorted({one["setting"]["fps"] for _, one in runs})
    besides = list(dict.fromkeys(one["setting"]["beside"] for _, one in runs))
    several = len(rates) > 1
    for (_, one), label in zip(runs, labels, strict=True):
        rate, beside = rates.index(one["setting"]["fps"]), besides.index(one["setting"]["beside"])
        color, dash = (COLORS[rate], DASHES[beside % 4]) if several else (COLORS[beside % 7], DASHES[0])
        curve = one["distribution_ms"]
        left.plot(curve["value"], curve["percent"], color=color, linestyle=dash, label=label, drawstyle="steps-post")
        left.plot(one["ms"]["capture to receive"]["p95"], 95, "o", color=color)
    left.set(xlabel="milliseconds, from grab to received", ylabel="% of frames no older (dots: p95)", ylim=(0, 101))
    left.set_xlim(left=0)
    stage_bars(right, [one["ms"] for _, one in runs], labels)
    legend_above(left, columns=2)
    return figure


def stage_bars(axes: Axes, spreads: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> None:
    """A stacked bar for each run: the medians of its stages."""
    ends = np.zeros(len(spreads))
    for stage, (color, parts) in STAGES.items():
        medians = np.array([sum(ms[part]["p50"] for part in parts) for ms in spreads])
        axes.barh(range(len(spreads)), medians, left=ends, color=color, height=0.62, label=stage)
        ends += medians
    axes.set_yticks(range(len(spreads)), [label.replace(", ", "\n", 1) for label in labels])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="milliseconds, medians of the stages")
    legend_above(axes, columns=2)


def scale(documents: Sequence[Document]) -> Figure:
    """Median step time by number of points, shaded to p95; one colour per tracker, one dash pattern per resolution."""
    figure, (axes,) = canvas("Time of a step by the points that are followed", documents, 1, height=4.2)
    runs = [one for document in documents for one in document["results"]["runs"]]
    trackers = list(dict.fromkeys((one["setting"]["tracker"], one["setting"]["device"]) for one in runs))
    resolutions = list(dict.fromkeys(one["setting"]["resolution"] for one in runs))
    for (tracker, device, resolution), own in curves(runs):
        color = COLORS[trackers.index((tracker, device)) % 7]
        dash = DASHES[resolutions.index(resolution) % 4]
        points = [one["setting"]["points"] for one in own]
        p50, p95 = ([one["ms"][rank] for one in own] for rank in ("p50", "p95"))
        axes.fill_between(points, p50, p95, color=color, alpha=0.15, linewidth=0)
        where = device if len({device for _, device in trackers}) > 1 else ""
        label = ", ".join(filter(None, (tracker, where, resolution)))
        axes.plot(points, p50, marker="o", color=color, linestyle=dash, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    plain_ticks(axes, x=sorted({one["setting"]["points"] for one in runs}))
    axes.set(xlabel="points", ylabel="milliseconds a step, median (shaded: to p95)")
    rate_lines(axes)
    legend_above(axes, columns=4)
    return figure


def curves(runs: Iterable[Run]) -> list[tuple[tuple[str, str, str], list[Run]]]:
    """The runs of each tracker, device and resolution, sorted by number of points."""
    found: dict[tuple[str, str, str], list[Run]] = {}
    for one in runs:
        setting = one["setting"]
        found.setdefault((setting["tracker"], setting["device"], setting["resolution"]), []).append(one)
    return [(name, sorted(own, key=lambda one: int(one["setting"]["points"]))) for name, own in found.items()]


def window(documents: Sequence[Document]) -> Figure:
    """The price of a late query by its age, one curve per number of points, and the spare time per frame."""
    figure, (axes,) = canvas("Price of queries on past frames", documents, 1, height=3.8)
    for index, document in enumerate(documents):
        results, settings = document["results"], document["settings"]
        numbers = sorted({one["setting"]["points"] for one in results["runs"]})
        for number in numbers:
            own = [one for one in results["runs"] if one["setting"]["points"] == number]
            ages = [one["setting"]["age"] for one in own]
            p50, p95 = ([max(one["price_ms"][rank], LEAST_MS) for one in own] for rank in ("p50", "p95"))
            color = COLORS[numbers.index(number) % 7]
            axes.fill_between(ages, p50, p95, color=color, alpha=0.15, linewidth=0)
            label = f"{number} point{'s' * (number > 1)}" + (f", {settings['model']}" if len(documents) > 1 else "")
            axes.plot(ages, p50, marker="o", color=color, linestyle=DASHES[index % 4], label=label)
        spare = 1e3 / settings["fps"] - results["plain_ms"]["p50"]
        if spare > 0:
            axes.axhline(spare, color=FAINT, linewidth=1)
            text = f"to spare at {settings['fps']:g} fps: {spare:.0f} ms"
            axes.annotate(text, (0, spare), (2, 3), textcoords="offset points", color=FAINT, fontsize=8)
    ages = sorted({one["setting"]["age"] for document in documents for one in document["results"]["runs"]})
    axes.set_xscale("symlog", base=2, linthresh=1, linscale=0.6)
    axes.set_yscale("log")
    axes.set_ylim(bottom=LEAST_MS / 1.5)
    plain_ticks(axes, x=ages)
    axes.set(xlabel="age of the frame, in frames (0: queried in time)", ylabel="milliseconds, median (shaded: to p95)")
    legend_above(axes, columns=4)
    return figure


def accuracy(documents: Sequence[Document]) -> Figure:
    """Average Jaccard against step time, one panel per data set, one colour per tracker."""
    reports = [report for document in documents for report in document["results"]["reports"]]
    scored = [one for one in reports if one["scores"]["average_jaccard"] is not None]
    data = list(dict.fromkeys(one["data"] for one in scored))
    trackers = list(dict.fromkeys(one["tracker"] for one in scored))
    figure, panels = canvas("Accuracy over speed", documents, len(data), height=3.7, same_y=True)
    for axes, name in zip(panels, data, strict=True):
        for one in (one for one in scored if one["data"] == name):
            color = COLORS[trackers.index(one["tracker"]) % 7]
            jaccard, ms, ms_p95 = 100 * one["scores"]["average_jaccard"], one["step_ms_p50"], one["step_ms_p95"]
            axes.plot([ms, ms_p95], [jaccard, jaccard], color=color, linewidth=1.2)
            axes.plot(ms, jaccard, "o", color=color, markersize=8, linestyle="none", label=one["tracker"])
        axes.set_xscale("log")
        axes.margins(x=0.12)
        plain_ticks(axes)
        axes.set_title(name.replace(", ", ",\n"))
        axes.set_xlabel("ms a step (line: to p95)")
    top = max(100 * one["scores"]["average_jaccard"] for one in scored)
    panels[0].set(ylabel="Average Jaccard, %", ylim=(0, min(104, 1.15 * top)))
    legend_beside_title(figure, panels[0])
    return figure


def compare(documents: Sequence[Document]) -> Figure:
    """Frame times of our code and of the public code: medians, with a whisker to p95."""
    runs = [one for document in documents for one in document["results"]["runs"]]
    figure, (axes,) = canvas("One frame of the published model, ours and the public code", documents, 1, height=3.4)
    sides = {"online-tapir": "frame", "public PyTorch code": "public frame"}
    for side, (label, key) in enumerate(sides.items()):
        own = [(index, one["ms"][key]) for index, one in enumerate(runs) if key in one["ms"]]
        if not own:
            continue  # the public code was not run
        at = [index + 0.36 * (side - 0.5) for index, _ in own]
        tops = [ms["p50"] for _, ms in own]
        whiskers = [[0] * len(own), [ms["p95"] - ms["p50"] for _, ms in own]]
        axes.bar(at, tops, 0.34, yerr=whiskers, color=COLORS[side], ecolor=INK, capsize=2, label=label)
    for index, one in enumerate(runs):
        if "times_faster" in one:
            where = (index + 0.18, one["ms"]["public frame"]["p95"])
            axes.annotate(f"{one['times_faster']:g}x", where, (0, 3), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(runs)), [f"{one['points']} points" for one in runs])
    axes.set_xlim(-0.6, len(runs) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("ms a frame, median (whisker: p95)")
    legend_above(axes, columns=2)
    return figure


def memory(documents: Sequence[Document]) -> Figure:
    """Resident memory against frames tracked, on an axis from zero."""
    figure, (axes,) = canvas("Resident memory while points come and go", documents, 1, height=2.9)
    for index, document in enumerate(documents):
        results, settings = document["results"], document["settings"]
        frames, rss = ([sample[key] for sample in results["samples"]] for key in ("frames", "rss_mib"))
        label = f"{settings['model']}, {settings['points']} points: {results['ratio']:.3f} times the value at the dot"
        axes.plot(frames, rss, color=COLORS[index % 7], label=label)
        axes.plot(settings["warm_up"], results["rss_mib_after_warm_up"], "o", color=COLORS[index % 7])
    axes.set(xlabel="frames", ylabel="MiB", ylim=(0, axes.get_ylim()[1] * 1.1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.legend(loc="lower right")
    return figure


def drift(documents: Sequence[Document]) -> Figure:
    """Distance of half-precision tracks from the float32 tracks: median to maximum."""
    spreads = {
        (f"{document['settings']['model']}, {dtype}" if len(documents) > 1 else dtype): px
        for document in documents
        for dtype, px in document["results"]["px"].items()
    }
    height = 1.6 + 0.45 * len(spreads)
    figure, (axes,) = canvas("Distance from the tracks in float32", documents, 1, height=height)
    ranks = {"p50": "o", "p95": "D", "p99": "s", "max": "|"}
    for row, px in enumerate(spreads.values()):
        told = {rank: max(px[rank], 1e-4) for rank in ranks}
        axes.plot([told["p50"], told["max"]], [row, row], color=COLORS[0], linewidth=1)
        for rank, marker in ranks.items():
            axes.plot(told[rank], row, marker, color=COLORS[0], linestyle="none", label=rank if row == 0 else None)
    axes.set_yticks(range(len(spreads)), list(spreads))
    axes.set_ylim(len(spreads) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PLAIN)
    axes.set_xlabel("pixels of the frame")
    legend_beside_title(figure, axes)
    return figure


def regress(documents: Sequence[Document]) -> Figure:
    """The largest judged cost ratios, new over old, and the threshold."""
    judged = [row for document in documents for row in document["results"]["ratios"] if row["cost_ratio"] is not None]
    rows = sorted(judged, key=lambda row: float(row["cost_ratio"]), reverse=True)[:MOST_RATIOS]
    title = f"Cost, new over old: the {len(rows)} largest of {len(judged)} ratios"
    figure, (axes,) = canvas(title, documents, 1, height=1.4 + 0.19 * len(rows))
    threshold = documents[0]["settings"]["threshold"]
    for index, row in enumerate(rows):
        axes.plot(row["cost_ratio"], index, "o", color=COLORS[1 if row["worse"] else 0])
    axes.axvline(1, color=FAINT, linewidth=1)
    axes.axvline(threshold, color=COLORS[1], linewidth=1, linestyle=DASHES[1])
    axes.set_yticks(range(len(rows)), [row["figure"] for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("above 1: worse than it was (dashed: the threshold)")
    return figure


PICTURES: dict[str, Callable[[Sequence[Document]], Figure]] = {
    "accuracy": accuracy,
    "compare": compare,
    "drift": drift,
    "live": live,
    "memory": memory,
    "regress": regress,
    "scale": scale,
    "window": window,
}


def canvas(
    title: str, documents: Sequence[Document], panels: int, *, height: float, same_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """An empty figure of `panels` axes side by side, with the title above and the provenance below."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, x=0.008, ha="left", fontsize=11, fontweight="bold")
    figure.supxlabel(provenance(documents), x=0.008, ha="left", fontsize=7, color=FAINT)
    axes = figure.subplots(1, panels, squeeze=False, sharey=same_y)
    return figure, list(axes[0])


def provenance(documents: Sequence[Document]) -> str:
    """The bench, its settings in short, the machine and the commit; without repeats."""
    said: list[str] = []
    for document in documents:
        machine, settings = document["machine"], document["settings"]
        what = [str(settings[key]) for key in ("model", "size") if settings.get(key)]
        points = settings.get("points")
        what += [f"{points} points"] if isinstance(points, int) else []
        where = machine.get("gpu") or f"{machine['processor']}, {machine['usable_cpus']} cores"
        commit = (document["commit"] or "no commit")[:10]
        said += [f"python -m bench.{document['bench']}", ", ".join(what), where, commit]
    return " · ".join(dict.fromkeys(filter(None, said)))


def run_labels(documents: Sequence[Document], runs: Sequence[tuple[Document, Run]]) -> list[str]:
    """A label for each live run; with size and points if documents differ in model, size or points."""
    kinds = [tuple(document["settings"][key] for key in ("model", "size", "points")) for document in documents]
    labels = []
    for document, one in runs:
        fps, beside = one["setting"]["fps"], one["setting"]["beside"]
        parts = [f"{fps:g} fps" if fps else "unpaced"]
        parts += [beside.replace("-", " ")] if beside != "nothing" else []
        if len(set(kinds)) > 1:
            parts += [str(document["settings"]["size"]), f"{document['settings']['points']} points"]
        labels.append(", ".join(parts))
    return labels


def plain_ticks(axes: Axes, x: Sequence[float] | None = None) -> None:
    """Plain numbers, without exponents, on logarithmic axes; on the x axis only at `x`, if given."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PLAIN)
        axis.set_minor_formatter(NullFormatter())
    if x is not None:
        axes.set_xticks(x, minor=False)
        axes.minorticks_off()


def rate_lines(axes: Axes) -> None:
    """Lines at the frame periods of RATES, where they are within the y range."""
    low, high = axes.get_ylim()
    for fps in RATES:
        if low < 1e3 / fps < high:
            axes.axhline(1e3 / fps, color=FAINT, linewidth=0.9, zorder=1)
            text: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
            axes.annotate(f"{fps} fps", (0, 1e3 / fps), (3, 2), color=FAINT, fontsize=8, **text)


def legend_above(axes: Axes, columns: int) -> None:
    """Puts the legend above `axes`, where it hides nothing."""
    style: dict[str, Any] = {"fontsize": 8, "handlelength": 1.6, "columnspacing": 1.2, "borderaxespad": 0.3}
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, **style)


def legend_beside_title(figure: Figure, axes: Axes) -> None:
    """A short legend for all panels, level with the title."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(handles), columnspacing=1.2, handletextpad=0.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where to draw: one picture per document in a folder, or all documents in one picture."""

    out: Annotated[Path | None, Parameter(help="A folder for one picture per document, with its name.")] = None
    format: Annotated[Literal["svg", "png"], Parameter(help="Format of the pictures in --out.")] = "svg"
    plot: Annotated[Path | None, Parameter(help="An .svg or .png for one picture of all documents, of one bench.")] = (
        None
    )


def main(*files: Path, settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> None:
    """Draw the results of benches."""
    if not files or (settings.out is None) == (settings.plot is None):
        raise BenchError("give JSON documents of benches, and either --out FOLDER or --plot FILE.svg")
    documents = {path: read(path) for path in files}
    if settings.plot is not None:
        draw(list(documents.values()), settings.plot)
    if settings.out is not None:
        settings.out.mkdir(parents=True, exist_ok=True)
        for path, document in documents.items():
            if document["bench"] in PICTURES:
                draw([document], settings.out / f"{path.stem}.{settings.format}")
            else:
                print(f"{path}: bench {document['bench']!r} has no picture")


def read(path: Path) -> Document:
    """Reads a bench's document. Raises BenchError if the file is not one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read as a bench's document: {error}; give what --json wrote") from error
    if not isinstance(document, dict) or not {"bench", "machine", "settings", "results"} <= document.keys():
        raise BenchError(f"{path} is not a bench's document; give what --json wrote")
    return document


if __name__ == "__main__":
    run(main)
