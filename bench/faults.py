"""Fault injection: repeats the failures that users meet, many times, on the real program seen from outside.

Each fault gets its own run of `online-tapir`, with a subscriber in this process that reads everything. Where possible,
all trials of a fault use one run, and memory is compared over them. A trial is good if the expected outcome is seen in
time; any other outcome is counted by its description. Sources are real ffmpeg streams over TCP on loopback.
"""

import json as jsonlib
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import psutil  # type: ignore[import-untyped]
import zmq
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from bench.command import BenchError, Count, JsonFile, run
from bench.report import MIB, finish
from bench.stalled import free_port, rerun_server
from online_tapir.cli.app import USER_ERROR
from online_tapir.control import protocol
from online_tapir.records import Tracks
from online_tapir.wire.messages import Heartbeat
from online_tapir.wire.subscriber import Subscription, subscribe

START_S = 90.0  # for the program to load and publish, on a busy machine
NOTICE_S = 20.0  # for a failure to be reported, or frames to resume; a stream's time-outs are five seconds
UNANSWERED_S = 10.0  # since the last answer; then the flood stops waiting
END_S = 20.0
LOOK_S = 0.5  # between checks that the program still runs
GOES_ON = 10  # frames that show that tracking continues
GROWTH = 1.1  # largest ratio of memory after the last trial to after the first
RATE, SIZE = 15, "192x144"
REQUESTS = 10_000
INTERVAL = "a trial: from the fault to the expected outcome, and program start where each trial has its own run"


class Unexpected(Exception):  # noqa: N818  an outcome, not an error
    """An outcome other than the expected one; the table shows its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which faults to inject, and how often."""

    times: Annotated[int, Parameter(help="Trials per fault.", validator=Count)] = 20
    faults: Annotated[
        tuple[str, ...], Parameter(help="Only these. [default: all]", consume_multiple=True, negative=())
    ] = ()
    threads: Annotated[int, Parameter(help="CPU threads of the program's model.", validator=Count)] = 1
    silence: Annotated[
        float, Parameter(help="Longest gap between frames, seconds, while others fail; raise it on a busy machine.")
    ] = 2.0
    seed: Annotated[int, Parameter(help="Seed of random moments.", validator=Count)] = 1


class Program:
    """A run of `online-tapir`, with a subscription to what it publishes."""

    def __init__(
        self, process: psutil.Popen, stream: "Subscription[Tracks | Heartbeat]", log: Path, silence_s: float
    ) -> None:
        self.process = process
        self.stream = stream
        self.log = log
        self.silence_s = silence_s

    def frames(self, count: int = GOES_ON, within_s: float | None = None) -> Tracks:
        """Returns the last of the next `count` frames.

        Raises Unexpected if one takes longer than `within_s` (default: `silence_s`).
        """
        for _ in range(count):
            last = self._wait(lambda message: isinstance(message, Tracks), within_s or self.silence_s, "no frame")
        assert isinstance(last, Tracks)
        return last

    def state(self, *wanted: str, within_s: float = NOTICE_S) -> None:
        """Waits for a heartbeat with one of these states; raises Unexpected after `within_s`."""
        self._wait(lambda one: isinstance(one, Heartbeat) and one.state in wanted, within_s, f"not {wanted[0]}")

    def skip(self) -> int:
        """Discards everything received so far; returns how many frames that were."""
        self.stream.timeout_ms, frames = 0, 0
        with suppress(TimeoutError):
            while True:
                frames += isinstance(next(self.stream), Tracks)
        return frames

    def said(self, words: str) -> bool:
        return words in self.log.read_text(encoding="utf-8", errors="replace")

    def rss_mib(self) -> float:
        return float(self.process.memory_info().rss / MIB)

    def end(self, *expected: int) -> None:
        """Stops the program as a user does; raises Unexpected if its exit code is not in `expected` (default: 0)."""
        self.process.terminate()
        try:
            code = self.process.wait(END_S)
        except psutil.TimeoutExpired:
            raise Unexpected(f"did not stop within {END_S:g} s") from None
        if code not in (expected or (0,)):
            raise Unexpected(f"ended with {code}: {self.last_words()}")

    def last_words(self) -> str:
        return (self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1][-120:]

    def _wait(self, good: Callable[[Tracks | Heartbeat], bool], within_s: float, else_: str) -> Tracks | Heartbeat:
        deadline = time.monotonic() + within_s
        while (left_s := deadline - time.monotonic()) > 0:
            self.stream.timeout_ms = max(int(min(left_s, LOOK_S) * 1000), 1)
            with suppress(TimeoutError):
                message = next(self.stream)
                if good(message):
                    return message
            if self.process.poll() is not None:
                raise Unexpected(f"the program ended with {self.process.returncode}: {self.last_words()}")
        raise Unexpected(f"{else_} for {within_s:g} s")


