"""Sends tracks to the Rerun viewer: a window, a browser, a remote viewer or a file.

A separate thread takes frames from a box and draws them; `publish` only puts them there. Live viewers get the newest
frame and skip those they are too slow for. A file gets every frame unless its backlog is full. An error in that thread
ends the viewer with one reported line, never the tracker. Only `RerunViewer` imports the rerun package.
"""

import os
import re
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit

from online_tapir.drawing.look import (
    DEFAULT_COLOR,
    DEFAULT_MEMORY,
    LIVE_FPS,
    LIVE_SIDE,
    WEB_FPS,
    WEB_SIDE,
    ColorMode,
    Look,
)
from online_tapir.drawing.query_patches import QueryPatches
from online_tapir.errors import ConfigError, PublishError
from online_tapir.live.sink import Sink
from online_tapir.mailbox import Backlog, Closed
from online_tapir.records import Frame, Queries, Tracks
from online_tapir.sinks.rerun.mode import GRPC_PORT, HOST, RerunMode, find_viewer
from online_tapir.sinks.rerun.moment import Moment

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream
    from online_tapir.sinks.rerun.scene import Scene

WEB_PORT = 9090
BACKLOG_FRAMES = 32  # for a file: a second of video, 200 MB at 1920x1080
PORTS = {"rerun": 443, "rerun+http": 80, "rerun+https": 443}  # by scheme, of an address without one
START_SECONDS = 20.0
CLOSE_SECONDS = 0.7
FILE_CLOSE_SECONDS = 10.0  # to write what is queued; longer than the wait for a viewer that hangs
STALL_SECONDS = 30.0
RATE_FRAMES = 5  # fewer give no frame rate worth plotting


class Box(Protocol):
    """The queue that the viewer takes moments from."""

    @property
    def dropped(self) -> int: ...
    def offer(self, item: Moment) -> None: ...
    def take(self, timeout: float | None = None) -> Moment: ...
    def close(self) -> None: ...


