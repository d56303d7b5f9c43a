"""Whether a run of days ends as it began: the loop of `online-tapir`, with all that it has, and one who uses it.

    python -m bench.soak --frames 1000000 --stub       a tracker that costs nothing, so that the rest is all there is
    python -m bench.soak --frames 20000                the `small` model on the demo

Capture thread, publisher, control socket and metrics are the program's own, in this process; `bench.user`, in another,
reads every message, adds and removes points, and asks for the metrics. Lost points are replaced; a live source fails
every so many frames and is opened again. Figures are of this process, from the end of the warm-up on. The laws:

- resident memory at the end, and at its highest, is within 5 % of what it was after warm-up;
- open files and threads are as many at the end as after warm-up, and never more than two above (a source that is
  opened while the one before is left behind has a thread more, a client that connects has two files);
- every frame number is published once, or is among those that the program says were dropped: a message tells at least
  as many as were missing before it, and no more than will be missing before the next one;
- the user has read frames in order, no number twice, all of them published, and was given no id twice.
"""

import json as jsonlib
import os
import signal
import subprocess
import sys
import threading
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

from bench.memory import Sampler, figures
from bench.report import BenchError, Count, JsonFile, Spread, finish, pixels, print_table, run
from bench.stub import StubTracker
from online_tapir.camera import Camera, Reconnect, SyntheticCamera, open_camera
from online_tapir.camera.demo import DemoCamera
from online_tapir.control.server import ControlServer
from online_tapir.errors import CameraError
from online_tapir.live.run import track_live
from online_tapir.live.status import Status
from online_tapir.model.checkpoint import load_model
from online_tapir.points.placement import Corners
from online_tapir.records import Frame, Tracks
from online_tapir.sinks.metrics import Metrics
from online_tapir.sinks.zmq import ZmqPublisher
from online_tapir.tracking.tracker import Tracker

FLAT = 1.05
MORE_NOW_AND_THEN = 2  # threads and open files
SAMPLES = 200
PICTURES = 32  # that a stub's camera goes through
PATIENCE_S = 30.0  # for the user to tell what it has seen
INTERVAL = "from the first frame to the last of the loop; its first frames, warm_up of them, are in no figure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is run, and for how long."""

    frames: Annotated[int, Parameter(help="Frames to track.", validator=Count)] = 20_000
    stub: Annotated[bool, Parameter(help="A tracker that does no work, on pictures made before.", negative=())] = False
    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"
    points: Annotated[int, Parameter(help="Points to follow, beside the user's.", validator=Count)] = 32
    size: Annotated[str, Parameter(help="Of the frames.")] = "256x256"
    fps: Annotated[
        float, Parameter(help="Of the camera, which drops what is not taken; 0 waits.", validator=Number(gte=0))
    ] = 0.0
    lose_every: Annotated[
        int, Parameter(help="Frames after which a live source fails; 0 never.", validator=Number(gte=0))
    ] = 0
    warm_up: Annotated[int | None, Parameter(help="Frames. [default: a twentieth of them]", validator=Count)] = None
    threads: Annotated[
        int | None, Parameter(help="CPU threads of the model. [default: torch's choice]", validator=Count)
    ] = None


class Account:
    """A sink that holds the numbers of frames against what is said to have been dropped."""

    def __init__(self) -> None:
        self.published = 0
        self.last_id = -1
        self.reported = 0  # dropped, by the last message
        self.out_of_order = 0
        self.unaccounted = 0

    @property
    def missing(self) -> int:
        """Numbers up to the last that were not published."""
        return self.last_id + 1 - self.published

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        self.out_of_order += frame.id <= self.last_id
        missing = frame.id - self.published  # before this frame
        self.unaccounted += self.reported > missing or tracks.dropped < missing
        self.published, self.last_id, self.reported = self.published + 1, frame.id, tracks.dropped

    def close(self) -> None:
        """There is nothing to close."""


