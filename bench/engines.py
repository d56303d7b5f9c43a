"""What engine, precision and input size cost and give: milliseconds a frame, Average Jaccard, drift from torch.

Every setting tracks the same clips of `bench.streaming` frame by frame, next to OpenCV's trackers. The plot shows the
accuracy over the time of a frame: on a machine and for a camera, the best setting is the highest that is fast enough.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from bench import streaming
from bench.command import BenchError, Count, JsonFile, PlotFile, pixels, run
from bench.report import Spread, finish, print_table
from online_tapir.engines.choose import choose_for, make
from online_tapir.evaluation import scores as metrics
from online_tapir.evaluation.baselines import DenseFlow, LucasKanadeWithRecovery
from online_tapir.launch.sizes import input_size
from online_tapir.launch.threads import set_threads
from online_tapir.model.checkpoint import load_model
from online_tapir.records import Frame, Tracks
from online_tapir.tracking.tracker import Tracker

WARM_UP = 5  # frames of a clip that are not timed
EXACT = "torch float32"
ENGINES = (
    EXACT,
    "torch bfloat16",
    "openvino float32",
    "openvino bfloat16",
    "openvino int8",
    "onnxruntime float32",
)
PEERS: dict[str, Callable[[], Any]] = {"LK, recovering": LucasKanadeWithRecovery, "DIS flow": DenseFlow}
TICKS = (10, 20, 33, 50, 100)  # milliseconds
INTERVAL = (
    f"a step: from the picture in memory to positions in memory; the first {WARM_UP} frames of a clip are excluded"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is compared, and on what."""

    models: Annotated[tuple[str, ...], Parameter(help="Presets or .safetensors files.")] = ("small",)
    engines: Annotated[tuple[str, ...], Parameter(help="Some of: " + "; ".join(ENGINES))] = ENGINES
    inputs: Annotated[tuple[str, ...], Parameter(help="Sizes, as `online-tapir --input`.")] = ("256x256", "384", "512")
    photos: Annotated[Path | None, Parameter(help="Folder of photographs. [default: procedural textures]")] = None
    clips: Annotated[int, Parameter(help="Clips of each kind.", validator=Count)] = 2
    frames: Annotated[int, Parameter(help="Frames per clip.", validator=Count)] = 40
    size: Annotated[str, Parameter(help="Frame size.")] = "640x480"
    points: Annotated[int, Parameter(help="Points per clip.", validator=Count)] = 64
    threads: Annotated[int | None, Parameter(help="CPU threads.", validator=Count)] = None
    peers: Annotated[bool, Parameter(help="Also OpenCV's trackers.")] = True


@dataclass(frozen=True, slots=True)
class Run:
    """One setting on all clips."""

    name: str
    scores: dict[str, float]  # Average Jaccard by kind of clip, percent
    occlusion: dict[str, float]
    ms: list[float]
    tracks: list[list[Tracks]]  # by clip


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(), *, json: JsonFile = None, plot: PlotFile = None
) -> None:
    """Measure every engine at every input size: time, accuracy, and how far its tracks are from torch's."""
    unknown = set(settings.engines) - set(ENGINES)
    if unknown:
        raise BenchError(f"there is no engine {sorted(unknown)[0]!r}; there are {', '.join(ENGINES)}")
    clips = list(
        streaming.make_clips(
            streaming.Settings(
                photos=settings.photos,
                clips=settings.clips,
                frames=max(10, settings.frames),
                size=settings.size,
                points=settings.points,
            )
        )
    )
    runs: list[Run] = []
    drift: dict[str, Spread] = {}
    for name in settings.models:
        for asked in settings.inputs:
            exact: Run | None = None
            for engine in settings.engines:
                found = tracked(f"{Path(name).stem}, {engine}, {asked}", maker(name, engine, asked, settings), clips)
                runs.append(found)
                if engine == EXACT:
                    exact = found
                elif exact is not None:
                    drift[found.name] = Spread.of(distances(exact, found))
    if settings.peers:
        runs += [tracked(name, make_peer, clips) for name, make_peer in PEERS.items()]
    times = {one.name: Spread.of(one.ms) for one in runs}
    facts = {one.name: ", ".join(f"{kind} {score} AJ" for kind, score in one.scores.items()) for one in runs}
    print_table(f"milliseconds a frame, {settings.points} points, {settings.size}", times, facts)
    if drift:
        print_table("pixels from torch in float32, of points that both report visible", drift, {})
    rows = [{"name": one.name, "jaccard": one.scores, "occlusion": one.occlusion} for one in runs]
    if plot is not None:
        draw(rows, {name: spread.p50 for name, spread in times.items()}, plot)
    finish("engines", settings, {"rows": rows, "ms": times, "drift_px": drift}, json, interval=INTERVAL)


