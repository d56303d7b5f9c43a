"""A run that is controlled: a stand-in for the tracker, a session, and its server, served by hand or from a thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.camera import SyntheticCamera
from online_tapir.control.server import ControlServer
from online_tapir.control.session import Session
from online_tapir.records import Frame, Tracks


class ListTracker:
    """Keeps ids as a tracker does, and tracks nothing."""

    def __init__(self, max_points: int) -> None:
        self.max_points = max_points
        self.frame_ids = [3, 4, 5]
        self.ids = np.empty(0, np.int32)
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


@pytest.fixture
def session() -> Session:
    """Frame 5 of 49x33 has been tracked, without a point."""
    rgb, none = np.zeros((33, 49, 3), np.uint8), np.zeros(0, np.float32)
    tracker: Any = ListTracker(100_000)
    session = Session(SyntheticCamera([rgb]), tracker, threading.Event())
    tracks = Tracks(5, 5, 5, 49, 33, np.zeros(0, np.int32), none.reshape(0, 2), none.astype(bool), none, none)
    session.tracked(Frame(5, 5, 5, rgb), tracks)
    return session


@pytest.fixture
def server() -> Iterator[ControlServer]:
    server = ControlServer("tcp://127.0.0.1:0")
    yield server
    server.close()


@pytest.fixture
def served() -> Callable[[ControlServer, Session], AbstractContextManager[None]]:
    """Serves from a thread, as a live run does from its loop, as long as the context lasts."""

    @contextmanager
    def served(server: ControlServer, session: Session) -> Iterator[None]:
        over = threading.Event()

        def serve() -> None:
            while not over.wait(0.001):
                server.serve(session)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    return served
