"""Bytes per frame sent to a Rerun viewer, and the resident memory of a viewer that is left open.

The program's own sink draws a rendered scene, tracked once and then shown in a loop, in the process that the sink
starts: Rerun's server (`--viewer server`) or its window (`--viewer window`, which needs a display). That process has a
small memory limit, so that it is reached soon. Once more than the limit has been sent, resident memory should stay
constant.

Bytes per frame are measured for everything that is logged, as saved in a file, and for the images alone; each at full
size and at the size that a live viewer gets.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import psutil  # type: ignore[import-untyped]
from cyclopts import Parameter
from cyclopts.validators import Number

from bench.command import BenchError, Count, JsonFile, pixels, run
from bench.report import MIB, Spread, finish, print_table
from online_tapir.camera.demo import DemoScene
from online_tapir.drawing.look import LIVE_SIDE, Look
from online_tapir.drawing.query_patches import QueryPatches
from online_tapir.model.checkpoint import load_model
from online_tapir.picture import to_jpeg
from online_tapir.points.placement import Corners
from online_tapir.records import Frame, Queries, Tracks
from online_tapir.sinks.rerun.images import smaller
from online_tapir.sinks.rerun.mode import GRPC_PORT, HOST, RerunMode, Way
from online_tapir.sinks.rerun.moment import Moment
from online_tapir.sinks.rerun.scene import JPEG_QUALITY, Scene
from online_tapir.sinks.rerun.viewer import RerunViewer, listens
from online_tapir.tracking.tracker import Tracker

MB = 1_000_000
FULL = 1.5  # times the limit: once this was sent, a viewer is certainly full, however it counts
PICTURES = 8  # per size
EPOCH_NS = 1_700_000_000_000_000_000
PATIENCE_S = 30.0  # for a file to be written, and for a server to start
SECOND_NS = 1_000_000_000
INTERVAL = (
    "no times; resident memory is read after the number of frames in each of `samples`, and compared with the first "
    "sample by which 1.5 times the limit had been sent"
)

Shown = tuple[Frame, Tracks]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to show, where, and for how long."""

    viewer: Annotated[Literal["server", "window"], Parameter(help="What the sink starts.")] = "server"
    memory: Annotated[int, Parameter(help="Its memory limit, MB.", validator=Count)] = 100
    frames: Annotated[int, Parameter(help="Frames to show.", validator=Count)] = 6000
    fps: Annotated[float, Parameter(help="Frame rate.", validator=Number(gt=0))] = 60.0
    every: Annotated[int, Parameter(help="Frames between samples.", validator=Count)] = 100
    points: Annotated[int, Parameter(help="Points to track.", validator=Count)] = 64
    size: Annotated[str, Parameter(help="Frame size.")] = "640x480"
    inspect: Annotated[bool, Parameter(help="Also show the inspection of a point.", negative=())] = False
    scene: Annotated[int, Parameter(help="Frames to render and track.", validator=Number(gte=2))] = 60
    pictures: Annotated[
        tuple[str, ...],
        Parameter(help="Image sizes whose bytes are reported.", consume_multiple=True, negative=()),
    ] = ("640x480", "1280x720", "1920x1080")


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident memory of the viewer and of this process after `frames` frames."""

    frames: int
    seconds: float
    rss_mib: float
    sender_rss_mib: float


def main(settings: Annotated[Settings, Parameter(name="*")] = Settings(), *, json: JsonFile = None) -> None:
    """Measure the bytes sent to a viewer, and the memory of one that is left open."""
    scene, named = tracked(settings)
    whole, live = (bytes_a_frame(scene, named, Look(longest_side=side)) for side in (None, LIVE_SIDE))
    full_at = round(FULL * settings.memory * MB / live)
    if 2 * full_at > settings.frames:
        raise BenchError(
            f"{settings.frames} frames of {live / 1e3:.0f} KB fill {settings.memory} MB too late; "
            f"raise --frames to {2 * full_at} or lower --memory"
        )
    samples, dropped = watch(settings, scene, named)
    facts = {
        "bytes_a_frame_in_a_file": round(whole),
        "bytes_a_frame_to_a_viewer": round(live),
        "frames_dropped": dropped,
        **figures(samples, full_at + dropped),
    }
    pictures = {size: picture_bytes(size) for size in settings.pictures}
    title = f"{settings.viewer} with a limit of {settings.memory} MB, {settings.points} points, {settings.size}; bytes"
    rows = {f"{size}, {name}": spread for size, spreads in pictures.items() for name, spread in spreads.items()}
    print_table(title, rows, facts)
    finish("viewer", settings, {**facts, "pictures": pictures, "samples": samples}, json, interval=INTERVAL)


def tracked(settings: Settings) -> tuple[list[Shown], Queries]:
    """The scene's frames with their tracks, forwards and then backwards, and the queries of its points."""
    width, height = pixels(settings.size)
    scene = DemoScene(width, height)
    tracker = Tracker(load_model("small"), max_points=settings.points)
    first = scene.render(0)
    xy = Corners(settings.points).place(first)
    named = Queries(tracker.add(xy), xy, 0)
    shown: list[Shown] = []
    for number in range(settings.scene):
        frame = Frame(number, number * SECOND_NS // 30, number * SECOND_NS // 30, scene.render(number))
        tracks = tracker.step(frame)
        if settings.inspect:
            tracker.inspect(int(named.ids[0]))
        shown.append((frame, replace(tracks, camera="demo")))
    return shown + shown[-2:0:-1], named


def bytes_a_frame(scene: Sequence[Shown], named: Queries, look: Look) -> float:
    """Bytes per frame of everything that is logged, as saved in a file."""
    patches = QueryPatches()
    patches.named([named])
    with TemporaryDirectory() as folder:
        path = Path(folder, "scene.rrd")
        drawing = Scene(look=look, flush_every=30, stall_seconds=PATIENCE_S)
        drawing.save(os.fspath(path))
        for number, (frame, tracks) in enumerate(scene):
            patches.follow(frame, tracks)
            moment = Moment(frame, at(tracks, number, number * SECOND_NS // 30), 20.0, 30.0, patches.get(named.ids[0]))
            drawing.draw(moment)
        drawing.close()
        return path.stat().st_size / len(scene)


def picture_bytes(size: str) -> dict[str, Spread]:
    """JPEG bytes of the scene's images at `size`, in full and as a live viewer gets them."""
    scene = DemoScene(*pixels(size))
    rendered = [scene.render(60 * number) for number in range(PICTURES)]
    sides = {"whole": None, f"{LIVE_SIDE} pixels at most": LIVE_SIDE}
    return {
        name: Spread.of([len(to_jpeg(smaller(rgb, side), JPEG_QUALITY)) for rgb in rendered])
        for name, side in sides.items()
    }


def watch(settings: Settings, scene: Sequence[Shown], named: Queries) -> tuple[list[Sample], int]:
    """Shows the scene in a loop at the frame rate; returns the samples, and how many frames were never drawn."""
    samples: list[Sample] = []
    with started(settings) as (viewer, process):
        viewer.named("demo", [named])
        sender, start_ns = psutil.Process(), time.monotonic_ns()
        for number, (frame, tracks) in zip(range(settings.frames), cycle(scene), strict=False):
            due_ns = start_ns + round(number * SECOND_NS / settings.fps)
            time.sleep(max(0, due_ns - time.monotonic_ns()) / SECOND_NS)
            now = at(tracks, number, time.monotonic_ns())
            viewer.publish(replace(frame, id=number, captured_ns=now.captured_ns), now)
            if (number + 1) % settings.every == 0:
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                    raise BenchError(f"the viewer ended at frame {number}; a window needs a display")
                rss = [round(one.memory_info().rss / MIB, 1) for one in (process, sender)]
                seconds = (time.monotonic_ns() - start_ns) / SECOND_NS
                samples.append(Sample(number + 1, round(seconds, 1), *rss))
        return samples, viewer.dropped


@contextmanager
def started(settings: Settings) -> Iterator[tuple[RerunViewer, psutil.Process]]:
    """The sink and the process that it starts; both end with the context. BenchError if a viewer is already open."""
    if settings.viewer == "window" and listens(HOST, GRPC_PORT):
        raise BenchError(f"a viewer is already open on port {GRPC_PORT}, and the sink would draw into it; close it")
    sender = psutil.Process()
    before = set(sender.children())
    memory = f"{settings.memory}MB"
    way: Way = "serve" if settings.viewer == "server" else "spawn"
    served = threading.Event()

    def report(line: str) -> None:
        print(line)
        served.set()

    viewer = RerunViewer(RerunMode(way), fps=settings.fps, memory=memory, report=report)
    (process,) = set(sender.children()) - before
    try:
        with closing(viewer):
            if settings.viewer == "server":
                served.wait(PATIENCE_S)  # what is drawn before is dropped
            yield viewer, process
    finally:
        if settings.viewer == "window":  # it would stay open otherwise
            process.kill()
            process.wait()


def at(tracks: Tracks, number: int, now_ns: int) -> Tracks:
    """The same tracks with another frame id and time."""
    return replace(tracks, frame_id=number, captured_ns=now_ns, captured_unix_ns=EPOCH_NS + now_ns)


def figures(samples: Sequence[Sample], full_at: int) -> dict[str, float | int]:
    """The viewer's memory at first, when full, at its peak and at the end; `ratio` is the end over when full."""
    full = [sample for sample in samples if sample.frames >= full_at]
    return {
        "full_at_frame": full[0].frames,
        "rss_mib_at_first": samples[0].rss_mib,
        "rss_mib_when_full": full[0].rss_mib,
        "rss_mib_highest": max(sample.rss_mib for sample in samples),
        "rss_mib_at_the_end": full[-1].rss_mib,
        "ratio": round(full[-1].rss_mib / full[0].rss_mib, 4),
        "highest_ratio": round(max(sample.rss_mib for sample in full) / full[0].rss_mib, 4),
        "sender_ratio": round(full[-1].sender_rss_mib / full[0].sender_rss_mib, 4),
    }


if __name__ == "__main__":
    run(main)
