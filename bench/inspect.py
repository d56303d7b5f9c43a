"""The cost of inspecting a point, and of having stopped: two trackers on the same frames, in one run.

One tracker never inspects a point. The other inspects one in every second block of frames and none in between. Both
step every frame and take turns in going first, so that other load on the machine affects both equally. The figures are
medians of per-frame ratios, of wall time and of this process's CPU time, which other load disturbs less. The tracks of
the two must be bit-identical; otherwise there is no result.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from cyclopts import Parameter
from numpy.typing import NDArray

from bench.command import BenchError, Count, JsonFile, pixels, run
from bench.compare import scattered
from bench.report import Spread, finish, print_table
from bench.scale import model, to_and_fro
from online_tapir.model.checkpoint import choose_device
from online_tapir.records import Tracks
from online_tapir.tracking.tracker import Tracker

INTERVAL = (
    "a step: from the image in memory to the positions, and the inspection of a point if any, in memory; the first "
    "warm_up frames of every block are excluded"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to step, and how often."""

    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"
    points: Annotated[int, Parameter(help="Tracked points, of which the middle one is inspected.", validator=Count)] = (
        64
    )
    size: Annotated[str, Parameter(help="Frame size.")] = "256x256"
    blocks: Annotated[
        int, Parameter(help="Blocks of frames with an inspection, and as many without.", validator=Count)
    ] = 20
    frames: Annotated[int, Parameter(help="Frames to measure per block.", validator=Count)] = 20
    warm_up: Annotated[int, Parameter(help="Warm-up frames per block.", validator=Count)] = 3
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"
    threads: Annotated[
        int | None, Parameter(help="CPU threads of the model. [default: torch's choice]", validator=Count)
    ] = None


class Took(NamedTuple):
    """Wall and CPU time of a step."""

    ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Trial:
    """The steps of both trackers on one frame."""

    inspection: Literal["off", "on"]
    never: Took  # of the tracker that never inspects
    now: Took  # of the other tracker


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
) -> None:
    """Time steps while a point is inspected, after inspecting has stopped, and of a tracker that never inspects."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    trials = measure(settings)
    off, on = ([trial for trial in trials if trial.inspection == kind] for kind in ("off", "on"))
    spreads = {
        "never inspected": Spread.of([trial.never.ms for trial in trials]),
        "off": Spread.of([trial.now.ms for trial in off]),
        "on": Spread.of([trial.now.ms for trial in on]),
    }
    facts = {**ratios("off", off), **ratios("on", on), "tracks_identical": True}
    print_table(f"{settings.model}, {settings.points} points, {settings.size}; ms a step", spreads, facts)
    finish("inspect", settings, {"ms": spreads, **facts}, json, interval=INTERVAL)


def measure(settings: Settings) -> list[Trial]:
    """Runs all blocks. Raises BenchError if the tracks of the two trackers differ."""
    loaded = model(settings.model, str(choose_device(settings.device)))
    never, now_and_then = (Tracker(loaded, max_points=settings.points) for _ in range(2))
    for tracker in (never, now_and_then):
        tracker.add(scattered(settings.points, *pixels(settings.size)))
    frames = cycle(to_and_fro(settings.size))
    trials = []
    for block in range(2 * settings.blocks):
        now_and_then.inspect(settings.points // 2 if block % 2 else None)
        for index, rgb in enumerate(islice(frames, settings.warm_up + settings.frames)):
            order = (never, now_and_then) if index % 2 else (now_and_then, never)
            took = {tracker: timed(tracker, rgb) for tracker in order}
            (plain_took, plain), (now_took, tracks) = took[never], took[now_and_then]
            check_same(plain, tracks)
            if index >= settings.warm_up:
                trials.append(Trial("on" if tracks.inspection else "off", plain_took, now_took))
    return trials


def timed(tracker: Tracker, rgb: NDArray[np.uint8]) -> tuple[Took, Tracks]:
    start, cpu_start = time.perf_counter_ns(), time.process_time_ns()
    tracks = tracker.step(rgb)
    return Took((time.perf_counter_ns() - start) / 1e6, (time.process_time_ns() - cpu_start) / 1e6), tracks


def check_same(one: Tracks, other: Tracks) -> None:
    for name in ("ids", "xy", "visible", "occlusion", "uncertainty"):
        if getattr(one, name).tobytes() != getattr(other, name).tobytes():
            raise BenchError(
                f"frame {one.frame_id}: {name} of the two trackers differ, so inspecting changed the tracks"
            )


def ratios(kind: str, trials: Sequence[Trial]) -> dict[str, float]:
    """Medians over frames of the step's time over that of the tracker that never inspects, for wall and CPU time."""
    passed = float(np.median([trial.now.ms / trial.never.ms for trial in trials]))
    cpu = float(np.median([trial.now.cpu_ms / trial.never.cpu_ms for trial in trials]))
    return {f"{kind}_over_never": round(passed, 4), f"{kind}_over_never_cpu": round(cpu, 4)}


if __name__ == "__main__":
    run(main)
