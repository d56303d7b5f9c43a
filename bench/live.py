"""End-to-end latency and frame rate: `online-tapir --camera demo` with a subscriber in another process.

The program runs as a user runs it; this process subscribes to it. Latency is counted from the grab of a frame, before
it is rendered, until its message is handed to ZeroMQ (publish) or has been received and decoded here (receive). With a
camera frame rate, the newest frame is tracked and others are dropped. Unpaced, a frame is grabbed while the two before
it wait or are tracked: the rate is the program's maximum, and the latencies are mostly that wait.

Time outside the model: upload (the conversion to floats), download, publish and receive come from the messages.
Resizing to the model's resolution, which the program counts in its encode stage, is timed here by itself. The capture
stage is not counted: it is the wait for the model and the rendering of the scene, i.e. a queue and a stand-in for a
camera.

`--fps` and `--beside` take several values. Every combination is a run of the program; all are run in turn, `--rounds`
times, so that other load on the machine affects all of them. Their ratios are more reliable than their absolute values.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch
from cyclopts import Parameter
from numpy.typing import NDArray

from bench.command import BenchError, Count, JsonFile, PlotFile, pixels, run
from bench.report import MIB, Distribution, Spread, finish, print_table
from bench.stalled import deaf_subscriber, free_port, rerun_server
from online_tapir.live.status import percentile
from online_tapir.model.checkpoint import choose_device
from online_tapir.model.config import TapirConfig
from online_tapir.model.tapir import resize
from online_tapir.records import StageTimes, Tracks
from online_tapir.wire.subscriber import subscribe

SILENCE_MS = 1000  # without a message; then check that the program still runs
PATIENCE_S = 10.0  # for the program to end
NOT_THE_MODEL = "upload + download + publish + receive"
TARGET_MS = 3.0  # for the p95 of time outside the model, at 640x480 and 256 points on 2 cores
RESIZES = 200
INTERVAL = (
    "from the grab of a frame, before it is rendered, until its message is received and decoded in another process; "
    "the first warm_up frames of each run are excluded"
)

Beside = Literal["nothing", "rerun-save", "rerun-stalled", "subscriber-stalled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to run, and for how long."""

    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"
    points: Annotated[int, Parameter(help="Points to track.", validator=Count)] = 64
    size: Annotated[str, Parameter(help="Frame size.")] = "256x256"
    frames: Annotated[int, Parameter(help="Frames to measure per run.", validator=Count)] = 600
    fps: Annotated[
        tuple[float, ...],
        Parameter(
            help="Camera frame rates; 0 gives frames as fast as they are taken.", consume_multiple=True, negative=()
        ),
    ] = (0.0,)
    beside: Annotated[
        tuple[Beside, ...],
        Parameter(
            help="What runs alongside: nothing; a recording for Rerun; a Rerun viewer, or a second subscriber, that "
            "has stopped reading.",
            consume_multiple=True,
            negative=(),
        ),
    ] = ("nothing",)
    rounds: Annotated[int, Parameter(help="Runs per combination.", validator=Count)] = 1
    warm_up: Annotated[int, Parameter(help="Warm-up frames before measuring.", validator=Count)] = 60
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"
    threads: Annotated[
        int | None, Parameter(help="CPU threads of the model. [default: torch's choice]", validator=Count)
    ] = None


@dataclass(frozen=True, slots=True)
class Case:
    """One combination of camera rate and what runs alongside."""

    fps: float
    beside: Beside

    def __str__(self) -> str:
        rate = f"{self.fps:g} fps" if self.fps else "unpaced"
        return rate if self.beside == "nothing" else f"{rate}, {self.beside}"


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """A message and the time when it was received."""

    tracks: Tracks
    monotonic_ns: int
    unix_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The result of one run: the messages after warm-up, and the CPU time and memory that the program used."""

    messages: list[Received]
    cpu_seconds: float
    rss_mib: float  # at the end


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Measure the whole program on the rendered scene: frame rate, latency by stage, jitter, drops, CPU and memory."""
    cases = [Case(fps, beside) for fps in settings.fps for beside in settings.beside]
    resizing = Spread.of(resizing_ms(settings))
    measured: dict[Case, list[Measured]] = {case: [] for case in cases}
    for _ in range(settings.rounds):
        for case in cases:
            measured[case].append(measure(settings, case))
    runs = [{"setting": case, **summary(rounds, resizing)} for case, rounds in measured.items()]
    for one in runs:
        one |= over_nothing(one, runs)
        show(settings, one)
    if len(runs) > 1:
        received = {str(one["setting"]): one["ms"]["capture to receive"] for one in runs}
        print_table("capture to receive, all runs; ms", received, {})
    results = {"runs": runs, "resize_ms": resizing, "not_the_model_target_ms": TARGET_MS}
    finish("live", settings, results, json, plot, interval=INTERVAL)


