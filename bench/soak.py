"""Soak test: runs the full loop of `online-tapir`, with a user, for very long, and checks that nothing drifts.

    python -m bench.soak --frames 1000000 --stub       a tracker that costs nothing, so that only the rest is tested
    python -m bench.soak --frames 20000                the `small` model on the demo

The capture thread, publisher, control socket and metrics are the program's own and run in this process. `bench.user`,
in another process, reads every message, adds and removes points, and scrapes the metrics. Lost points are replaced. A
live source fails every --lose-every frames and is reopened. Figures are of this process after warm-up. The invariants:

- resident memory, at the end and at its peak, is at most 5 % above its value after warm-up;
- there are as many open files and threads at the end as after warm-up, and never more than two extra (a reopened
  source adds a thread while the old one is abandoned; a connecting client adds two files);
- every frame number is published once or reported as dropped: a message reports at least as many drops as numbers are
  missing before it, and no more than are missing before the next one;
- the user reads frames in order, none twice and only published ones, never gets an id twice, and gets answers.
"""

import json as jsonlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Annotated, Any

import numpy as np
import torch
from cyclopts import Parameter
from cyclopts.validators import Number
from numpy.typing import NDArray

from bench.command import BenchError, Count, JsonFile, pixels, run
from bench.memory import Sampler, figures
from bench.report import Spread, finish, print_table
from bench.stub import StubTracker
from online_tapir.camera import Camera, Reconnect, SyntheticCamera, open_camera
from online_tapir.camera.demo import DemoCamera
from online_tapir.control.protocol import SHORTEST_HEARTBEAT_S
from online_tapir.control.server import ControlServer
from online_tapir.errors import CameraError
from online_tapir.launch.streams import with_flow
from online_tapir.live.sink import Sink
from online_tapir.live.stream import Stream
from online_tapir.model.checkpoint import load_model
from online_tapir.points.placement import Corners
from online_tapir.records import Frame, Tracks
from online_tapir.sinks.metrics import Metrics
from online_tapir.sinks.zmq import ZmqPublisher
from online_tapir.testing import run as run_through
from online_tapir.tracking.tracker import Tracker

FLAT = 1.05
MORE_NOW_AND_THEN = 2  # threads and open files, briefly
SAMPLES = 200
PICTURES = 32  # that the synthetic camera loops over
JOIN_NS = 500_000_000  # for subscriptions to reach the publisher, also on a busy machine
PATIENCE_S = 30.0  # for the user's report
INTERVAL = "from the second to the last frame; the loop waits for its user after the first; warm_up frames are excluded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to run, and for how long."""

    frames: Annotated[int, Parameter(help="Frames to track.", validator=Count)] = 20_000
    stub: Annotated[bool, Parameter(help="A tracker that does no work, on prerendered frames.", negative=())] = False
    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"
    flow: Annotated[bool, Parameter(help="Flow between the model's answers, for a live source.", negative=())] = False
    engine: Annotated[str, Parameter(help="What computes the model, as `online-tapir --engine`.")] = "torch"
    points: Annotated[int, Parameter(help="Points to track, besides the user's.", validator=Count)] = 32
    size: Annotated[str, Parameter(help="Frame size.")] = "256x256"
    fps: Annotated[
        float, Parameter(help="Camera frame rate; unread frames are dropped. 0 waits.", validator=Number(gte=0))
    ] = 0.0
    lose_every: Annotated[
        int, Parameter(help="Frames after which a live source fails; 0: never.", validator=Number(gte=0))
    ] = 0
    warm_up: Annotated[int | None, Parameter(help="Warm-up. [default: a 20th of --frames]", validator=Count)] = None
    threads: Annotated[
        int | None, Parameter(help="CPU threads of the model. [default: torch's choice]", validator=Count)
    ] = None