def maker(name: str, engine: str, asked: str, settings: Settings) -> Callable[[], Tracker]:
    """Returns a function that makes a tracker with this engine and input."""
    runtime, precision = engine.split()
    threads = set_threads(settings.threads)
    in_torch = runtime == "torch"
    model = load_model(name, device="cpu", dtype=precision if in_torch else "float32")
    made = make(choose_for(model, runtime, "auto" if in_torch else precision), threads, lambda note: None)
    size = input_size(asked, pixels(settings.size))
    return lambda: Tracker(model, max_points=settings.points, window=1, input_size=size, engine=made)


def tracked(name: str, make_tracker: Callable[[], Any], clips: Sequence[streaming.Clip]) -> Run:
    """Tracks every clip frame by frame."""
    every, ms = [], []
    scores: dict[str, list[metrics.TrackScores]] = {}
    for clip in clips:
        tracker = make_tracker()
        tracker.add(clip.xy[:, 0])
        tracks = []
        for number, rgb in enumerate(clip.frames):
            given = Frame(number, 0, 0, rgb) if isinstance(tracker, Tracker) else rgb
            started = time.perf_counter()
            tracks.append(tracker.step(given))
            if number >= WARM_UP:
                ms.append(1000 * (time.perf_counter() - started))
        every.append(tracks)
        scores.setdefault(clip.kind, []).append(scored(clip, tracks))
    means = {kind: metrics.average(found) for kind, found in scores.items()}
    return Run(
        name,
        {kind: round(100 * mean.average_jaccard, 1) for kind, mean in means.items()},
        {kind: round(100 * mean.occlusion_accuracy, 1) for kind, mean in means.items()},
        ms,
        every,
    )


def scored(clip: streaming.Clip, tracks: Sequence[Tracks]) -> metrics.TrackScores:
    """The scores of a clip's tracks, query-first."""
    height, width = clip.frames.shape[1:3]
    xy, visible = np.stack([one.xy for one in tracks], 1), np.stack([one.visible for one in tracks], 1)
    told, truth = metrics.scale_to_256(xy, width, height), metrics.scale_to_256(clip.xy, width, height)
    after = np.broadcast_to(np.arange(len(tracks)) > 0, visible.shape)
    return metrics.score(told, visible, truth, clip.visible, after)


def distances(exact: Run, found: Run) -> NDArray[np.float32]:
    """Distances in pixels between two runs, for points that both report as visible."""
    pairs = [
        (a, b) for one, other in zip(exact.tracks, found.tracks, strict=True) for a, b in zip(one, other, strict=True)
    ]
    return np.concatenate([np.linalg.norm(a.xy - b.xy, axis=1)[a.visible & b.visible] for a, b in pairs])


def draw(rows: Sequence[dict[str, Any]], ms: Mapping[str, float], path: Path) -> None:
    """Average Jaccard over a frame's median time, one panel per kind of clip; a line joins an engine's inputs."""
    from matplotlib.figure import Figure

    kinds = list(rows[0]["jaccard"])
    figure = Figure(figsize=(6 * len(kinds), 4.5), layout="constrained")
    for column, kind in enumerate(kinds):
        axes = figure.add_subplot(1, len(kinds), column + 1)
        axes.set(title=kind, xlabel="milliseconds a frame (log)", ylabel="Average Jaccard", xscale="log")
        groups: dict[str, list[tuple[float, float, str]]] = {}
        for row in rows:
            group, _, size = row["name"].rpartition(", ") if row["name"] not in PEERS else (row["name"], "", "")
            groups.setdefault(group, []).append((ms[row["name"]], row["jaccard"][kind], size))
        for group, places in groups.items():
            axes.plot([x for x, _, _ in places], [y for _, y, _ in places], marker="o", label=group)
        for x, y, size in _named_once([place for places in groups.values() for place in places]):
            axes.annotate(size, (x, y), fontsize=7, xytext=(-4, 4), textcoords="offset points", ha="right")
        axes.axvline(1000 / 30, color="grey", linewidth=0.8, linestyle=":")
        axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def _named_once(places: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """For every size the fastest place that has it."""
    return [min(place for place in places if place[2] == size) for size in sorted({size for *_, size in places} - {""})]


if __name__ == "__main__":
    run(main)