class RerunViewer(Sink):
    """A sink that draws each frame with its points, trails and curves, and the inspected point (see `scene`).

    `fps` limits the pictures per second, `longest_side` the pixels of their longer side; None means `LIVE_FPS` and
    `LIVE_SIDE` for a live viewer, no limit for a file. `memory` limits a viewer started here, for example "2GB".
    `report` receives one line when there is something to open, when the viewer has ended or when frames are missing;
    the viewer's thread or `close` calls it. Frames are drawn after `publish` returns: do not modify `frame.rgb`
    afterwards. Raises `PublishError` if the file cannot be created or no viewer is installed, ConfigError for an
    invalid `memory`.
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
        assert mode.way != "off", "mode off has no viewer"
        from online_tapir.sinks.rerun.scene import Scene

        check_memory(memory)
        if mode.way == "serve":
            fps, longest_side = fps or WEB_FPS, longest_side or WEB_SIDE
        elif mode.way != "save":
            fps, longest_side = fps or LIVE_FPS, longest_side or LIVE_SIDE
        self._mode = mode
        self._memory = memory
        self._report = report
        self._monotonic_ns = monotonic_ns
        self._published_ns: dict[str, deque[int]] = {}  # by camera, within the last second
        self._box: Box = Backlog[Moment](BACKLOG_FRAMES) if mode.way == "save" else NewestOfEach()
        self._closing = threading.Event()
        self._server: Viewer | None = None
        self._patches: dict[str, QueryPatches] = {}  # by camera
        self._look = look = Look(color, fps, longest_side, compressed=mode.way != "serve")
        self._flush_every = 30 if mode.way == "save" else 1
        self._scene = Scene(look=look, flush_every=self._flush_every, stall_seconds=STALL_SECONDS)
        self._scenes: dict[str, Scene] = {}  # by camera; the only one's is the one that is opened
        open_ = self._prepare(self._scene)
        self._thread = threading.Thread(target=self._run, args=(self._scene, open_), name="rerun", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Frames that were never drawn because a newer one came or the file's backlog was full."""
        return self._box.dropped

    @property
    def web_url(self) -> str:
        """Where a browser on this machine finds the viewer that is served here; "" where none is."""
        return "" if self._server is None else self._server.web_url

    @property
    def shows_inspection(self) -> bool:
        return self._thread.is_alive()

    def begin(self, stream: "Stream") -> None:
        """Starts a new source, whose frame ids start over."""
        self._patches[stream.name] = QueryPatches()

    def end(self, stream: "Stream") -> None:
        """Frees what is kept of a stream that has left; its tab shows its last frame."""
        self._patches.pop(stream.name, None)
        self._published_ns.pop(stream.name, None)

    def named(self, camera: str, queries: Sequence[Queries]) -> None:
        """Takes points whose first tracks come with the next frame published."""
        self._patches_of(camera).named(queries)

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        """Queues the frame for the viewer without waiting; does nothing once the viewer has ended."""
        if not self._thread.is_alive():
            self._patches.clear()  # frees a lot of memory
            return
        now_ns = self._monotonic_ns()
        patches = self._patches_of(tracks.camera)
        patches.follow(frame, tracks)
        query = None if tracks.inspection is None else patches.get(tracks.inspection.id)
        moment = Moment(frame, tracks, (now_ns - tracks.captured_ns) / 1e6, self._rate(tracks.camera, now_ns), query)
        try:
            self._box.offer(moment)
        except Closed:
            return

    def close(self) -> None:
        """Draws what is left and ends; a spawned viewer stays open. May be called twice.

        Waits at most `CLOSE_SECONDS`, for a file `FILE_CLOSE_SECONDS`.
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

    def _patches_of(self, camera: str) -> QueryPatches:
        return self._patches.setdefault(camera, QueryPatches())

    def _rate(self, camera: str, now_ns: int) -> float | None:
        times = self._published_ns.setdefault(camera, deque())
        times.append(now_ns)
        while now_ns - times[0] > 1_000_000_000:
            times.popleft()
        if len(times) < RATE_FRAMES or now_ns == times[0]:
            return None
        return (len(times) - 1) * 1e9 / (now_ns - times[0])

    def _prepare(self, scene: "Scene") -> Callable[[], None]:
        """Does here what fails fast; returns what may take seconds: it opens `scene` in the viewer's thread."""
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
            viewer.wait(self._closing, self._report)
            scene.connect(viewer.url)
            if viewer.web_url:
                self._report(f"Rerun: open {viewer.web_url}")

        return wait_and_connect

    def _scene_of(self, camera: str) -> "Scene":
        """What a camera is drawn in; several share the recording."""
        if len(self._patches) < 2 and not self._scenes:
            return self._scene
        if camera not in self._scenes:
            if not self._scenes:
                self._scene.retire()  # from here on every camera has a root of its own
            from online_tapir.sinks.rerun.scene import Scene

            self._scenes[camera] = Scene(
                look=self._look,
                flush_every=self._flush_every,
                stall_seconds=STALL_SECONDS,
                root=camera,
                beside=self._scene,
            )
        return self._scenes[camera]

    def _run(self, scene: "Scene", open_: Callable[[], None]) -> None:
        try:
            with closing(scene):
                open_()
                while True:
                    moment = self._box.take()
                    self._scene_of(moment.tracks.camera).draw(moment)
        except Closed:
            pass
        except Exception as error:  # after any error the tracker continues without a viewer
            if self._closing.is_set() and self._mode.way != "save":
                return  # not worth reporting: a live viewer ended while we close
            reason = " ".join(str(error).split())
            self._report(f"Rerun ({self._mode}) ended: {reason}; tracking goes on without it")
        finally:
            self._box.close()


