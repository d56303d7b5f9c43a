"""The page: from capture to the canvas of a browser, what viewers cost the tracker, and memory over many frames.

The real program tracks the demo; viewers are pages in headless browsers (with `--browser`), or clients that acknowledge
each picture at once. One more may read nothing. What the tracker's own subscribers wait for is measured in another
process at the same time.
"""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import psutil  # type: ignore[import-untyped]
from cyclopts import Parameter

from bench.command import BenchError, Count, JsonFile, run
from bench.report import Spread, finish, print_table
from online_tapir.wire.subscriber import subscribe

START_S = 90.0
SETTLE_S = 3.0
INTERVAL = "after 3 s with every viewer connected; starting the program and the browsers is not included"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
HOOK = """
const open = WebSocket.prototype.addEventListener;
window.latencies = [];
const unpack = (data) => {
  if (typeof data === "string") return;
  const length = new DataView(data).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  if (header.latency_ms !== null) window.latencies.push(header.latency_ms);
};
const Real = WebSocket;
window.WebSocket = class extends Real {
  constructor(...given) { super(...given); open.call(this, "message", (event) => unpack(event.data)); }
};
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is shown to whom."""

    size: Annotated[tuple[str, ...], Parameter(help="Frame sizes of the demo.")] = ("640x480", "1280x720")
    viewers: Annotated[tuple[int, ...], Parameter(help="Numbers of viewers, 0 for none.")] = (0, 1, 4, 16)
    seconds: Annotated[int, Parameter(help="Seconds measured for each.", validator=Count)] = 10
    fps: Annotated[int, Parameter(help="Frame rate of the demo.", validator=Count)] = 30
    stalled: Annotated[bool, Parameter(help="One more viewer reads nothing.")] = True
    memory: Annotated[
        int,
        Parameter(help="Also: resident memory over this many frames, with a viewer that reads and one that does not."),
    ] = 0
    browser: Annotated[
        Literal["first", "all", "none"],
        Parameter(help="Which viewers are browsers; others are clients that acknowledge at once."),
    ] = "first"


@dataclass
class Measured:
    """Milliseconds to the canvas as the page was told, to a subscriber, and the program's memory in MiB."""

    seen_ms: list[float] = field(default_factory=list)
    subscriber_ms: list[float] = field(default_factory=list)
    pictures: int = 0
    memory_mib: float = 0.0


def measure(*, settings: Annotated[Settings, Parameter(name="*")] = Settings(), json: JsonFile = None) -> None:
    """Measure capture to canvas and the tracker's own latency, for every frame size and number of viewers."""
    seen: dict[str, Spread] = {}
    own: dict[str, Spread] = {}
    facts: dict[str, str] = {}
    for size in settings.size:
        base: float | None = None
        with program(size, settings.fps) as (link, publish, pid):
            for viewers in settings.viewers:
                name = f"{size}, {viewers} viewers" + (" and a stalled one" if settings.stalled and viewers else "")
                found = with_viewers(link, publish, pid, viewers, settings)
                own[name] = Spread.of(found.subscriber_ms)
                base = base or own[name].p50
                facts[name] = f"{own[name].p50 / base:.2f} of none; {found.memory_mib:.0f} MiB"
                if viewers:
                    seen[name] = Spread.of(found.seen_ms)
                    facts[name] += f"; {found.pictures / settings.seconds / viewers:.1f} pictures a second each"
    print_table("milliseconds from capture to the canvas", seen, {})
    print_table("milliseconds from capture to a ZeroMQ subscriber", own, facts)
    memory = memory_over(settings.memory) if settings.memory else {}
    for frame, mib in memory.items():
        print(f"resident memory after {frame} frames with two viewers: {mib:.1f} MiB")
    results = {"seen_ms": seen, "subscriber_ms": own, "facts": facts, "memory_mib": memory}
    finish("web", settings, results, json, interval=INTERVAL)


