"""Tracks into the Rerun viewer: a window, a browser, a viewer elsewhere or a file.

Drawing happens in a thread of its own that takes frames from a box; `publish` only leaves them there. Live viewers get
the newest frame and skip what they are too slow for; a file gets every frame unless it falls a whole box behind. What
goes wrong in that thread ends the viewer with one reported line, never the tracker. The rerun package is imported by
`RerunViewer` alone.
"""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import quote, urlsplit

from online_tapir.drawing.look import DEFAULT_COLOR, DEFAULT_MEMORY, LIVE_FPS, LIVE_SIDE, ColorMode, Look
from online_tapir.drawing.query_patches import QueryPatch, QueryPatches
from online_tapir.errors import ConfigError, PublishError
from online_tapir.mailbox import Backlog, Closed, Mailbox
from online_tapir.records import Frame, Tracks

if TYPE_CHECKING:
    from online_tapir.camera import Camera
    from online_tapir.points.replenish import Queries
    from online_tapir.sinks.rerun.scene import Scene

HOST = "127.0.0.1"  # rerun's own default is every interface: anyone near could watch
GRPC_PORT = 9876
WEB_PORT = 9090
BACKLOG_FRAMES = 32  # of a file: a second of video, 200 MB at 1920x1080
START_SECONDS = 20.0
CLOSE_SECONDS = 0.7
FILE_CLOSE_SECONDS = 10.0  # to write what waits; a viewer that hangs is not waited for so long
STALL_SECONDS = 30.0
RATE_FRAMES = 5  # fewer give no frame rate worth a curve

Way = Literal["spawn", "serve", "connect", "save", "off"]


@dataclass(frozen=True)
class RerunMode:
    """Which viewer: `target` is the URL of connect, the file of save."""

    way: Way
    target: str = ""

    def __str__(self) -> str:
        return f"{self.way}={self.target}" if self.target else self.way


def parse_rerun_mode(text: str) -> RerunMode:
    """The mode in `spawn`, `serve`, `off`, `connect=URL` or `save=FILE.rrd`. Raises `ConfigError` for anything else."""
    way, equals, target = text.partition("=")
    match way, bool(equals), bool(target):
        case (("spawn" | "serve" | "off"), False, _):
            return RerunMode(way)
        case "connect", _, True:
            if not target.startswith(("rerun://", "rerun+http://", "rerun+https://")):
                raise ConfigError(
                    f"--rerun {text}: a viewer's address begins with rerun+http://, for example "
                    f"connect=rerun+http://{HOST}:{GRPC_PORT}/proxy"
                )
            return RerunMode("connect", target)
        case "save", _, True:
            return RerunMode("save", target)
    raise ConfigError(f"--rerun {text!r} is none of spawn, serve, connect=URL, save=FILE.rrd, off")


def default_mode(environ: Mapping[str, str], platform: str = sys.platform) -> tuple[RerunMode, str]:
    """The mode for this machine and one line that says why."""
    if find_viewer() is None:
        return RerunMode("off"), "rerun's viewer is not installed, so nothing is shown; --rerun save=FILE.rrd records"
    if platform in ("win32", "darwin") or environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        return RerunMode("spawn"), "the Rerun viewer opens on this display; --rerun off for none"
    return RerunMode("serve"), "no display here, so Rerun is served to a browser; --rerun off for none"


def find_viewer() -> Path | None:
    """The viewer's program: the one that came with the rerun package, or else the one on the PATH."""
    package = importlib.util.find_spec("rerun_cli")
    folders = package.submodule_search_locations or [] if package else []
    for folder in folders:
        for name in ("rerun", "rerun.exe", "Rerun.app/Contents/MacOS/Rerun"):
            if (program := Path(folder, name)).is_file():
                return program
    on_path = shutil.which("rerun")
    return Path(on_path) if on_path else None


@dataclass(frozen=True, slots=True)
class Moment:
    """One frame as it is drawn."""

    frame: Frame
    tracks: Tracks
    latency_ms: float  # capture to publish
    fps: float | None  # over the last second; None while there are too few frames
    query: QueryPatch | None = None  # of the point that is inspected


