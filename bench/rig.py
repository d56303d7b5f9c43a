"""What lanes of one rig cost, in turn and as a batch, beside as many programs: milliseconds a round, and memory.

A round is one frame of every lane. Each row runs in a process of its own, so that its memory is its own.
"""

import json as json_module
import multiprocessing
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import psutil  # type: ignore[import-untyped]
from cyclopts import Parameter

from bench.command import Count, JsonFile, run
from bench.report import MIB, finish
from online_tapir.model.checkpoint import load_model
from online_tapir.testing import sliding_pictures
from online_tapir.tracking.rig import Rig

INTERVAL = "from the pictures in memory to the positions in memory; the first warm_up rounds are excluded"
WAYS = ("torch in turn", "torch as a batch", "engine in turn", "engine, a program each")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to run."""

    lanes: Annotated[list[int], Parameter(help="Numbers of lanes to measure.")]
    points: Annotated[int, Parameter(help="Points of each lane.", validator=Count)] = 64
    rounds: Annotated[int, Parameter(help="Rounds to measure.", validator=Count)] = 20
    warm_up: Annotated[int, Parameter(help="Rounds before them.", validator=Count)] = 5


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(lanes=[1, 2, 4, 8]), *, json: JsonFile = None
) -> None:
    """Measure a rig's step on this CPU for several numbers of lanes."""
    rows: list[dict[str, Any]] = []
    print(f"{'lanes':>5}  {'way':24}{'ms a round':>12}{'MiB':>8}")
    for lanes in settings.lanes:
        for way in WAYS:
            found = _programs(lanes, settings) if way.endswith("each") else _apart(lanes, way, settings)
            rows.append({"lanes": lanes, "way": way, **found})
            print(f"{lanes:5}  {way:24}{found['ms']:12.1f}{found['mib']:8.0f}", flush=True)
    finish("rig", settings, {"rows": rows}, json, None, interval=INTERVAL)


def _apart(lanes: int, way: str, settings: Settings) -> dict[str, float]:
    """`measured` in a fresh interpreter."""
    asked = json_module.dumps([lanes, way, settings.points, settings.rounds, settings.warm_up])
    script = "import json, sys; from bench.rig import measured; print(json.dumps(measured(*json.loads(sys.argv[1]))))"
    done = subprocess.run([sys.executable, "-c", script, asked], check=True, capture_output=True, text=True)
    found: dict[str, float] = json_module.loads(done.stdout.splitlines()[-1])
    return found


def _programs(lanes: int, settings: Settings) -> dict[str, float]:
    """As many programs at once, each with a tracker: the time of a round is the slowest's, memory is the sum."""
    with multiprocessing.get_context("spawn").Pool(lanes) as pool:
        asked = [(1, "engine in turn", settings.points, settings.rounds, settings.warm_up)] * lanes
        found = pool.starmap(measured, asked, chunksize=1)
    return {"ms": max(one["ms"] for one in found), "mib": sum(one["mib"] for one in found)}


def measured(lanes: int, way: str, points: int, rounds: int, warm_up: int) -> dict[str, float]:
    """The median milliseconds of a round, and this process's memory in MiB."""
    model = load_model("small", device="cpu")
    engine = "auto" if way.startswith("engine") else None
    rig = Rig(model, lanes, points, window=8, engine=engine, batch=way.endswith("batch"))
    trackers = [rig.take() for _ in range(lanes)]
    for seed, tracker in enumerate(trackers):
        tracker.add(np.random.default_rng(seed).uniform(5, 250, (points, 2)))
    pictures = sliding_pictures(8, 256, 256)
    times = []
    for number in range(warm_up + rounds):
        frames = {tracker: pictures[(number + lane) % 8] for lane, tracker in enumerate(trackers)}
        started = time.perf_counter()
        if rig.batches:
            rig.step(frames)
        else:  # as the model's thread does: each is published before the next is tracked
            for tracker, picture in frames.items():
                tracker.step(picture)
        times.append((time.perf_counter() - started) * 1e3)
    return {"ms": float(np.median(times[warm_up:])), "mib": psutil.Process().memory_info().rss / MIB}


if __name__ == "__main__":
    run(main)
