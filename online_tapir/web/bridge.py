"""Between the tracking thread and the thread that serves the page: the newest moments one way, requests the other."""

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from online_tapir.control.desk import Desk
from online_tapir.control.protocol import ControlError
from online_tapir.drawing.look import ColorMode
from online_tapir.drawing.painting import Palette
from online_tapir.live.status import Rolling
from online_tapir.records import Frame, Tracks
from online_tapir.web.messages import Moment, Standing
from online_tapir.wire.messages import Heartbeat

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream

ANSWER_SECONDS = 10.0  # longest wait for the tracking thread
REQUESTS_A_FRAME = 8
NS_A_FRAME = 5_000_000  # after that, the remaining requests wait for the next frame


@dataclass(frozen=True, slots=True)
class _Asked:
    sender: str
    body: dict[str, Any]
    may_change: bool
    future: "asyncio.Future[dict[str, Any]]"


class Bridge:
    """The tracking thread calls `begin`, `end`, `serve`, `publish` and `beat`, the serving thread everything else."""

    def __init__(self, desk: Desk, color: ColorMode, *, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._desk = desk
        self._color = color
        self._monotonic_ns = monotonic_ns
        self._numbers = itertools.count(1)
        self._palettes: dict[str, Palette] = {}
        self._rates: dict[str, Rolling] = {}
        self._requests: SimpleQueue[_Asked] = SimpleQueue()
        # Written by the tracking thread and read by the other; values are replaced, never modified.
        self.newest: dict[str, Moment] = {}
        self.heartbeats: dict[str, Heartbeat] = {}
        self.cameras: tuple[str, ...] = ()  # those that run, by name
        # Of the serving thread.
        self.viewers = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Event | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """The serving thread's loop runs."""
        self._loop, self._news = loop, asyncio.Event()

    @property
    def news(self) -> asyncio.Event:
        """Is set by the next moment or heartbeat. Take it before you look at what is there, then nothing is missed."""
        assert self._news is not None, "the loop has not started"
        return self._news

    async def ask(self, sender: str, body: dict[str, Any], *, may_change: bool) -> dict[str, Any]:
        """The result of a request of the control protocol. Raises ControlError."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._requests.put(_Asked(sender, body, may_change, future))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await future
        except TimeoutError as error:
            raise ControlError("no_answer", f"the run gave no answer in {ANSWER_SECONDS:g} s") from error

    def begin(self, stream: "Stream") -> None:
        self._desk.streams[stream.name] = stream
        self._palettes[stream.name] = Palette(self._color)
        self._rates[stream.name] = Rolling()
        self._list()

    def end(self, stream: "Stream") -> None:
        for of_cameras in (self._desk.streams, self._palettes, self._rates, self.newest, self.heartbeats):
            of_cameras.pop(stream.name, None)
        self._list()

    def _list(self) -> None:
        self.cameras = tuple(sorted(self._rates))
        self._tell()

    def serve(self, stream: "Stream") -> None:
        """Carries out waiting requests, up to the limits of a frame."""
        begun_ns = self._monotonic_ns()
        for _ in range(REQUESTS_A_FRAME):
            if self._monotonic_ns() - begun_ns > NS_A_FRAME:
                return
            try:
                asked = self._requests.get_nowait()
            except Empty:
                return
            stream.requests += 1
            try:
                result = self._desk.answer(asked.sender.encode(), asked.body, stream, may_change=asked.may_change)
                self._call(_settle, asked.future, result)
            except ControlError as error:
                self._call(_settle, asked.future, error)

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        """Leaves the frame for the viewers; without any it costs nothing."""
        camera = tracks.camera
        rate = self._rates[camera]
        rate.add(self._monotonic_ns(), 0.0)
        if not self.viewers:
            self.newest.pop(camera, None)  # a frame is large
            return
        stream = self._desk.streams[camera]
        colors = self._palettes[camera].colors(tracks)
        standing = _standing(stream, rate.rate())
        self.newest[camera] = Moment(next(self._numbers), frame, tracks, colors, standing)
        self.heartbeats.pop(camera, None)
        self._tell()

    def beat(self, heartbeat: Heartbeat) -> None:
        self.heartbeats[heartbeat.camera] = heartbeat
        self._tell()

    def _tell(self) -> None:
        if self.viewers:
            self._call(self._wake)

    def _wake(self) -> None:
        """Wakes all who wait now."""
        self.news.set()
        self._news = asyncio.Event()

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


def _standing(stream: "Stream", fps: float) -> Standing:
    tracker = stream.tracker
    inspected = tracker.inspected
    return Standing(
        state=stream.state,
        inspected=-1 if inspected is None else inspected,
        replenish=stream.replenishing is not None,
        recording=stream.recorder is not None and bool(stream.recorder.folder),
        room=tracker.max_points - len(tracker.ids),
        oldest=min(tracker.frame_ids, default=-1),
        fps=fps,
        reason=stream.health.reason,
    )


def _settle(future: "asyncio.Future[dict[str, Any]]", outcome: dict[str, Any] | ControlError) -> None:
    if future.done():
        return
    if isinstance(outcome, ControlError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
