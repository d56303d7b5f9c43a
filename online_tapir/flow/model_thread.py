"""One thread that runs the models of several trackers in turn, so that no camera starves and none waits for another."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

CLOSE_SECONDS = 5.0

Work = Callable[[], None]


class Lane(Protocol):
    """A tracker that shares the thread. Its methods are called while `changed` is held."""

    def next_work(self) -> Work | None:
        """What to run now, outside the lock; None while there is nothing."""
        ...

    def failed(self, error: BaseException) -> None:
        """Its work raised an error; it is not asked for more."""
        ...


class ModelThread:
    """Takes work from its lanes in turn: a lane that has just been served is asked last."""

    def __init__(self) -> None:
        self.changed = threading.Condition()  # of anything that a lane or its caller waits for
        self._lanes: deque[Lane] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def lanes(self) -> int:
        """How many trackers share the thread."""
        return len(self._lanes)

    def join(self, lane: Lane) -> None:
        """Serves a lane from now on."""
        with self.changed:
            self._lanes.append(lane)

    def leave(self, lane: Lane) -> None:
        """Serves a lane no longer. May be called twice."""
        with self.changed:
            if lane in self._lanes:
                self._lanes.remove(lane)
            self.changed.notify_all()

    def close(self) -> None:
        """Ends the thread after its current work. May be called twice."""
        with self.changed:
            self._closing = True
            self.changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._closing or self._find())
                if self._closing:
                    return
                lane, work = self._next
                self._lanes.remove(lane)
                self._lanes.append(lane)
            try:
                work()
            except BaseException as error:
                with self.changed:
                    if lane in self._lanes:
                        self._lanes.remove(lane)
                    lane.failed(error)
                    self.changed.notify_all()

    def _find(self) -> bool:
        """Whether a lane has work; the first one's is kept in `_next`."""
        for lane in self._lanes:
            work = lane.next_work()
            if work is not None:
                self._next = lane, work
                return True
        return False