class Account(Sink):
    """A sink that checks frame numbers against the reported drops."""

    def __init__(self) -> None:
        self.published = 0
        self.last_id = -1
        self.reported = 0  # drops, according to the last message
        self.out_of_order = 0
        self.unaccounted = 0
        self._from_ns = self._to_ns = 0  # from the second frame on: after the first the run waits for its user

    @property
    def fps(self) -> float:
        seconds = (self._to_ns - self._from_ns) / 1e9
        return (self.published - 2) / seconds if seconds else 0.0

    @property
    def missing(self) -> int:
        """How many frame numbers up to the last were not published."""
        return self.last_id + 1 - self.published

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        self.out_of_order += frame.id <= self.last_id
        missing = frame.id - self.published  # before this frame
        self.unaccounted += self.reported > missing or tracks.dropped < missing
        self.published, self.last_id, self.reported = self.published + 1, frame.id, tracks.dropped
        self._to_ns = time.monotonic_ns()
        self._from_ns = self._to_ns if self.published <= 2 else self._from_ns


class Gate(Sink):
    """Pauses a run after its first frame until its user is there; otherwise a short one ends before the user starts."""

    def __init__(self, ready: threading.Event) -> None:
        self._ready = ready
        self._ready_ns: int | None = None
        self._open = False

    def serve(self, stream: "Stream") -> None:
        if self._open or stream.frame is None:
            return
        if self._ready_ns is None and self._ready.is_set():
            self._ready_ns = time.monotonic_ns()
        self._open = self._ready_ns is not None and time.monotonic_ns() - self._ready_ns > JOIN_NS
        if self._open:
            stream.resume()
        else:
            stream.pause()


