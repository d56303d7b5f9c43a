"""What a late query costs: points named on a frame that has passed, by its age and by how many they are.

A tracker follows some points at the camera's size. Then, for every age and number in turn, points are named on the
frame that many frames back, and the next step carries them through the window before it answers; they are removed, and
the step after it is timed, too. What the query cost is the difference of the two, so whatever else the machine does
falls on both. Age 1 is the newest frame that was tracked; age 0 the next one: points that are named in time.

Whether a frame is published late because of it is worked out from the times of these steps and the camera's rate: a
frame is late when its answer comes after the next frame was captured, and dropped when a newer one is there before it
is taken. That a query costs none is promised where the model itself holds twice the camera's rate, and the document
says whether it does.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Annotated, Any

import numpy as np
import torch
from cyclopts import Parameter
from cyclopts.validators import Number
from numpy.typing import NDArray

from bench.compare import scattered
from bench.report import BenchError, Count, JsonFile, PlotFile, Spread, finish, pixels, print_table, run
from bench.scale import model, to_and_fro
from online_tapir.model.checkpoint import choose_device
from online_tapir.tracking.tracker import Tracker

HOLDS = 2  # times the camera's rate, and the model has time to spare for a query
INTERVAL = (
    "a step: from the picture in memory to positions in memory, no camera and no sink; its price is that of the step "
    "which answers the query, less the next one. The window is filled before, and the first warm_up rounds are in no "
    "figure"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is asked, of what."""

    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"
    tracked: Annotated[int, Parameter(help="Points that are followed all along.", validator=Count)] = 64
    points: Annotated[
        tuple[int, ...], Parameter(help="Points to name at once.", consume_multiple=True, negative=())
    ] = (1, 64, 256)
    ages: Annotated[
        tuple[int, ...], Parameter(help="How many frames back they are named.", consume_multiple=True, negative=())
    ] = (
        0,
        1,
        2,
        4,
        8,
        16,
        32,
    )
    window: Annotated[int, Parameter(help="Frames kept.", validator=Count)] = 32
    size: Annotated[str, Parameter(help="Of the frames.")] = "640x480"
    fps: Annotated[float, Parameter(help="Rate of the camera.", validator=Number(gt=0))] = 30.0
    rounds: Annotated[int, Parameter(help="Queries of each kind to measure.", validator=Count)] = 10
    warm_up: Annotated[int, Parameter(help="Rounds before the first that is measured.", validator=Count)] = 1
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"
    threads: Annotated[
        int | None, Parameter(help="CPU threads of the model. [default: torch's choice]", validator=Count)
    ] = None


@dataclass(frozen=True, slots=True)
class Query:
    """A kind of query: so many points, named so many frames back."""

    points: int
    age: int


@dataclass(frozen=True, slots=True)
class Trial:
    """What the step that answered a query took, and the step after it."""

    late_ms: float
    plain_ms: float


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Price a late query by its age and its number of points, and count the frames that are published late for it."""
    if max(settings.ages) > settings.window:
        raise BenchError(f"--ages {max(settings.ages)} has left the window of {settings.window} frames; raise --window")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    trials = measure(settings)
    period_ms = 1e3 / settings.fps
    runs = [{"setting": query, **figures(found, period_ms)} for query, found in trials.items()]
    plain = Spread.of([trial.plain_ms for found in trials.values() for trial in found])
    facts = {
        "plain_ms": plain,
        "model_fps": round(1e3 / plain.p50, 1),
        "holds_twice_the_rate": 1e3 / plain.p50 >= HOLDS * settings.fps,
    }
    show(settings, runs, plain)
    finish("window", settings, {**facts, "runs": runs}, json, plot, interval=INTERVAL)


def measure(settings: Settings) -> dict[Query, list[Trial]]:
    """Every kind of query in turn, round after round."""
    width, height = pixels(settings.size)
    device = str(choose_device(settings.device))
    room = settings.tracked + max(settings.points)
    tracker = Tracker(model(settings.model, device), max_points=room, window=settings.window)
    tracker.add(scattered(settings.tracked, width, height))
    frames = cycle(to_and_fro(settings.size))
    for _ in range(settings.window):
        tracker.step(next(frames))
    kinds = [Query(points, age) for age in settings.ages for points in settings.points]
    trials: dict[Query, list[Trial]] = defaultdict(list)
    for index in range(settings.warm_up + settings.rounds):
        for kind in kinds:
            trial = ask(tracker, kind, scattered(kind.points, width, height), frames)
            if index >= settings.warm_up:
                trials[kind].append(trial)
    return trials


def ask(tracker: Tracker, kind: Query, xy: NDArray[np.float32], frames: Iterator[NDArray[np.uint8]]) -> Trial:
    """Names points xy [P, 2], and times the step that answers for them and one without them."""
    ids = tracker.add(xy, frame_id=tracker.frame_ids[-kind.age] if kind.age else None)
    late_ms = step_ms(tracker, next(frames))
    tracker.remove(ids)
    return Trial(late_ms, step_ms(tracker, next(frames)))


def step_ms(tracker: Tracker, rgb: NDArray[np.uint8]) -> float:
    start = time.perf_counter_ns()
    tracker.step(rgb)
    return (time.perf_counter_ns() - start) / 1e6


def figures(found: Sequence[Trial], period_ms: float) -> dict[str, Any]:
    """Of one kind of query; frames late and dropped are the median and the most over its trials."""
    misses = np.array([missed(trial, period_ms) for trial in found])  # [N, 2]
    late, dropped = misses.T
    return {
        "late_ms": Spread.of([trial.late_ms for trial in found]),
        "price_ms": Spread.of([trial.late_ms - trial.plain_ms for trial in found]),
        "frames_late": Spread.of(late),
        "frames_dropped": Spread.of(dropped),
    }


def missed(trial: Trial, period_ms: float) -> tuple[int, int]:
    """Frames published late, and frames dropped, because of a query, at a camera that gives one every `period_ms`.

    The frame of the query is taken as it is captured, and every step after it takes `plain_ms`; the newest frame is
    taken, and those before it are dropped. What would be late without a query is not counted.
    """
    if trial.plain_ms >= period_ms:
        return 0, 0  # every frame is late, whoever asks
    late = dropped = 0
    frame, done_ms = 0, trial.late_ms
    while done_ms > (frame + 1) * period_ms:
        late += 1
        newest = int(done_ms // period_ms)
        dropped += newest - frame - 1
        frame, done_ms = newest, done_ms + trial.plain_ms
    return late, dropped


def show(settings: Settings, runs: Sequence[dict[str, Any]], plain: Spread) -> None:
    prices = {f"{one['setting'].points} points, age {one['setting'].age}": one["price_ms"] for one in runs}
    late = {
        f"frames late at {settings.fps:g} fps, {name}, at most": f"{one['frames_late'].max:g}"
        for name, one in zip(prices, runs, strict=True)
        if one["frames_late"].max
    }
    title = f"{settings.model}, {settings.size}, {settings.tracked} points followed; price of a query, ms"
    print_table(title, {**prices, "a step without one": plain}, late)


if __name__ == "__main__":
    run(main)