def memory_over(frames: int) -> dict[int, float]:
    """MiB resident at a twentieth of `frames`, at each quarter and at the end, unpaced on small frames."""
    found: dict[int, float] = {}
    wanted = [frames // 20, *(frames * quarter // 4 for quarter in range(1, 5))]
    with program("160x120", 0) as (link, publish, pid), client(link), client(link, stalled=True):
        for tracks in subscribe(publish, timeout_ms=10_000):
            if wanted and tracks.frame_id >= wanted[0]:
                found[wanted.pop(0)] = psutil.Process(pid).memory_info().rss / 2**20
            if not wanted:
                return found
    return found


@contextmanager
def program(size: str, fps: int) -> Iterator[tuple[str, str, int]]:
    """Runs `online-tapir --web` on the demo; yields the page's link, the address it publishes on and its process."""
    words = ["--camera", "demo", "--size", size, "--fps", str(fps), "--web", "--control", "off"]
    words += ["--publish", "tcp://127.0.0.1:0"]
    running = subprocess.Popen(
        [sys.executable, "-m", "online_tapir", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")},
    )
    stderr = running.stderr
    assert stderr is not None
    said: list[str] = []
    threading.Thread(target=lambda: said.extend(iter(stderr.readline, "")), daemon=True).start()
    try:
        deadline = time.monotonic() + START_S
        while not any(" #" in line for line in said):
            if running.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the program did not start: {''.join(said)}")
            time.sleep(0.05)
        text = "".join(said)
        link, publish = re.search(r"page at (\S+)", text), re.search(r"publishing on (\S+)", text)
        assert link is not None
        assert publish is not None
        yield link[1], publish[1], running.pid
    finally:
        running.terminate()
        running.wait(20)


def with_viewers(link: str, publish: str, pid: int, viewers: int, settings: Settings) -> Measured:
    """What one number of viewers see, and what the tracker's subscriber waits for meanwhile."""
    found = Measured()
    browsers = {"first": min(viewers, 1), "all": viewers, "none": 0}[settings.browser]
    with ExitStack() as held:
        pages = held.enter_context(browsing(link, browsers))
        clients = [held.enter_context(client(link)) for _ in range(viewers - browsers)]
        if settings.stalled and viewers:
            held.enter_context(client(link, stalled=True))
        time.sleep(SETTLE_S)
        for one in clients:
            one.clear()
        for page in pages:
            page.evaluate("() => { window.latencies.length = 0; }")
        end = time.monotonic() + settings.seconds
        for tracks in subscribe(publish, timeout_ms=10_000):
            found.subscriber_ms.append((time.monotonic_ns() - tracks.captured_ns) / 1e6)
            if time.monotonic() > end:
                break
        drawn: list[list[float]] = [page.evaluate("() => window.latencies") for page in pages]
        heard = [list(one) for one in clients]
    found.pictures = sum(map(len, drawn + heard))
    found.seen_ms = [one for some in (drawn or heard) for one in some]  # what a browser drew, if there is one
    found.memory_mib = psutil.Process(pid).memory_info().rss / 2**20
    return found


@contextmanager
def browsing(link: str, count: int) -> Iterator[list[Any]]:
    """Open pages, each in a window of its own, that keep the latencies which they are told."""
    if not count:
        yield []
        return
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise BenchError("there is no browser; install chromium, or measure with --browser none")
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=QUIET)
        pages = []
        for _ in range(count):
            page = opened.new_context(viewport={"width": 1100, "height": 800}).new_page()
            page.add_init_script(HOOK)
            page.goto(link)
            pages.append(page)
        yield pages
        opened.close()


@contextmanager
def client(link: str, stalled: bool = False) -> Iterator[list[float]]:
    """A viewer without a browser: acknowledges each picture at once, or reads nothing; yields its latencies."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    latencies: list[float] = []
    with connect(link.replace("http", "ws", 1) + "stream", max_size=None) as socket:

        def reading() -> None:
            try:
                for message in socket:
                    if isinstance(message, bytes):
                        (length,) = struct.unpack_from("<I", message)
                        header = json.loads(message[4 : 4 + length])
                        socket.send(json.dumps({"ack": header["number"]}))
                        if header["latency_ms"] is not None:
                            latencies.append(header["latency_ms"])
            except ConnectionClosed:
                pass

        if not stalled:
            threading.Thread(target=reading, daemon=True).start()
        yield latencies


if __name__ == "__main__":
    run(measure)
