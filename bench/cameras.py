"""Many cameras in one run: frames a second, accuracy held in time and memory per camera, beside as many processes.

The cameras are demos with known truth; each is a stream of one program, or a program of its own. A subscriber counts
what comes of each, and scores the newest message at the end of every frame's period against that frame's truth.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import psutil  # type: ignore[import-untyped]
from cyclopts import Parameter

from bench.command import BenchError, Count, JsonFile, pixels, run
from bench.report import Spread, finish, print_table
from online_tapir.records import Tracks
from online_tapir.wire.subscriber import subscribe

START_S = 240.0
SETTLE_S = 3.0
CLOSE_PX = 4.0  # an error below this counts as right
FIRST_PORT = 5700
INTERVAL = "after every camera has been heard and 3 s more; starting is not included"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How many cameras of which kind."""

    cameras: Annotated[tuple[int, ...], Parameter(help="Numbers of cameras in one run.")] = (1, 2, 4, 8, 12, 16)
    processes: Annotated[tuple[int, ...], Parameter(help="Numbers of programs of one camera each.")] = (1, 2, 4)
    size: Annotated[str, Parameter(help="Frame size.")] = "320x240"
    fps: Annotated[int, Parameter(help="Frame rate of each camera.", validator=Count)] = 15
    points: Annotated[int, Parameter(help="Points of each camera.", validator=Count)] = 32
    seconds: Annotated[int, Parameter(help="Seconds measured for each.", validator=Count)] = 10


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of one camera, and when it came."""

    received_ns: int
    tracks: Tracks


def measure(*, settings: Annotated[Settings, Parameter(name="*")] = Settings(), json: JsonFile = None) -> None:
    """Measure one run of several cameras, then as many programs of one camera each."""
    latency: dict[str, Spread] = {}
    facts: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    counts = [(count, "in one run") for count in settings.cameras]
    counts += [(count, "programs") for count in settings.processes]
    for count, how in counts:
        groups = [range(count)] if how == "in one run" else [range(i, i + 1) for i in range(count)]
        with programs(groups, settings) as (addresses, pids):
            heard, begun = listen(addresses, count, settings.seconds)
            memory = sum(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20
        name = f"{count} {how}"
        latency[name] = Spread.of([(one.received_ns - one.tracks.captured_ns) / 1e6 for some in heard for one in some])
        rates = [len(some) / settings.seconds for some in heard]
        right = [held_right(some, camera, begun[camera], settings) for camera, some in enumerate(heard)]
        row = {
            "cameras": count,
            "how": how,
            "fps_least": round(min(rates), 1),
            "fps_mean": round(float(np.mean(rates)), 1),
            "right": round(100 * float(np.mean(right)), 1),
            "memory_mib": round(memory),
        }
        rows.append(row)
        facts[name] = (
            f"{row['fps_mean']} frames a second each (least {row['fps_least']}); {row['memory_mib']} MiB; "
            f"{row['right']} % of visible points within {CLOSE_PX:g} px in time"
        )
        print(f"{name}: {facts[name]}", flush=True)
    print_table(f"milliseconds from capture to receipt, {settings.points} points, {settings.size}", latency, facts)
    finish("cameras", settings, {"rows": rows, "latency_ms": latency}, json, interval=INTERVAL)


@contextmanager
def programs(groups: list[range], settings: Settings) -> Iterator[tuple[list[str], list[int]]]:
    """Runs one program for each group of cameras; yields where they publish, and their processes."""
    addresses = [f"tcp://127.0.0.1:{FIRST_PORT + i}" for i in range(len(groups))]
    running: list[subprocess.Popen[bytes]] = []
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ONLINE_TAPIR_")}
    try:
        for group, address in zip(groups, addresses, strict=True):
            words = [word for seed in group for word in ("--camera", f"demo:{seed}")]
            words += ["--size", settings.size, "--fps", str(settings.fps), "--points", f"auto:{settings.points}"]
            words += ["--rerun", "off", "--control", "off", "--publish", address, "--quiet"]
            words += [] if len(group) > 1 else ["--name", f"camera{group[0]}"]
            running.append(subprocess.Popen([sys.executable, "-m", "online_tapir", *words], env=environment))
        yield addresses, [one.pid for one in running]
    finally:
        for one in running:
            one.terminate()
        for one in running:
            one.wait(30)


def listen(addresses: list[str], cameras: int, seconds: int) -> tuple[list[list[Heard]], list[int]]:
    """What came of each camera once all have been heard, in the order of their names' numbers; their first frames."""
    begun: dict[str, int] = {}
    heard: dict[str, list[Heard]] = {}
    stop = threading.Event()

    def take(address: str) -> None:
        for tracks in subscribe(address, timeout_ms=int(1000 * START_S)):
            name = f"{address} {tracks.camera}"
            begun.setdefault(name, tracks.frame_id)
            heard.setdefault(name, []).append(Heard(time.monotonic_ns(), tracks))
            if stop.is_set():
                return

    threads = [threading.Thread(target=take, args=(address,), daemon=True) for address in addresses]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + START_S
    while len(heard) < cameras:
        if time.monotonic() > deadline:
            raise BenchError(f"only {len(heard)} of {cameras} cameras were heard in {START_S:g} s")
        time.sleep(0.1)
    time.sleep(SETTLE_S)
    for some in heard.values():
        some.clear()
    time.sleep(seconds)
    found = {name: list(some) for name, some in heard.items()}
    stop.set()
    names = sorted(found, key=_number)
    return [found[name] for name in names], [begun[name] for name in names]


def _number(name: str) -> tuple[str, int]:
    """By address, then "demo" before "demo-2" before "demo-10"."""
    address, camera = name.split(" ")
    return address, int(camera.partition("-")[2] or 1)  # a program of one camera calls it camera0, camera1, ...


def held_right(heard: list[Heard], seed: int, placed_on: int, settings: Settings) -> float:
    """Of the truly visible points, the share that a subscriber held within `CLOSE_PX` at the end of each period.

    Points were placed on frame `placed_on`, the first that was tracked.
    """
    if not heard:
        return 0.0
    from online_tapir.camera.demo import DemoScene
    from online_tapir.points.placement import Corners

    width, height = pixels(settings.size)
    scene = DemoScene(width, height, seed)
    placed = Corners(settings.points).place(scene.render(placed_on))
    period_ns = 1e9 / settings.fps
    begun_ns = min(one.tracks.captured_ns - one.tracks.frame_id * period_ns for one in heard)
    right = seen = 0
    newest = 0
    first, last = heard[0].tracks.frame_id + 1, heard[-1].tracks.frame_id
    for frame_id in range(first, last):
        while newest + 1 < len(heard) and heard[newest + 1].received_ns <= begun_ns + (frame_id + 1) * period_ns:
            newest += 1
        tracks = heard[newest].tracks
        xy, visible = scene.truth(placed[tracks.ids], placed_on, frame_id)
        close = np.linalg.norm(np.asarray(xy) - tracks.xy, axis=1) < CLOSE_PX
        right += int((close & visible & tracks.visible).sum())
        seen += int(np.asarray(visible).sum())
    return right / max(seen, 1)


if __name__ == "__main__":
    run(measure)