class NewestOfEach:
    """A slot for each camera: its newest moment replaces one that was not taken. They are taken in turn."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._moments: dict[str, Moment] = {}  # in the order in which their cameras began to wait
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Moments that were replaced before anyone took them."""
        return self._dropped

    def offer(self, moment: Moment) -> None:
        """Stores a moment without waiting. Raises Closed after close()."""
        with self._changed:
            if self._closed:
                raise Closed("the viewer is closed")
            self._dropped += moment.tracks.camera in self._moments
            self._moments[moment.tracks.camera] = moment
            self._changed.notify()

    def take(self, timeout: float | None = None) -> Moment:
        """The moment of the camera that waits longest. Raises TimeoutError, or Closed after the last one."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._moments or self._closed, timeout):
                raise TimeoutError(f"no frame came for {timeout:g} s")
            if not self._moments:
                raise Closed("the viewer is closed")
            return self._moments.pop(next(iter(self._moments)))

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Viewer:
    """The viewer that frames are sent to. One that we start listens on loopback only and has a memory limit."""

    def __init__(self, url: str, web_url: str = "", process: subprocess.Popen[bytes] | None = None) -> None:
        self.url = url
        self.web_url = web_url
        self._process = process

    @classmethod
    def window(cls, memory: str) -> "Viewer":
        """Uses the window that is already open, or opens one; it outlives this program."""
        url = f"rerun+http://{HOST}:{GRPC_PORT}/proxy"
        if listens(HOST, GRPC_PORT):
            return cls(url)
        arguments = ["--port", str(GRPC_PORT), "--memory-limit", memory, "--hide-welcome-screen"]
        return cls(url, "", _start(arguments, memory))

    @classmethod
    def serving(cls, memory: str) -> "Viewer":
        """Starts a viewer for browsers, on the default ports if they are free; it ends with this program."""
        port, web_port = _free_port(GRPC_PORT), _free_port(WEB_PORT)
        url = f"rerun+http://{HOST}:{port}/proxy"
        arguments = ["--serve-web", "--port", str(port), "--web-viewer-port", str(web_port)]
        return cls(url, f"http://{HOST}:{web_port}/?url={quote(url, safe='')}", _start(arguments, memory))

    def wait(self, cancelled: threading.Event, report: Callable[[str], None]) -> None:
        """Waits until it listens; if it is not ours and does not listen yet, reports that at once.

        Raises `PublishError` if it ends or takes `START_SECONDS`, Closed if cancelled.
        """
        address = urlsplit(self.url)
        host, port = address.hostname or HOST, address.port or PORTS[address.scheme]
        deadline = time.monotonic() + START_SECONDS
        reported = self._process is not None  # ours takes a moment to start
        # Before connecting: with no viewer to connect to, rerun would delay our exit.
        while not listens(host, port):
            if not reported:
                report(
                    f"Rerun: no viewer listens at {host}:{port} yet; waiting {START_SECONDS:g} s for it (`rerun "
                    f"--port {port}` starts one there)"
                )
                reported = True
            if self._process is not None and self._process.poll() is not None:
                raise PublishError("the viewer ended while starting (spawn needs a display, --rerun serve does not)")
            if time.monotonic() > deadline:
                raise PublishError(f"no viewer was listening at {host}:{port} after {START_SECONDS:g} s")
            if cancelled.wait(0.1):
                raise Closed("closed while the viewer was starting")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # it has nothing to save
            self._process.wait()


def check_memory(text: str) -> None:
    """Raises ConfigError if rerun's viewer would not accept this as an amount of memory."""
    if re.fullmatch(r"\d+(\.\d+)?\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB|%)", text) is None:
        raise ConfigError(f"--rerun-memory {text!r} is not an amount of memory; write 2GB, 500MB or 25%, for instance")


def _start(arguments: list[str], memory: str) -> subprocess.Popen[bytes]:
    program = find_viewer()
    if program is None:
        raise PublishError("rerun's viewer is not installed here; use --rerun save=FILE.rrd, or off")
    common = [os.fspath(program), "--bind", HOST, "--server-memory-limit", memory]
    quiet = subprocess.DEVNULL
    # In its own session, so that Ctrl-C does not reach it: a window outlives us, and `stop` ends a server.
    return subprocess.Popen([*common, *arguments], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:  # refused, no answer in time, no route, or a name that nobody knows yet
        return False


def _free_port(wanted: int) -> int:
    """`wanted` if it is free, otherwise another port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