def main(settings: Annotated[Settings, Parameter(name="*")] = Settings(), *, json: JsonFile = None) -> None:
    """Run the whole loop for very long, and check memory, open files, threads and frame numbers."""
    warm_up = settings.warm_up or max(settings.frames // 20, 1)
    if settings.frames < 2 * warm_up:
        raise BenchError(f"--frames {settings.frames} are not twice --warm-up {warm_up}; raise --frames")
    if settings.lose_every and not settings.fps:
        raise BenchError("--lose-every needs a live source, which has a rate; give --fps, too")
    sampler, account = Sampler(max(settings.frames // SAMPLES, 1), settings.frames), Account()
    fps, seen = watch(settings, sampler, account)
    facts = figures(sampler.samples, warm_up) | {
        "fps": round(fps, 1),
        "published": account.published,
        "dropped": account.missing,
        "unaccounted": account.unaccounted,
        "points_added": sampler.points_added,
        "user": seen,
    }
    broken = laws(facts, account)
    after = [sample.rss_mib for sample in sampler.samples if sample.frames >= warm_up]
    title = f"{'stub' if settings.stub else settings.model}, {settings.points} points, {settings.size}; MiB resident"
    print_table(title, {f"from frame {warm_up} on": Spread.of(after)}, facts | {"violations": broken or "none"})
    finish("soak", settings, {**facts, "broken": broken, "samples": sampler.samples}, json, interval=INTERVAL)
    if broken:
        raise BenchError(f"violated: {'; '.join(broken)}")


def watch(settings: Settings, sampler: Sampler, account: Account) -> tuple[float, dict[str, Any]]:
    """Runs the loop with a user in another process; returns the frame rate and the user's report."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    open_source = source(settings)
    room = 2 * settings.points + 64
    with ExitStack() as opened:
        tracker: Any = StubTracker(max_points=room)
        if not settings.stub:
            tracker = Tracker(load_model(settings.model), max_points=room, engine=settings.engine)
        if settings.flow:
            tracker = opened.enter_context(closing(with_flow(tracker, paced=settings.fps > 0)))
        publisher = opened.enter_context(closing(ZmqPublisher("tcp://127.0.0.1:0")))
        control = opened.enter_context(closing(ControlServer("tcp://127.0.0.1:0")))
        metrics = opened.enter_context(closing(Metrics("0")))
        ready = threading.Event()
        seen = opened.enter_context(user(publisher.address, control.address, metrics.url, ready=ready))
        run_through(
            open_source(),
            tracker,
            Corners(settings.points),
            (publisher, account, sampler, control, metrics, Gate(ready)),
            frames=settings.frames,
            replenish=True,
            report=lambda note: None,
            heartbeat_s=SHORTEST_HEARTBEAT_S,
            reopen=open_source if settings.fps else None,
            reconnect=Reconnect(first_wait_s=0.05),
        )
    return account.fps, seen


@contextmanager
def user(*addresses: str, ready: threading.Event) -> Iterator[dict[str, Any]]:
    """Runs `bench.user` on these addresses; the dict holds its report once the context has ended.

    `ready` is set once it reads and controls the run, or has ended.
    """
    seen: dict[str, Any] = {}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-m", "bench.user", *addresses]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first_line = process.stdout.readline

    def wait() -> None:
        first_line()  # READY, or the end
        ready.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    try:
        yield seen
        if not ready.wait(PATIENCE_S):
            raise BenchError(f"the user of the run had no answer for {PATIENCE_S:g} s; see its output above")
        process.send_signal(signal.SIGTERM)
        if process.wait(PATIENCE_S) != 0:
            raise BenchError(f"the user of the run ended with {process.returncode}; see its output above")
        waiting.join()
        seen |= jsonlib.loads(process.stdout.read())
    finally:
        process.kill()
        process.wait()
        waiting.join()
        process.stdout.close()


def source(settings: Settings) -> Callable[[], Camera]:
    """A function that opens the camera: the demo, or a loop of some of its frames for a stub or `lose_every`."""
    width, height = pixels(settings.size)
    if not settings.stub and not settings.lose_every:
        return partial(open_camera, "demo", size=(width, height), fps=settings.fps)
    demo = DemoCamera(width, height, fps=0)
    pictures = [picture for picture in (demo.read() for _ in range(PICTURES)) if picture is not None]
    return partial(failing, pictures, settings.fps, settings.lose_every)


def failing(pictures: list[NDArray[np.uint8]], fps: float, after: int) -> SyntheticCamera:
    """A camera that loops over `pictures` and fails after `after` frames (0: never)."""

    def frames() -> Iterator[NDArray[np.uint8]]:
        yield from islice(cycle(pictures), after or None)
        raise CameraError("the cable is out; put it in again")

    return SyntheticCamera(frames(), name="soak", live=fps > 0, fps=fps)


def laws(facts: dict[str, Any], account: Account) -> list[str]:
    """The violated invariants, in words."""
    seen = facts["user"]
    held = {
        f"memory at the end is {facts['ratio']} times that after warm-up": facts["ratio"] <= FLAT,
        f"memory was up to {facts['highest_ratio']} times that after warm-up": facts["highest_ratio"] <= FLAT,
        **{
            f"{what}: {facts[f'{what}_after_warm_up']} after warm-up, {facts[f'{what}_at_the_end']} at the end, "
            f"up to {facts[f'{what}_most']}": facts[f"{what}_at_the_end"] == facts[f"{what}_after_warm_up"]
            and facts[f"{what}_most"] <= facts[f"{what}_after_warm_up"] + MORE_NOW_AND_THEN
            for what in ("open_files", "threads")
        },
        f"{account.unaccounted} frames neither published nor dropped": account.unaccounted == 0,
        f"{account.out_of_order} frames published out of order": account.out_of_order == 0,
        f"the user read {seen['out_of_order']} messages out of order": seen["out_of_order"] == 0,
        f"the user read {seen['received']} of {account.published}": 0 < seen["received"] <= account.published,
        f"the user read frame {seen['last_frame']}, never published": seen["last_frame"] <= account.last_id,
        f"{seen['ids_given_twice']} ids were given twice": seen["ids_given_twice"] == 0,
        "nobody answered the user": seen["answers"].get("all", 0) > 0 and not seen["answers"].get("no_answer"),
    }
    return [what for what, holds in held.items() if not holds]


if __name__ == "__main__":
    run(main)
