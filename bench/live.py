"""How old an answer is, and how many come a second: `online-tapir --camera demo` with a subscriber in another process.

The program runs as a user runs it; this process subscribes to it. Latencies begin when a frame is grabbed, before it is
rendered, and end when its message is handed to ZeroMQ (publish) or has been received and decoded here (receive). At a
frame rate of the camera's own the newest frame is tracked and others are dropped. Unpaced, a frame is grabbed while the
two before it wait or are tracked: the rate is what the program can do, and the latencies are mostly that wait. Warm-up
frames are in no figure. Resizing to the model's resolution is part of the stage encode, conversion to floats of upload.
"""

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from subprocess import TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import numpy as np
import psutil  # type: ignore[import-untyped]
from cyclopts import Parameter
from numpy.typing import NDArray

from bench.report import MIB, BenchError, Count, Spread, finish, print_table, run
from online_tapir.records import StageTimes, Tracks
from online_tapir.status import percentile
from online_tapir.subscriber import Subscription, subscribe

SILENCE_MS = 1000  # then see whether the program still runs
PATIENCE_S = 10.0  # for the program to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is run, and for how long."""

    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"
    points: Annotated[int, Parameter(help="Points to follow.", validator=Count)] = 64
    size: Annotated[str, Parameter(help="Of the frames.")] = "256x256"
    frames: Annotated[int, Parameter(help="Frames to measure.", validator=Count)] = 600
    fps: Annotated[float, Parameter(help="Rate of the camera; 0 gives frames as fast as they are taken.")] = 0.0
    warm_up: Annotated[int, Parameter(help="Frames before the first that is measured.", validator=Count)] = 60
    rerun: Annotated[Literal["off", "save"], Parameter(help="Record for Rerun beside it, or not.")] = "off"
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"
    threads: Annotated[
        int | None, Parameter(help="CPU threads of the model. [default: torch's choice]", validator=Count)
    ] = None


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """A message and the moment it was here."""

    tracks: Tracks
    monotonic_ns: int
    unix_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What one run gave: the messages after warm-up, and what the program used meanwhile."""

    messages: list[Received]
    cpu_seconds: float
    rss_mib: float  # at the end


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: Annotated[Path | None, Parameter(help="Write the JSON document to this file, too.")] = None,
) -> None:
    """Measure the whole program on the rendered scene: frame rate, latency by stage, jitter, drops, CPU and memory."""
    measured = measure(settings)
    spreads = spreads_ms(measured.messages)
    facts = figures(measured)
    rate = f"{settings.fps:g} fps" if settings.fps else "unpaced"
    title = f"{settings.model}, {settings.points} points, {settings.size}, {rate}; {settings.warm_up} frames of warm-up"
    print_table(f"{title}; ms", spreads, facts)
    finish("live", settings, {"ms": spreads, **facts}, json)


def measure(settings: Settings) -> Measured:
    """Runs the program until all frames have been received, then ends it as a user would."""
    address = free_address()
    with (
        TemporaryDirectory() as folder,
        subscribe(address, timeout_ms=SILENCE_MS) as stream,
        program(settings, address, Path(folder)) as process,
    ):
        receive(stream, process, settings.warm_up)
        used = cpu_seconds(process)
        messages = receive(stream, process, settings.frames)
        return Measured(messages, cpu_seconds(process) - used, process.memory_info().rss / MIB)


@contextmanager
def program(settings: Settings, address: str, folder: Path) -> Iterator[psutil.Popen]:
    """`online-tapir` in a process of its own, which must end with 0 when it is asked to."""
    flags = {
        "--camera": "demo",
        "--size": settings.size,
        "--fps": f"{settings.fps:g}",
        "--points": f"auto:{settings.points}",
        "--max-points": str(settings.points),
        "--model": settings.model,
        "--device": settings.device,
        "--publish": address,
        "--rerun": "off" if settings.rerun == "off" else f"save={folder / 'bench.rrd'}",
    }
    if settings.threads is not None:
        flags["--threads"] = str(settings.threads)
    words = [word for flag in flags.items() for word in flag]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = psutil.Popen([sys.executable, "-m", "online_tapir", *words, "--quiet"], env=environment)
    try:
        yield process
        process.terminate()
        if process.wait(PATIENCE_S) != 0:
            raise BenchError(f"the program ended with {process.returncode}, not 0, when it was asked to stop")
    except TimeoutExpired as error:
        raise BenchError(f"the program did not stop within {PATIENCE_S:g} s") from error
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def receive(stream: Subscription, process: psutil.Popen, count: int) -> list[Received]:
    """The next `count` messages. BenchError when the program ends before."""
    received: list[Received] = []
    while len(received) < count:
        try:
            tracks = next(stream)
        except TimeoutError:
            if process.poll() is not None:
                raise BenchError(f"the program ended with {process.returncode} before all frames were in") from None
            continue
        received.append(Received(tracks, time.monotonic_ns(), time.time_ns()))
    return received


def spreads_ms(messages: Sequence[Received]) -> dict[str, Spread]:
    """Latencies, stages and jitter in milliseconds; a frame's own publishing is told by the message after it."""
    tracks = [message.tracks for message in messages]
    stages = {
        field.name: np.array([getattr(one.times, field.name) for one in tracks]) / 1e6 for field in fields(StageTimes)
    }
    published = np.array([one.published_unix_ns - one.captured_unix_ns for one in tracks]) / 1e6
    received = np.array([one.monotonic_ns - one.tracks.captured_ns for one in messages]) / 1e6
    delivered = np.array([one.unix_ns - one.tracks.published_unix_ns for one in messages]) / 1e6
    beside_model = (stages["upload"] + stages["download"] + delivered)[:-1] + stages["publish"][1:]
    named = {
        "capture to publish": published,
        "capture to receive": received,
        **{f"  {name}": values for name, values in stages.items()},
        "  receive": delivered,
        "upload + download + publish + receive": beside_model,
        "jitter: interval of receipt, from its median": jitter_ms(messages),
    }
    return {name.strip(): Spread.of(values) for name, values in named.items()}


