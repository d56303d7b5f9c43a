"""A run with a page, in a thread: a picture that moves by a known amount, followed by a perfect tracker."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.camera import Capture
from online_tapir.clock import SystemClock
from online_tapir.live.roster import Member, Roster
from online_tapir.live.run import Run
from online_tapir.live.stream import Stream
from online_tapir.points.placement import Grid, PointSource
from online_tapir.testing import FakeTracker, sliding_pictures
from online_tapir.web.server import WebAddress, WebPage

WIDTH, HEIGHT = 320, 240
RIGHT_A_FRAME, DOWN_A_FRAME = -3.0, -1.0  # `sliding_pictures` slides the texture by these
PERIOD = 24  # pictures, after which it begins again
PATIENCE_S = 20.0
CORNERS = Grid(2, 2)


class LiveCamera:
    """Plays pictures again and again at a rate, as a camera does."""

    live = True
    size = (WIDTH, HEIGHT)
    description = "a picture that slides"

    def __init__(self, name: str = "desk", fps: float = 30.0) -> None:
        self.name = name
        self.fps = fps
        self.pictures = sliding_pictures(PERIOD, HEIGHT, WIDTH)
        self.away = threading.Event()
        self.rests = threading.Event()  # because it is away; every frame before is in the run's hands
        self.halts_at: int | None = None  # the picture after which it goes away by itself
        self.given = 0  # frames
        self._due_ns = 0
        self._clock = SystemClock()

    def grab(self) -> bool:
        if self.given % PERIOD == self.halts_at:
            self.away.set()
        while self.away.is_set():
            self.rests.set()
            time.sleep(0.01)
        self.rests.clear()
        self._due_ns = max(self._due_ns + int(1e9 / self.fps), time.monotonic_ns())
        time.sleep(max(0, (self._due_ns - time.monotonic_ns()) / 1e9))
        self.given += 1
        return True

    def retrieve(self) -> NDArray[np.uint8]:
        return self.pictures[self.given % PERIOD]

    def read(self) -> NDArray[np.uint8] | None:
        return self.retrieve() if self.grab() else None

    def close(self) -> None:
        """There is nothing to give back."""


def truth(xy: NDArray[np.float32], named_on: int, now: int) -> tuple[Any, Any]:
    """Where the texture under a point of an earlier frame is now."""
    steps = (now + 1) % PERIOD - (named_on + 1) % PERIOD
    moved = xy + np.array([RIGHT_A_FRAME, DOWN_A_FRAME]) * steps
    inside = bool(((moved >= 0) & (moved <= (WIDTH, HEIGHT))).all())
    return moved.astype(np.float32), inside


class Served:
    """A run of some cameras with a page."""

    def __init__(self, cameras: list[LiveCamera], page: WebPage, points: PointSource, reports: list[str]) -> None:
        self.page = page
        self.reports = reports
        self.roster = Roster(report=reports.append)
        self.stop = threading.Event()
        self.cameras = cameras
        self.trackers = [FakeTracker(truth, max_points=64, window=300) for _ in cameras]
        self.streams = [
            Stream(Capture(camera, report=reports.append), tracker, self.stop, points=points, report=reports.append)  # type: ignore[arg-type]
            for camera, tracker in zip(cameras, self.trackers, strict=True)
        ]
        for stream in self.streams:
            stream.shows_inspection = lambda: page.shows_inspection

    def rest(self, which: int = 0) -> int:
        """Lets a camera go away, and waits until its last frame is tracked; the number of that."""
        camera, stream = self.cameras[which], self.streams[which]
        camera.away.set()
        self.wait_for(camera.rests.is_set, "the camera's rest")
        last = camera.given - 1
        self.wait_for(lambda: stream.tracks is not None and stream.tracks.frame_id == last, "its last frame")
        return last

    def wait_for(self, told: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := told()):
            assert time.monotonic() < deadline, f"{what} never came"
            time.sleep(0.01)
        return found


@contextmanager
def serving(
    names: tuple[str, ...] = ("desk",), points: PointSource = CORNERS, fps: float = 30.0, **settings: Any
) -> Iterator[Served]:
    reports: list[str] = []
    address = WebAddress(settings.pop("host", "127.0.0.1"), settings.pop("port", 0))
    page = WebPage(address, report=reports.append, **settings)
    served = Served([LiveCamera(name, fps) for name in names], page, points, reports)
    members = [Member(stream) for stream in served.streams]
    served.roster.begin(members)
    thread = threading.Thread(target=Run(members, [page], served.stop, roster=served.roster).go, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.stop.set()
        thread.join(PATIENCE_S)
        page.close()


@pytest.fixture
def serve() -> Callable[..., Any]:
    return serving