def main(settings: Annotated[Settings, Parameter(name="*")] = Settings(), *, json: JsonFile = None) -> None:
    """Run the whole loop for very long, and see that memory, files, threads and numbers of frames hold."""
    warm_up = settings.warm_up or max(settings.frames // 20, 1)
    if settings.frames < 2 * warm_up:
        raise BenchError(f"--frames {settings.frames} are not twice --warm-up {warm_up}; ask for more of them")
    if settings.lose_every and not settings.fps:
        raise BenchError("--lose-every is of a live source, which has a rate; give --fps, too")
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
    print_table(title, {f"from frame {warm_up} on": Spread.of(after)}, facts | {"broken laws": broken or "none"})
    finish("soak", settings, {**facts, "broken": broken, "samples": sampler.samples}, json, interval=INTERVAL)
    if broken:
        raise BenchError(f"a law was broken: {'; '.join(broken)}")


def watch(settings: Settings, sampler: Sampler, account: Account) -> tuple[float, dict[str, Any]]:
    """Runs the loop with a user beside it; returns its rate and what the user has seen."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    open_source = source(settings)
    room = 2 * settings.points + 64
    tracker: Any = StubTracker(room) if settings.stub else Tracker(load_model(settings.model), max_points=room)
    status = Status()
    with ExitStack() as opened:
        publisher = opened.enter_context(closing(ZmqPublisher("tcp://127.0.0.1:0")))
        control = opened.enter_context(closing(ControlServer("tcp://127.0.0.1:0")))
        metrics = opened.enter_context(closing(Metrics("0")))
        seen = opened.enter_context(user(publisher.address, control.address, metrics.url))
        track_live(
            open_source(),
            tracker,
            Corners(settings.points),
            (publisher, account, sampler, metrics),
            status,
            threading.Event(),
            frames=settings.frames,
            replenish=True,
            control=control,
            metrics=metrics,
            reopen=open_source if settings.fps else None,
            reconnect=Reconnect(first_wait_s=0.05),
        )
    return status.summary().fps, seen


@contextmanager
def user(*addresses: str) -> Iterator[dict[str, Any]]:
    """`bench.user` at these addresses; when the context ends, what it has seen is in the dict."""
    seen: dict[str, Any] = {}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-m", "bench.user", *addresses]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield seen
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=PATIENCE_S)
        if process.returncode != 0:
            raise BenchError(f"the user of the run ended with {process.returncode}; its own words are above")
        seen |= jsonlib.loads(said)
    finally:
        process.kill()
        process.wait()


def source(settings: Settings) -> Callable[[], Camera]:
    """What opens the camera: the demo, or for a stub some of its pictures over and over."""
    width, height = pixels(settings.size)
    if not settings.stub and not settings.lose_every:
        return partial(open_camera, "demo", size=(width, height), fps=settings.fps)
    demo = DemoCamera(width, height, fps=0)
    pictures = [picture for picture in (demo.read() for _ in range(PICTURES)) if picture is not None]
    return partial(failing, pictures, settings.fps, settings.lose_every)


def failing(pictures: list[NDArray[np.uint8]], fps: float, after: int) -> SyntheticCamera:
    """A camera that gives these pictures over and over and is lost after so many frames, 0 never."""

    def frames() -> Iterator[NDArray[np.uint8]]:
        yield from islice(cycle(pictures), after or None)
        raise CameraError("the cable is out; put it in again")

    return SyntheticCamera(frames(), name="soak", live=fps > 0, fps=fps)


def laws(facts: dict[str, Any], account: Account) -> list[str]:
    """What did not hold, in words."""
    seen = facts["user"]
    held = {
        f"memory at the end is {facts['ratio']} of what it was": facts["ratio"] <= FLAT,
        f"memory was up to {facts['highest_ratio']} of what it was": facts["highest_ratio"] <= FLAT,
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