def jitter_ms(messages: Sequence[Received]) -> NDArray[np.float64]:
    """How far each interval between two messages is from the median interval [N - 1]."""
    intervals = np.diff([one.monotonic_ns for one in messages]) / 1e6
    return np.abs(intervals - percentile(intervals, 50))


def figures(measured: Measured) -> dict[str, float | int | None]:
    """What is one number for the whole run; rates are of messages received."""
    messages = measured.messages
    first, last = messages[0], messages[-1]
    seconds = (last.monotonic_ns - first.monotonic_ns) / 1e9
    per_second = frames_by_second(messages)
    return {
        "fps": round((len(messages) - 1) / seconds, 2),
        "fps_median_second": percentile(per_second, 50) if len(per_second) else None,
        "fps_slowest_second": int(per_second.min()) if len(per_second) else None,
        "dropped_by_camera": last.tracks.dropped - first.tracks.dropped,
        "frame_ids_skipped": last.tracks.frame_id - first.tracks.frame_id - (len(messages) - 1),
        "cpus_busy": round(measured.cpu_seconds / seconds, 2),
        "rss_mib": round(measured.rss_mib, 1),
    }


def frames_by_second(messages: Sequence[Received]) -> NDArray[np.int64]:
    """Messages in each whole second after the first of them."""
    since_first = np.array([one.monotonic_ns - messages[0].monotonic_ns for one in messages])
    return np.asarray(np.bincount(since_first // 1_000_000_000)[:-1], np.int64)


def cpu_seconds(process: psutil.Popen) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def free_address() -> str:
    """A port of loopback that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"


if __name__ == "__main__":
    run(main)