def summary(rounds: Sequence[Measured], resizing: Spread) -> dict[str, Any]:
    """All figures of one case, over its rounds."""
    messages = [measured.messages for measured in rounds]
    spreads = spreads_ms(messages)
    received = np.concatenate([latencies_ms(one)["capture to receive"] for one in messages])
    return {
        "ms": spreads,
        "not_the_model_p95_ms": round(spreads[NOT_THE_MODEL].p95 + resizing.p95, 4),
        **figures(rounds),
        "distribution_ms": Distribution.of(received),
    }


def over_nothing(one: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Capture to receive, relative to the run at the same rate with nothing alongside; empty if there is none."""
    plain = [run for run in runs if run is not one and run["setting"] == Case(one["setting"].fps, "nothing")]
    if not plain:
        return {}
    spread, base = (run["ms"]["capture to receive"] for run in (one, plain[0]))
    return {f"{rank}_over_nothing": round(getattr(spread, rank) / getattr(base, rank), 3) for rank in ("p50", "p95")}


def show(settings: Settings, one: Mapping[str, Any]) -> None:
    title = f"{settings.model}, {settings.points} points, {settings.size}, {one['setting']}"
    shown = {name: value for name, value in one.items() if name not in ("setting", "ms", "distribution_ms")}
    print_table(f"{title}; ms, without {settings.warm_up} warm-up frames", one["ms"], shown)


def measure(settings: Settings, case: Case) -> Measured:
    """Runs the program until all frames have been received, then ends it as a user would."""
    address = f"tcp://127.0.0.1:{free_port()}"
    with ExitStack() as opened:
        folder = opened.enter_context(TemporaryDirectory())
        stream = opened.enter_context(subscribe(address, timeout_ms=SILENCE_MS))
        if case.beside == "subscriber-stalled":
            opened.enter_context(deaf_subscriber(address))
        viewer = opened.enter_context(rerun_server()) if case.beside == "rerun-stalled" else None
        rerun = "off" if viewer is None else f"connect={viewer.url}"
        if case.beside == "rerun-save":
            rerun = f"save={Path(folder) / 'bench.rrd'}"
        process = opened.enter_context(program(settings, case.fps, address, rerun))
        receive(stream, process, settings.warm_up)
        if viewer is not None:
            viewer.stop_reading(process)
        used = cpu_seconds(process)
        messages = receive(stream, process, settings.frames)
        return Measured(messages, cpu_seconds(process) - used, process.memory_info().rss / MIB)


@contextmanager
def program(settings: Settings, fps: float, address: str, rerun: str) -> Iterator[psutil.Popen]:
    """Runs `online-tapir` in its own process. Raises BenchError unless it exits with 0 when asked to stop."""
    flags = {
        "--camera": "demo",
        "--size": settings.size,
        "--fps": f"{fps:g}",
        "--points": f"auto:{settings.points}",
        "--max-points": str(settings.points),
        "--model": settings.model,
        "--device": settings.device,
        "--publish": address,
        "--rerun": rerun,
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
    except psutil.TimeoutExpired as error:
        raise BenchError(f"the program did not stop within {PATIENCE_S:g} s") from error
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def receive(stream: Iterator[Tracks], process: psutil.Popen, count: int) -> list[Received]:
    """The next `count` messages. Raises BenchError if the program ends first."""
    received: list[Received] = []
    while len(received) < count:
        try:
            tracks = next(stream)
        except TimeoutError:
            if process.poll() is not None:
                raise BenchError(f"the program ended with {process.returncode} before all frames came") from None
            continue
        received.append(Received(tracks, time.monotonic_ns(), time.time_ns()))
    return received


def latencies_ms(messages: Sequence[Received]) -> dict[str, NDArray[np.float64]]:
    """Latencies, stages and jitter of one run in milliseconds; the next message reports a frame's publish time."""
    tracks = [message.tracks for message in messages]
    stages = {
        field.name: np.array([getattr(one.times, field.name) for one in tracks]) / 1e6 for field in fields(StageTimes)
    }
    delivered = np.array([one.unix_ns - one.tracks.published_unix_ns for one in messages]) / 1e6
    return {
        "capture to publish": np.array([one.published_unix_ns - one.captured_unix_ns for one in tracks]) / 1e6,
        "capture to receive": np.array([one.monotonic_ns - one.tracks.captured_ns for one in messages]) / 1e6,
        **stages,
        "receive": delivered,
        NOT_THE_MODEL: (stages["upload"] + stages["download"] + delivered)[:-1] + stages["publish"][1:],
        "jitter: interval of receipt, from its median": jitter_ms(messages),
    }


def spreads_ms(rounds: Sequence[Sequence[Received]]) -> dict[str, Spread]:
    """The spread of each latency over all rounds."""
    found = [latencies_ms(messages) for messages in rounds]
    return {name: Spread.of(np.concatenate([one[name] for one in found])) for name in found[0]}


def jitter_ms(messages: Sequence[Received]) -> NDArray[np.float64]:
    """Absolute deviation of each interval between messages from the median interval [N - 1]."""
    intervals = np.diff([one.monotonic_ns for one in messages]) / 1e6
    return np.abs(intervals - percentile(intervals, 50))


def figures(rounds: Sequence[Measured]) -> dict[str, float | int | None]:
    """The scalar figures of a case, over all its rounds.

    Rates count received messages; `answered_share` is their share of the grabbed frames. Dropped frames are counted
    twice: by the camera, and as gaps in the received frame ids.
    """
    ends = [(measured.messages[0], measured.messages[-1]) for measured in rounds]
    intervals = sum(len(measured.messages) - 1 for measured in rounds)
    grabbed = sum(last.tracks.frame_id - first.tracks.frame_id for first, last in ends)
    seconds = sum(last.monotonic_ns - first.monotonic_ns for first, last in ends) / 1e9
    per_second = np.concatenate([frames_by_second(measured.messages) for measured in rounds])
    return {
        "fps": round(intervals / seconds, 2),
        "fps_median_second": percentile(per_second, 50) if len(per_second) else None,
        "fps_slowest_second": int(per_second.min()) if len(per_second) else None,
        "answered_share": round(intervals / grabbed, 4),
        "dropped_by_camera": sum(last.tracks.dropped - first.tracks.dropped for first, last in ends),
        "frame_ids_skipped": grabbed - intervals,
        "cpus_busy": round(sum(measured.cpu_seconds for measured in rounds) / seconds, 2),
        "rss_mib": round(max(measured.rss_mib for measured in rounds), 1),
    }


def frames_by_second(messages: Sequence[Received]) -> NDArray[np.int64]:
    """The number of messages in each whole second since the first message."""
    since_first = np.array([one.monotonic_ns - messages[0].monotonic_ns for one in messages])
    return np.asarray(np.bincount(since_first // 1_000_000_000)[:-1], np.int64)


@torch.inference_mode()
def resizing_ms(settings: Settings) -> NDArray[np.float64]:
    """Times of resizing a frame to the presets' initial resolution, by itself [RESIZES]."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    width, height = pixels(settings.size)
    image = torch.rand(1, height, width, 3).permute(0, 3, 1, 2).to(device)  # channels-last, as the tracker has it
    taken = []
    for _ in range(RESIZES + settings.warm_up):
        start = time.perf_counter_ns()
        resize(image, TapirConfig().initial_resolution)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append((time.perf_counter_ns() - start) / 1e6)
    return np.array(taken[settings.warm_up :])


def cpu_seconds(process: psutil.Popen) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    run(main)
