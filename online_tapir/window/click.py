"""A window that shows the live picture with its points, and controls the run by mouse and keyboard.

OpenCV's windows need a single thread, on macOS the main one, and a window that is dragged or remote blocks that thread.
So the window runs on the main thread and tracking on another (`ClickWindow.beside`). `publish` leaves the newest frame
here without waiting. `serve` carries out the clicks between two frames, using the commands of the control socket.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from queue import SimpleQueue
from typing import Any, Protocol

import cv2

from online_tapir.control.commands import obey
from online_tapir.control.protocol import ControlError, Request
from online_tapir.drawing.look import DEFAULT_COLOR, ColorMode
from online_tapir.drawing.painting import Palette, Picture, Trails
from online_tapir.errors import PublishError
from online_tapir.live.sink import Sink
from online_tapir.live.status import Rolling
from online_tapir.live.stream import Stream
from online_tapir.points.placement import Grid
from online_tapir.records import Frame, Tracks
from online_tapir.window import scene as window_scene
from online_tapir.window.scene import FIRST_SIZE, Fit, Shown, Standing, View, paint_view, waiting_picture

TITLE = "online-tapir"
SHOWN_FPS = 30  # at most
PAINTED_SHARE = 0.25  # of one core, at most: 256 points with trails take 17 ms at 640x480
POLL_MS = 10  # how long a click may wait to be noticed
NOTICE_NS = 4_000_000_000
SERVED_S = 2.0  # until a run that was asked to stop has
PROBE_SECONDS = 30.0

GRID = (8, 6)  # points along the longer and the shorter side of a picture


class Screen(Protocol):
    """A window on a screen; use it from one thread."""

    @property
    def room(self) -> tuple[int, int] | None:
        """The space for a picture in pixels, (width, height); None if it is not known."""

    @property
    def closed(self) -> bool: ...
    def resize(self, size: tuple[int, int]) -> None: ...
    def show(self, picture: Picture) -> None: ...
    def poll(self, ms: int) -> int:
        """Delivers clicks for about `ms` (0: only pending ones); returns the code of a key, or -1."""

    def close(self) -> None: ...


OnMouse = Callable[[int, int, int], None]  # OpenCV's event, column and row of the picture


class OpenCVScreen:
    """OpenCV's own window, which reports columns and rows of the picture at any window size."""

    def __init__(self, on_mouse: OnMouse) -> None:
        os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")  # it warns about fonts that nothing here uses
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.setMouseCallback(TITLE, lambda event, x, y, flags, _: on_mouse(event, x, y))
        except cv2.error as error:
            raise no_window(str(error)) from error

    @property
    def room(self) -> tuple[int, int] | None:
        _, _, width, height = cv2.getWindowImageRect(TITLE)
        return (width, height) if width > 0 and height > 0 else None

    @property
    def closed(self) -> bool:
        return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1

    def resize(self, size: tuple[int, int]) -> None:
        cv2.resizeWindow(TITLE, *size)

    def show(self, picture: Picture) -> None:
        cv2.imshow(TITLE, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def poll(self, ms: int) -> int:
        return cv2.waitKey(ms) if ms else cv2.pollKey()

    def close(self) -> None:
        cv2.destroyAllWindows()


class ClickWindow(Sink):
    """A sink that shows each frame it has time for, and a controller of the run.

    Call `publish` and `serve` from the tracking thread, `beside` from the main one. Raises PublishError if no window
    can be opened.
    """

    def __init__(
        self,
        *,
        color: ColorMode = DEFAULT_COLOR,
        open_screen: Callable[[OnMouse], Screen] | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if open_screen is None:
            check_windows()
        self._open_screen: Callable[[OnMouse], Screen] = open_screen or OpenCVScreen
        self._monotonic_ns = monotonic_ns
        self._requests: SimpleQueue[Request] = SimpleQueue()
        self._published = Rolling()
        # Written by one thread and read by the other; always replaced, never modified.
        self._newest: Shown | None = None
        self._standing = Standing()
        self._notice, self._notice_ns = "", 0
        # Used by the main thread only.
        self._on_screen: View | None = None
        self._trails = Trails()
        self._palette = Palette(color)
        self._pointer: tuple[int, int] | None = None  # last position of the mouse, column and row of the picture
        self._help = False
        self._quitting = False

    @property
    def shows_inspection(self) -> bool:
        return True

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        """Leaves the frame to be shown, without waiting; a newer one replaces it."""
        self._published.add(self._monotonic_ns(), 1.0)
        self._newest = Shown(frame, tracks, self._published.rate())

    def serve(self, stream: Stream) -> None:
        """Carries out the clicks and key presses since the last call; the window shows refusals."""
        waiting = self._standing.waiting
        while not self._requests.empty():
            request = self._requests.get()
            try:
                result = obey(stream, request)
            except ControlError as error:
                self._notice, self._notice_ns = error.message, self._monotonic_ns()
            else:
                waiting = waiting | dict(zip(result.get("ids", ()), request.arguments.get("xy", ()), strict=True))
        answered = () if stream.tracks is None else stream.tracks.ids
        ids = frozenset(stream.tracker.ids.tolist())
        waiting = {id: place for id, place in waiting.items() if id in ids and id not in answered}
        self._standing = Standing(stream.state, ids, waiting, stream.tracker.inspected)

    def beside(self, track: Callable[[], None], stop: threading.Event) -> None:
        """Runs `track` in another thread and the window in this one until `track` returns; raises what it raises.

        Sets `stop` to end `track` if the window is closed, fails or is interrupted.
        """
        with ThreadPoolExecutor(1, "tracking") as pool:
            tracking = pool.submit(track)
            try:
                self._show_until(tracking.done)
            except BaseException:
                stop.set()
                raise
            if self._quitting:
                wait([tracking], SERVED_S)
                stop.set()  # its camera may have left, and nobody serves its request
            tracking.result()

    def close(self) -> None:
        """Nothing to do: the window closes when tracking ends."""

    def _show_until(self, over: Callable[[], bool]) -> None:
        """Shows published frames and passes on clicks until `over`, or until the user quits or closes the window."""
        due_ns = 0
        with closing(self._open_screen(self._mouse)) as screen:
            screen.resize(FIRST_SIZE)
            screen.show(waiting_picture())
            while not (over() or self._quitting):
                self._press(screen.poll(POLL_MS))
                if screen.closed:
                    self._quit()
                    return
                view, now_ns = self._view(screen.room), self._monotonic_ns()
                if view is None or view == self._on_screen or now_ns < due_ns:
                    continue
                if self._on_screen is None and view.fit.shown != FIRST_SIZE:
                    screen.resize(view.fit.shown)
                screen.show(self._paint(view))
                self._press(screen.poll(0))  # clicks from before it is on the screen refer to the previous picture
                self._on_screen = view
                took_ns = self._monotonic_ns() - now_ns
                due_ns = now_ns + round(max(1e9 / SHOWN_FPS, took_ns / PAINTED_SHARE))

    def _view(self, room: tuple[int, int] | None) -> View | None:
        """The view to show now, in a window that has `room`; None before the first frame."""
        moment = self._newest
        if moment is None:
            return None
        shown = self._on_screen
        size = moment.tracks.width, moment.tracks.height
        if shown is None or shown.fit.frame != size:
            fit = Fit.at_first(size)
        elif room is None or max(abs(a - b) for a, b in zip(room, shown.fit.shown, strict=True)) <= 2:
            fit = shown.fit  # otherwise repeated rounding would make the size creep
        else:
            fit = Fit.within(size, room)
        notice = self._notice if self._monotonic_ns() - self._notice_ns < NOTICE_NS else ""
        return View(moment, self._standing, fit, notice, self._help)

    def _paint(self, view: View) -> Picture:
        tracks = view.tracks
        return paint_view(view, tracks, self._palette.colors(tracks), self._trails.follow(tracks))

    def _mouse(self, event: int, column: int, row: int) -> None:
        view, self._pointer = self._on_screen, (column, row)
        if view is None or event not in (cv2.EVENT_LBUTTONDOWN, cv2.EVENT_RBUTTONDOWN):
            return
        x, y = view.fit.to_image(column, row)
        if event == cv2.EVENT_LBUTTONDOWN:
            self._ask("add", xy=[(x, y)], frame_id=view.moment.tracks.frame_id)
        elif (id := view.nearest(x, y)) is not None:
            self._ask("remove", ids=[id])

    def _press(self, code: int) -> None:
        match chr(code & 0xFF) if code >= 0 else "":
            case "c":
                self._ask("clear")
            case " ":
                self._ask("resume" if self._standing.state == "paused" else "pause")
            case "g" if self._on_screen is not None:
                frame = self._on_screen.moment.frame
                wide = frame.rgb.shape[1] >= frame.rgb.shape[0]
                xy = Grid(*(GRID if wide else GRID[::-1])).place(frame.rgb)
                self._ask("add", xy=[(x, y) for x, y in xy.tolist()], frame_id=frame.id)
            case "i":
                self._inspect()
            case "h":
                self._help = not self._help
            case "q" | window_scene.ESCAPE:
                self._quit()

    def _inspect(self) -> None:
        """Inspects the point nearest to the mouse; stops inspecting if it is inspected already, or if there is none."""
        view, inspected = self._on_screen, self._standing.inspected
        if view is None:
            return
        nearest = None if self._pointer is None else view.nearest(*view.fit.to_image(*self._pointer))
        if nearest is not None and nearest != inspected:
            self._ask("inspect", id=nearest)
        elif inspected is not None:
            self._ask("inspect")

    def _quit(self) -> None:
        self._ask("stop")
        self._quitting = True

    def _ask(self, command: str, **arguments: Any) -> None:
        self._requests.put(Request(command, arguments))


def check_windows() -> None:
    """Raises PublishError, with advice, if OpenCV cannot open a window here."""
    framework = cv2.currentUIFramework()
    if not framework:
        raise PublishError(
            "--window: this build of OpenCV has no windows; remove opencv-python-headless and install opencv-python"
        )
    if not framework.startswith("QT"):
        return  # other frameworks raise an error when the window is opened
    # Qt ends the whole process if there is no display, so a child process tries first.
    attempt = [sys.executable, "-c", f"import cv2; cv2.namedWindow({TITLE!r})"]
    try:
        child = subprocess.run(attempt, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise no_window(f"the display did not answer for {PROBE_SECONDS:g} s") from error
    if child.returncode:
        raise no_window(child.stderr)


def no_window(found: str) -> PublishError:
    """The error, with the reason on one line and advice."""
    reason = next((line.strip() for line in found.splitlines() if line.strip()), "no reason was given")
    return PublishError(
        f"--window: no window can be opened here ({reason}); run it on the machine's desktop or through `ssh -X`, "
        "or leave --window out: --rerun serve shows the picture in a browser"
    )
