"""A run that is controlled: a stand-in for the tracker, a stream, and its server, served by hand or from a thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from online_tapir.camera import Capture, SyntheticCamera
from online_tapir.control.server import ControlServer
from online_tapir.live.saves import Outcome
from online_tapir.live.stream import Stream
from online_tapir.records import Frame
from online_tapir.testing import FakeTracker


class ListKeeper:
    """In place of what saves a run's points: nothing is done with at the first look, and all at the second."""

    def __init__(self, error: str) -> None:
        self._asked = 0
        self._outcomes = iter([Outcome()])
        self._error = error

    def save(self) -> Any:
        self._asked += 1
        return SimpleNamespace(number=self._asked, state=SimpleNamespace(frame_id=5, points=7))

    @property
    def outcome(self) -> Outcome:
        return next(self._outcomes, Outcome(self._asked, self._error))


@pytest.fixture
def keeps(stream: Stream) -> Callable[[str], None]:
    """Lets the stream save its points from now on: with what error, "" for none."""

    def keeps(error: str) -> None:
        keeper: Any = ListKeeper(error)
        stream.keeper = keeper

    return keeps


@pytest.fixture
def stream() -> Stream:
    """Frames 3, 4 and 5 of 49x33 have been tracked, without a point."""
    rgb = np.zeros((33, 49, 3), np.uint8)
    tracker: Any = FakeTracker(max_points=100_000)
    stream = Stream(Capture(SyntheticCamera([rgb])), tracker, threading.Event())
    for number in (3, 4, 5):
        frame = Frame(number, number, number, rgb)
        stream.published(frame, tracker.step(frame))
    return stream


@pytest.fixture
def server() -> Iterator[ControlServer]:
    server = ControlServer("tcp://127.0.0.1:0")
    yield server
    server.close()


@pytest.fixture
def served() -> Callable[[ControlServer, Stream], AbstractContextManager[None]]:
    """Serves from a thread, as a live run does from its loop, as long as the context lasts."""

    @contextmanager
    def served(server: ControlServer, stream: Stream) -> Iterator[None]:
        over = threading.Event()

        def serve() -> None:
            while not over.wait(0.001):
                server.serve(stream)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    return served
