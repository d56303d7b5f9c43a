"""Memory growth over a long run of `online-tapir`'s own loop, in this process.

The demo is tracked unpaced and published to `online-tapir listen`, which reads every message. Lost points are replaced,
so that rows of the state are freed and reused. This process's resident memory is sampled every --every frames. The end
is compared with the first sample after --warm-up frames.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Annotated

import psutil  # type: ignore[import-untyped]
import torch
from cyclopts import Parameter

from bench.command import BenchError, Count, JsonFile, PlotFile, pixels, run
from bench.report import MIB, Spread, finish, print_table
from online_tapir.camera import open_camera
from online_tapir.live.sink import Sink
from online_tapir.live.status import Status
from online_tapir.model.checkpoint import load_model
from online_tapir.points.placement import Corners
from online_tapir.records import Frame, Tracks
from online_tapir.sinks.zmq import ZmqPublisher
from online_tapir.testing import run as run_through
from online_tapir.tracking.tracker import Tracker

INTERVAL = (
    "from the first to the last frame of the loop; its first warm_up frames are excluded from all figures but samples"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to run, and for how long."""

    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"
    points: Annotated[int, Parameter(help="Points to track.", validator=Count)] = 64
    size: Annotated[str, Parameter(help="Frame size.")] = "256x256"
    frames: Annotated[int, Parameter(help="Total frames.", validator=Count)] = 20_000
    warm_up: Annotated[int, Parameter(help="Warm-up frames.", validator=Count)] = 1000
    every: Annotated[int, Parameter(help="Frames between samples.", validator=Count)] = 100
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"
    threads: Annotated[
        int | None, Parameter(help="CPU threads of the model. [default: torch's choice]", validator=Count)
    ] = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The resources that this process holds after `frames` frames."""

    frames: int
    rss_mib: float
    open_files: int
    threads: int


class Sampler(Sink):
    """A sink that samples this process every `every` frames and on the last frame."""

    def __init__(self, every: int, last: int) -> None:
        self.samples: list[Sample] = []
        self.points_added = 0
        self._every = every
        self._last = last
        self._frames = 0
        self._process = psutil.Process()

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        self._frames += 1
        self.points_added = max(self.points_added, int(tracks.ids.max(initial=-1)) + 1)
        if self._frames % self._every == 0 or self._frames == self._last:
            rss_mib = self._process.memory_info().rss / MIB
            files, threads = self._process.num_fds(), self._process.num_threads()
            self.samples.append(Sample(self._frames, round(rss_mib, 2), files, threads))


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Measure resident memory, open files and threads over a long run in which points come and go."""
    if settings.frames < settings.warm_up:
        raise BenchError(f"--frames {settings.frames} end before --warm-up {settings.warm_up}; raise --frames")
    sampler = Sampler(settings.every, settings.frames)
    status = watch(settings, sampler)
    facts = figures(sampler.samples, settings.warm_up)
    facts |= {"points_added": sampler.points_added, "fps": round(status.summary().fps, 2)}
    after = [sample.rss_mib for sample in sampler.samples if sample.frames >= settings.warm_up]
    title = f"{settings.model}, {settings.points} points, {settings.size}; MiB resident"
    print_table(title, {f"from frame {settings.warm_up} on": Spread.of(after)}, facts)
    finish("memory", settings, {**facts, "samples": sampler.samples}, json, plot, interval=INTERVAL)


def watch(settings: Settings, sampler: Sampler) -> Status:
    """Runs the loop with `sampler` after the publisher; returns the status, which has counted the frames."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    tracker = Tracker(load_model(settings.model, device=settings.device), max_points=settings.points)
    camera = open_camera("demo", size=pixels(settings.size), fps=0)
    status = Status()
    with closing(ZmqPublisher("tcp://127.0.0.1:0")) as publisher, listener(publisher.address):
        sinks = (publisher, sampler, status)
        run_through(camera, tracker, Corners(settings.points), sinks, frames=settings.frames, replenish=True)
    return status


@contextmanager
def listener(address: str) -> Iterator[None]:
    """Runs a subscriber in its own process that reads everything published at `address`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-m", "online_tapir", "listen", address, "--jsonl"]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def figures(samples: list[Sample], warm_up: int) -> dict[str, float | int]:
    """The first sample after warm-up and the last, with the range of open files and threads over all since."""
    after = [sample for sample in samples if sample.frames >= warm_up]
    first, last = after[0], after[-1]
    return {
        "frames": last.frames,
        "rss_mib_after_warm_up": first.rss_mib,
        "rss_mib_at_the_end": last.rss_mib,
        "ratio": round(last.rss_mib / first.rss_mib, 4),
        "highest_ratio": round(max(sample.rss_mib for sample in after) / first.rss_mib, 4),
        "open_files_after_warm_up": first.open_files,
        "open_files_at_the_end": last.open_files,
        "threads_after_warm_up": first.threads,
        "threads_at_the_end": last.threads,
        "open_files_fewest": min(sample.open_files for sample in after),
        "open_files_most": max(sample.open_files for sample in after),
        "threads_fewest": min(sample.threads for sample in after),
        "threads_most": max(sample.threads for sample in after),
    }


if __name__ == "__main__":
    run(main)