@contextmanager
def program(settings: Settings, *words: str, camera: str = "demo", ready: bool = True) -> Iterator[Program]:
    """Runs the program with a subscription to its stream; with `ready`, waits until it tracks."""
    address = f"tcp://127.0.0.1:{free_port()}"
    control = f"tcp://127.0.0.1:{free_port()}"
    flags = [*("--camera", camera, "--publish", address, "--control", control, "--points", "grid:4", "--json-log")]
    flags += ["--iterations", "1", "--threads", str(settings.threads), "--stall-timeout", "1", "--reconnect-wait", "1"]
    flags += ["--size", SIZE, "--fps", str(RATE)] if camera == "demo" else []
    flags += [] if "--rerun" in words else ["--rerun", "off"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with TemporaryDirectory() as folder, subscribe(address, heartbeats=True) as stream:
        log = Path(folder) / "log"
        with log.open("w") as out:
            command = [sys.executable, "-m", "online_tapir", *flags, *words]
            process = psutil.Popen(command, env=environment, stdin=DEVNULL, stdout=out, stderr=out)
        try:
            one = Program(process, stream, log, settings.silence)
            if ready:
                one.frames(1, START_S)
                one.frames()
            yield one
        finally:
            kill(process)


class Ffmpeg:
    """A network camera: a moving test picture as an MPEG transport stream, for one reader at a time."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: psutil.Popen | None = None

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        picture = ["-f", "lavfi", "-i", f"testsrc2=size={SIZE}:rate={RATE}"]
        code = ["-c:v", "mpeg2video", "-g", str(RATE // 2), "-q:v", "4", "-f", "mpegts"]
        words = ["ffmpeg", "-v", "quiet", "-re", *picture, *code, f"{self.address}?listen=1"]
        try:
            self.process = psutil.Popen(words, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        except FileNotFoundError as error:
            raise BenchError("ffmpeg is not installed, and the streams come from it; install it") from error

    def kill(self) -> None:
        assert self.process is not None
        kill(self.process)

    def keep(self, over: threading.Event) -> None:
        """Restarts it whenever its reader has gone, as a camera accepts the next one, until `over` is set."""
        while not over.wait(0.1):
            if self.process is None or self.process.poll() is not None:
                self.start()


@contextmanager
def stream_source(kept: bool) -> Iterator[Ffmpeg]:
    """A stream; with `kept`, it accepts one reader after another."""
    source, over = Ffmpeg(), threading.Event()
    source.start()
    keeper = threading.Thread(target=source.keep, args=(over,))
    if kept:
        keeper.start()
    try:
        yield source
    finally:
        over.set()
        if kept:
            keeper.join()
        source.kill()


class Wire:
    """A TCP relay in front of a stream; it corrupts the data while `spoil` is set."""

    def __init__(self, upstream: int, rng: random.Random) -> None:
        self.spoil = threading.Event()
        self._upstream = upstream
        self._rng = rng
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                reader, _ = self._server.accept()
                with reader, suppress(OSError), socket.create_connection(("127.0.0.1", self._upstream), 5) as source:
                    while data := source.recv(1316):
                        reader.sendall(self._spoilt(data) if self.spoil.is_set() else data)

    def _spoilt(self, data: bytes) -> bytes:
        spoilt = bytearray(data)
        for _ in range(len(data) // 40):
            spoilt[self._rng.randrange(len(data))] = self._rng.randrange(256)
        return bytes(spoilt)


Trials = Iterator[Callable[[], None]]  # each raises Unexpected or passes
Fault = Callable[[Settings], Trials]


def repeated(settings: Settings, one: Program, trial: Callable[[], None]) -> Trials:
    """Repeats one trial on the same run; after the last, also checks memory growth and the exit code."""
    before = one.rss_mib()
    for index in range(settings.times):
        yield trial
        if index == 0:
            before = one.rss_mib()  # the first failure loads code and allocates buffers
    after = one.rss_mib()
    if after > GROWTH * before:
        raise Unexpected(f"memory went from {before:.0f} to {after:.0f} MiB over all trials")
    one.end()


def source_killed(settings: Settings) -> Trials:
    with stream_source(kept=False) as source, program(settings, camera=source.address) as one:

        def trial() -> None:
            source.kill()
            one.state("lost", "stalled")
            source.start()
            one.frames(1, NOTICE_S)
            one.frames()

        yield from repeated(settings, one, trial)


def source_stalled(settings: Settings) -> Trials:
    with stream_source(kept=True) as source, program(settings, camera=source.address) as one:

        def trial() -> None:
            assert source.process is not None
            stopped = source.process
            stopped.send_signal(signal.SIGSTOP)
            try:
                one.state("stalled", "lost")
            finally:
                stopped.send_signal(signal.SIGCONT)
            one.frames(1, NOTICE_S)
            one.frames()

        yield from repeated(settings, one, trial)


def corrupt_stream(settings: Settings) -> Trials:
    with stream_source(kept=True) as source:
        wire = Wire(source.port, random.Random(settings.seed))
        try:
            with program(settings, camera=wire.address) as one:

                def trial() -> None:
                    wire.spoil.set()
                    time.sleep(2)  # seconds of corruption
                    wire.spoil.clear()
                    one.skip()
                    one.frames(1, NOTICE_S)
                    one.frames(within_s=NOTICE_S)

                yield from repeated(settings, one, trial)
        finally:
            wire.close()


def subscriber_stopped(settings: Settings) -> Trials:
    with program(settings) as one:

        def trial() -> None:
            with listener(one) as reader:
                reader.send_signal(signal.SIGSTOP)
                one.frames(2 * RATE)
                reader.send_signal(signal.SIGCONT)
                one.frames()

        yield from repeated(settings, one, trial)


def subscriber_killed(settings: Settings) -> Trials:
    with program(settings) as one:

        def trial() -> None:
            with listener(one) as reader:
                kill(reader)
                one.frames(RATE)

        yield from repeated(settings, one, trial)


def viewer_killed(settings: Settings) -> Trials:
    def trial() -> None:
        with rerun_server() as server, program(settings, "--rerun", f"connect={server.url}") as one:
            server.process.kill()
            one.frames(2 * RATE)
            one.end()

    for _ in range(settings.times):
        yield trial


def disk_full(settings: Settings) -> Trials:
    """Alternates between a device that is full from the start and a file that may not grow beyond 1 MiB."""

    def full_at_once() -> None:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "full.rrd"
            file.symlink_to("/dev/full")
            with program(settings, "--rerun", f"save={file}", ready=False) as one:
                code = one.process.wait(START_S)
                if code != USER_ERROR or not one.said("full.rrd"):
                    raise Unexpected(f"ended with {code}: {one.last_words()}")

    def full_later() -> None:
        with ExitStack() as opened:
            file = Path(opened.enter_context(TemporaryDirectory())) / "full.rrd"
            one = opened.enter_context(program(settings, "--rerun", f"save={file}", ready=False))
            one.process.rlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
            one.frames(1, START_S)
            one.frames(6 * RATE)
            one.end()
            if not one.said("Rerun (save"):
                raise Unexpected("the incomplete recording was not reported")

    for index in range(settings.times):
        yield full_at_once if index % 2 == 0 else full_later


def ended_at_random(settings: Settings) -> Trials:
    """Expects exit code 0, or death by SIGTERM if Python had not yet installed its handler."""
    rng = random.Random(settings.seed)

    def trial() -> None:
        with program(settings, ready=False) as one:
            time.sleep(rng.uniform(0, 8))
            one.end(0, -signal.SIGTERM)
            for line in one.log.read_text(encoding="utf-8").splitlines():
                if "Traceback" in line or not line.startswith("{"):
                    raise Unexpected(f"printed {line[:120]}")
                jsonlib.loads(line)

    for _ in range(settings.times):
        yield trial


def control_flood(settings: Settings) -> Trials:
    with program(settings) as one:
        address = one.process.cmdline()[one.process.cmdline().index("--control") + 1]

        def trial() -> None:
            answers = flood(address, one)
            refused = set(answers) - {"result", "rate_limited"}
            if answers.total() != REQUESTS or refused:
                raise Unexpected(f"{answers.total()} of {REQUESTS} answered: {dict(answers)}")
            one.skip()
            one.frames()

        yield from repeated(settings, one, trial)


def flood(address: str, one: Program) -> Counter[str]:
    """Sends REQUESTS requests without waiting for answers, and counts these by kind; frames must keep coming."""
    answers: Counter[str] = Counter()
    requests = iter(
        protocol.encode_request(protocol.Request("status" if id % 2 else "list", {}, id, "flood"))
        for id in range(REQUESTS)
    )
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.setsockopt(zmq.RCVHWM, 0)
    dealer.connect(address)
    try:
        request = next(requests, None)
        one.skip()
        seen_s = looked_s = answered_s = time.monotonic()
        while answers.total() < REQUESTS and (now_s := time.monotonic()) - answered_s < UNANSWERED_S:
            ready = dealer.poll(10, zmq.POLLIN | (zmq.POLLOUT if request is not None else 0))
            if ready & zmq.POLLOUT and request is not None:
                dealer.send(request)
                request = next(requests, None)
            while dealer.poll(0, zmq.POLLIN):  # at once: the server drops answers that are not read
                reply = protocol.unpack(dealer.recv(), at_most=MIB)
                answers[str(reply.get("error", "result"))] += 1
                answered_s = now_s
            if now_s - looked_s > LOOK_S / 5:
                looked_s = now_s
                if one.skip():
                    seen_s = now_s
                elif now_s - seen_s > one.silence_s:
                    raise Unexpected(f"no frame for {one.silence_s:g} s after {answers.total()} answers")
        return answers
    finally:
        dealer.close(linger=0)
        context.term()


@contextmanager
def listener(one: Program) -> Iterator[psutil.Popen]:
    """Runs `online-tapir listen`, and waits for its first output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-m", "online_tapir", "listen", one.stream.address, "--jsonl"]
    read, write = os.pipe()
    reader = psutil.Popen(words, env=environment, stdin=DEVNULL, stdout=write)
    os.close(write)
    try:
        os.read(read, 1)
        drain = threading.Thread(target=drained, args=(read,), daemon=True)
        drain.start()
        one.skip()
        yield reader
    finally:
        kill(reader)
        drain.join()
        os.close(read)


def kill(process: psutil.Popen) -> None:
    """Kills a process, whether it runs, is stopped or has ended."""
    if process.poll() is None:
        process.kill()
        process.wait()


def drained(pipe: int) -> None:
    while os.read(pipe, 65_536):
        pass


FAULTS: dict[str, tuple[str, Fault]] = {
    "source killed and started again": ("reports lost; frames resume in the same run", source_killed),
    "source stalled": ("reports stalled; frames resume in the same run", source_stalled),
    "corrupt bytes in the stream": ("frames resume in the same run", corrupt_stream),
    "subscriber stopped": ("no late frame for other subscribers", subscriber_stopped),
    "subscriber killed": ("no late frame for other subscribers", subscriber_killed),
    "viewer killed": ("tracking continues; exits with 0", viewer_killed),
    "disk full while saving": ("at start: exits with 2; later: reported, tracking continues, exits with 0", disk_full),
    "SIGTERM at a random moment": ("exits with 0 (or is killed, before it handles SIGTERM)", ended_at_random),
    f"flood of {REQUESTS:,} requests": ("each answered or rate_limited; frames keep coming", control_flood),
}


def main(settings: Annotated[Settings, Parameter(name="*")] = Settings(), *, json: JsonFile = None) -> None:
    """Inject faults of cameras, disks, viewers and users into the program, and check how it reacts."""
    chosen = [name for name in FAULTS if not settings.faults or any(word in name for word in settings.faults)]
    if not chosen:
        raise BenchError(f"no fault is called {' or '.join(settings.faults)}; there are {', '.join(FAULTS)}")
    results = [tried(settings, name) for name in chosen]
    show(results)
    finish("faults", settings, {"faults": results}, json, interval=INTERVAL)
    if bad := [result["fault"] for result in results if result["good"] != settings.times or result["else"]]:
        raise BenchError(f"not as expected: {', '.join(bad)}")


def tried(settings: Settings, name: str) -> dict[str, Any]:
    """Runs all trials of one fault; counts the good ones and every other outcome."""
    expected, fault = FAULTS[name]
    good, seconds, other = 0, [0.0], Counter[str]()
    with ExitStack() as opened:
        trials = fault(settings)
        opened.callback(getattr(trials, "close", int))
        try:
            for trial in trials:
                begun = time.monotonic()
                try:
                    trial()
                    good += 1
                except Unexpected as error:
                    other[str(error)] += 1
                seconds.append(time.monotonic() - begun)
        except Unexpected as error:  # from the start, the memory check or the end
            other[str(error)] += 1
    return {
        "fault": name,
        "times": settings.times,
        "expected": expected,
        "good": good,
        "else": dict(other),
        "slowest_s": round(max(seconds), 1),
    }


def show(results: list[dict[str, Any]]) -> None:
    table = Table(title="Faults and their outcomes", title_justify="left")
    for heading in ("fault", "times", "expected", "seen", "slowest, s"):
        table.add_column(heading, justify="right" if heading in ("times", "slowest, s") else "left")
    for one in results:
        seen = [f"as expected {one['good']} times", *(f"{words} ({n} times)" for words, n in one["else"].items())]
        table.add_row(one["fault"], str(one["times"]), one["expected"], "\n".join(seen), str(one["slowest_s"]))
    Console(highlight=False, width=160).print(table)


if __name__ == "__main__":
    run(main)
