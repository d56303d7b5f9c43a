"""The price of a late query, i.e. of adding points on a past frame, by the frame's age and the number of points.

A tracker tracks some points at the camera's size. Then, for every age and number of points in turn, points are added on
the frame that many frames back, and the next step carries them through the window before it returns. They are removed,
and the step after it is timed, too. The price of the query is the difference of the two steps, so that other load on
the machine affects both. Age 1 is the newest tracked frame; age 0 is the next frame, i.e. points added in time.

Whether frames are published late because of a query is computed from these step times and the camera's rate. A frame is
late if its result comes after the next frame was captured, and dropped if a newer one arrives before it is taken. The
project promises no late frames if the model itself runs at twice the camera's rate; the document says whether it does.
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

from bench.command import BenchError, Count, JsonFile, PlotFile, pixels, run
from bench.compare import scattered
from bench.report import Spread, finish, print_table
from bench.scale import model, to_and_fro
from online_tapir.model.checkpoint import choose_device
from online_tapir.tracking.tracker import Tracker

HOLDS = 2  # times the camera's rate: at this model rate there is time to spare for a query
INTERVAL = (
    "a step: from the image in memory to the positions in memory, without camera or sinks; a query's price is the time "
    "of the step that answers it, less that of the next step. The window is filled first, and the first warm_up rounds "
    "are excluded"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which queries to make, of which tracker."""

    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"
    tracked: Annotated[int, Parameter(help="Points that are tracked throughout.", validator=Count)] = 64
    points: Annotated[
        tuple[int, ...], Parameter(help="Numbers of points per query.", consume_multiple=True, negative=())
    ] = (1, 64, 256)
    ages: Annotated[
        tuple[int, ...], Parameter(help="Ages of the queried frame, in frames.", consume_multiple=True, negative=())
    ] = (
        0,
        1,
        2,
        4,
        8,
        16,
        32,
    )
    window: Annotated[int, Parameter(help="Frames in the window.", validator=Count)] = 32
    size: Annotated[str, Parameter(help="Frame size.")] = "640x480"
    fps: Annotated[float, Parameter(help="Camera frame rate.", validator=Number(gt=0))] = 30.0
    rounds: Annotated[int, Parameter(help="Queries of each kind to measure.", validator=Count)] = 10
    warm_up: Annotated[int, Parameter(help="Warm-up rounds before measuring.", validator=Count)] = 1
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"
    threads: Annotated[
        int | None, Parameter(help="CPU threads of the model. [default: torch's choice]", validator=Count)
    ] = None


@dataclass(frozen=True, slots=True)
class Query:
    """A kind of query: `points` points, added on the frame `age` frames back."""

    points: int
    age: int


@dataclass(frozen=True, slots=True)
class Trial:
    """Times of the step that answered a query, and of the step after it."""

    late_ms: float
    plain_ms: float


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Time late queries by age and number of points, and count the frames that are published late because of them."""
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
    """Makes every kind of query in turn, once per round."""
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
    """Adds points xy [P, 2], and times the step that answers for them and the next one, without them."""
    ids = tracker.add(xy, frame_id=tracker.frame_ids[-kind.age] if kind.age else None)
    late_ms = step_ms(tracker, next(frames))
    tracker.remove(ids)
    return Trial(late_ms, step_ms(tracker, next(frames)))


def step_ms(tracker: Tracker, rgb: NDArray[np.uint8]) -> float:
    start = time.perf_counter_ns()
    tracker.step(rgb)
    return (time.perf_counter_ns() - start) / 1e6


def figures(found: Sequence[Trial], period_ms: float) -> dict[str, Any]:
    """The figures of one kind of query; late and dropped frames are spreads over its trials."""
    misses = np.array([missed(trial, period_ms) for trial in found])  # [N, 2]
    late, dropped = misses.T
    return {
        "late_ms": Spread.of([trial.late_ms for trial in found]),
        "price_ms": Spread.of([trial.late_ms - trial.plain_ms for trial in found]),
        "frames_late": Spread.of(late),
        "frames_dropped": Spread.of(dropped),
    }


def missed(trial: Trial, period_ms: float) -> tuple[int, int]:
    """Frames published late, and frames dropped, because of a query, for a camera with one frame every `period_ms`.

    Assumes that the query's frame is taken when it is captured, and that every step after it takes `plain_ms`. The
    newest frame is taken, and older ones are dropped. Frames that would be late without a query are not counted.
    """
    if trial.plain_ms >= period_ms:
        return 0, 0  # every frame is late, with or without a query
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
        f"frames late at {settings.fps:g} fps, {name}, maximum": f"{one['frames_late'].max:g}"
        for name, one in zip(prices, runs, strict=True)
        if one["frames_late"].max
    }
    title = f"{settings.model}, {settings.size}, {settings.tracked} points tracked; price of a query, ms"
    print_table(title, {**prices, "a step without a query": plain}, late)


if __name__ == "__main__":
    run(main)