class Box(Protocol):
    """What the viewer takes moments from."""

    @property
    def dropped(self) -> int: ...
    def offer(self, item: Moment) -> None: ...
    def take(self, timeout: float | None = None) -> Moment: ...
    def close(self) -> None: ...


class RerunViewer:
    """A sink that draws each frame with its points, trails and curves, and the inspected point (see `rerun_scene`).

    `fps` and `longest_side` say how many pictures a second and pixels a picture are drawn at most; None is `LIVE_FPS`
    and `LIVE_SIDE` for a live viewer, no limit for a file. `memory` limits a viewer that is started here, as "2GB".
    `report` receives one line when there is something to open or the viewer has ended; it is called from the viewer's
    thread. Frames are drawn after `publish` has returned: do not write into `frame.rgb` again. Raises `PublishError`
    when the file cannot be made or no viewer is installed, ConfigError for a `memory` that is none.
    """

    def __init__(
        self,
        mode: RerunMode,
        *,
        color: ColorMode = DEFAULT_COLOR,
        fps: float | None = None,
        longest_side: int | None = None,
        memory: str = DEFAULT_MEMORY,
        report: Callable[[str], None] = print,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        assert mode.way != "off", "a viewer that is off is no viewer"
        from online_tapir.sinks.rerun.scene import Scene

        check_memory(memory)
        if mode.way != "save":
            fps, longest_side = fps or LIVE_FPS, longest_side or LIVE_SIDE
        self._mode = mode
        self._memory = memory
        self._report = report
        self._monotonic_ns = monotonic_ns
        self._published_ns: deque[int] = deque()  # within the last second
        self._box: Box = Backlog[Moment](BACKLOG_FRAMES) if mode.way == "save" else Mailbox[Moment]()
        self._closing = threading.Event()
        self._server: Viewer | None = None
        self._patches = QueryPatches()
        look = Look(color, fps, longest_side)
        self._scene = Scene(look=look, flush_every=30 if mode.way == "save" else 1, stall_seconds=STALL_SECONDS)
        open_ = self._prepare(self._scene)
        self._thread = threading.Thread(target=self._run, args=(self._scene, open_), name="rerun", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Frames that were never drawn because newer ones came, or the file's backlog was full."""
        return self._box.dropped

    def begin(self, camera: "Camera") -> None:
        """A new source: its frames are numbered anew."""
        self._patches = QueryPatches()

    def named(self, queries: Sequence["Queries"]) -> None:
        """Points that the next frame to be published is the first to have tracks of."""
        self._patches.named(queries)

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        """Leave the frame for the viewer, without waiting; nothing happens once the viewer has ended."""
        if not self._thread.is_alive():
            self._patches = QueryPatches()  # it holds a lot of memory
            return
        now_ns = self._monotonic_ns()
        self._patches.follow(frame, tracks)
        query = None if tracks.inspection is None else self._patches.get(tracks.inspection.id)
        moment = Moment(frame, tracks, (now_ns - tracks.captured_ns) / 1e6, self._rate(now_ns), query)
        try:
            self._box.offer(moment)
        except Closed:
            return

    def close(self) -> None:
        """Draw what is left and end; a spawned viewer stays open. May be called twice.

        For `CLOSE_SECONDS` at most, into a file for `FILE_CLOSE_SECONDS`.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        self._box.close()
        limit_s = FILE_CLOSE_SECONDS if self._mode.way == "save" else CLOSE_SECONDS
        self._thread.join(limit_s)
        if self._thread.is_alive():
            self._scene.abandon()
            self._report(f"Rerun ({self._mode}) was still busy after {limit_s:g} s; its last frames are missing")
        if self._server is not None:
            self._server.stop()
        if self._mode.way == "save" and self.dropped:
            self._report(
                f"{self._mode.target} lacks {self.dropped} frames: they came faster than they could be written"
            )

    def _rate(self, now_ns: int) -> float | None:
        times = self._published_ns
        times.append(now_ns)
        while now_ns - times[0] > 1_000_000_000:
            times.popleft()
        if len(times) < RATE_FRAMES or now_ns == times[0]:
            return None
        return (len(times) - 1) * 1e9 / (now_ns - times[0])

    def _prepare(self, scene: "Scene") -> Callable[[], None]:
        """Do what can fail at once here, and return what may take seconds: it opens `scene` in the thread."""
        mode = self._mode
        if mode.way == "save":
            try:
                scene.save(mode.target)
            except (RuntimeError, OSError) as error:
                raise PublishError(f"cannot record to {mode.target}: {error}") from error
            return lambda: None
        if mode.way == "connect":
            viewer = Viewer(mode.target)
        elif mode.way == "spawn":
            viewer = Viewer.window(self._memory)
        else:
            viewer = self._server = Viewer.serving(self._memory)

        def wait_and_connect() -> None:
            viewer.wait(self._closing)
            scene.connect(viewer.url)
            if viewer.web_url:
                self._report(f"Rerun: open {viewer.web_url}")

        return wait_and_connect

    def _run(self, scene: "Scene", open_: Callable[[], None]) -> None:
        try:
            with closing(scene):
                open_()
                while True:
                    scene.draw(self._box.take())
        except Closed:
            pass
        except Exception as error:  # whatever it is, the tracker goes on without a viewer
            if self._closing.is_set() and self._mode.way != "save":
                return  # a live viewer that goes while we go is no news
            reason = " ".join(str(error).split())
            self._report(f"Rerun ({self._mode}) ended: {reason}; tracking goes on without it")
        finally:
            self._box.close()


class Viewer:
    """Where frames are sent. A viewer of our own listens on loopback only, within a memory limit."""

    def __init__(self, url: str, web_url: str = "", process: subprocess.Popen[bytes] | None = None) -> None:
        self.url = url
        self.web_url = web_url
        self._process = process

    @classmethod
    def window(cls, memory: str) -> "Viewer":
        """The window that is open already, or a new one; it outlives this program."""
        url = f"rerun+http://{HOST}:{GRPC_PORT}/proxy"
        if listens(HOST, GRPC_PORT):
            return cls(url)
        arguments = ["--port", str(GRPC_PORT), "--memory-limit", memory, "--hide-welcome-screen"]
        return cls(url, "", _start(arguments, memory))

    @classmethod
    def serving(cls, memory: str) -> "Viewer":
        """A viewer for browsers, on the usual ports if they are free; it ends with this program."""
        port, web_port = _free_port(GRPC_PORT), _free_port(WEB_PORT)
        url = f"rerun+http://{HOST}:{port}/proxy"
        arguments = ["--serve-web", "--port", str(port), "--web-viewer-port", str(web_port)]
        return cls(url, f"http://{HOST}:{web_port}/?url={quote(url, safe='')}", _start(arguments, memory))

    def wait(self, cancelled: threading.Event) -> None:
        """Return once it listens. Raises `PublishError` when it has ended instead or takes `START_SECONDS`."""
        address = urlsplit(self.url)
        host, port = address.hostname or HOST, address.port
        deadline = time.monotonic() + START_SECONDS
        # Before connecting: rerun with nobody to connect to would hold up our exit.
        while port is not None and not listens(host, port):
            if self._process is not None and self._process.poll() is not None:
                raise PublishError("the viewer ended as it started (spawn needs a display, --rerun serve does not)")
            if time.monotonic() > deadline:
                raise PublishError(f"no viewer listened at {host}:{port} for {START_SECONDS:g} s")
            if cancelled.wait(0.1):
                raise Closed("closed while the viewer started")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # it holds nothing that would be lost
            self._process.wait()


def check_memory(text: str) -> None:
    """Raises ConfigError where rerun's viewer would not take this for an amount of memory."""
    if re.fullmatch(r"\d+(\.\d+)?\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB|%)", text) is None:
        raise ConfigError(f"--rerun-memory {text!r} is no amount of memory; write 2GB, 500MB or 25%, for instance")


def _start(arguments: list[str], memory: str) -> subprocess.Popen[bytes]:
    program = find_viewer()
    if program is None:
        raise PublishError("rerun's viewer is not installed here; use --rerun save=FILE.rrd, or off")
    common = [os.fspath(program), "--bind", HOST, "--server-memory-limit", memory]
    quiet = subprocess.DEVNULL
    # In a session of its own, where Ctrl-C does not reach it: a window outlives us, a server is ended by `stop`.
    return subprocess.Popen([*common, *arguments], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except (ConnectionError, TimeoutError):
        return False


def _free_port(wanted: int) -> int:
    """`wanted` if nobody has it, else another."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
