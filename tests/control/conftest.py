"""A run that is controlled: a stand-in for the tracker, a stream, and its server, served by hand or from a thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.camera import Capture, SyntheticCamera
from online_tapir.control.server import ControlServer
from online_tapir.errors import QueryError
from online_tapir.live.saves import Outcome
from online_tapir.live.stream import Stream
from online_tapir.records import Frame, Tracks


class ListTracker:
    """Keeps ids as a tracker does, and tracks nothing."""

    def __init__(self, max_points: int) -> None:
        self.max_points = max_points
        self.frame_ids = [3, 4, 5]
        self.ids = np.empty(0, np.int32)
        self.inspected: int | None = None
        self._added = 0

    def add(self, xy: NDArray[np.float32], frame_id: int | None = None) -> NDArray[np.int32]:
        ids = np.arange(self._added, self._added + len(xy), dtype=np.int32)
        self._added += len(xy)
        self.ids = np.concatenate([self.ids, ids])
        return ids

    def remove(self, ids: NDArray[np.int32]) -> None:
        self.ids = np.setdiff1d(self.ids, ids)

    def clear(self) -> None:
        self.ids = self.ids[:0]

    def inspect(self, id: int | None) -> None:
        if id is not None and id not in self.ids:
            raise QueryError(f"there is no point {id}")
        self.inspected = id


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
    """Frame 5 of 49x33 has been tracked, without a point."""
    rgb, none = np.zeros((33, 49, 3), np.uint8), np.zeros(0, np.float32)
    tracker: Any = ListTracker(100_000)
    stream = Stream(Capture(SyntheticCamera([rgb])), tracker, threading.Event())
    tracks = Tracks(5, 5, 5, 49, 33, np.zeros(0, np.int32), none.reshape(0, 2), none.astype(bool), none, none)
    stream.published(Frame(5, 5, 5, rgb), tracks)
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
