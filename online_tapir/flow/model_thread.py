"""One thread that runs the models of several trackers, so that no camera starves and none waits for another.

Lanes of one rig that have a frame are one batch where that pays; the others are served in turn.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from online_tapir.records import Frame, Tracks

if TYPE_CHECKING:
    from online_tapir.tracking.exported import ExportedTracker
    from online_tapir.tracking.tracker import Tracker

CLOSE_SECONDS = 5.0


def _nothing() -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What a lane wants done now: something first, then perhaps a frame tracked, then something with its tracks."""

    first: Callable[[], None] = _nothing
    frame: "tuple[Tracker | ExportedTracker, Frame] | None" = None
    then: Callable[[Tracks | None], None] = lambda tracks: None


class Served(Protocol):
    """A tracker that shares the thread. Its methods are called while `changed` is held."""

    @property
    def batch(self) -> object:
        """Trackers with the same batch are served together."""
        ...

    @property
    def is_asked(self) -> bool:
        """Whether its caller waits for something: it is served before others."""
        ...

    def next_work(self) -> Work | None:
        """What to run now, outside the lock; None while there is nothing."""
        ...

    def failed(self, error: BaseException) -> None:
        """Its work raised an error; it is not asked for more."""
        ...


class ModelThread:
    """Takes work from its trackers in turn: the one that was served last comes last, one whose caller waits first."""

    def __init__(self) -> None:
        self.changed = threading.Condition()  # of anything that a tracker or its caller waits for
        self._served: deque[Served] = deque()
        self._found: list[tuple[Served, Work]] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def turns(self) -> int:
        """How many trackers, or batches of them, share the thread in turn."""
        with self.changed:
            return len({id(served.batch) for served in self._served})

    def join(self, served: Served) -> None:
        """Serves a tracker from now on."""
        with self.changed:
            self._served.append(served)

    def leave(self, served: Served) -> None:
        """Serves a tracker no longer. May be called twice."""
        with self.changed:
            if served in self._served:
                self._served.remove(served)
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
                found, self._found = self._found, []
                for served, _ in found:
                    self._served.remove(served)
                    self._served.append(served)
            self._do(found)

    def _do(self, found: list[tuple[Served, Work]]) -> None:
        ready = [(served, work) for served, work in found if self._tried(served, work.first)]
        frames: list[Any] = [work.frame for _, work in ready if work.frame is not None]  # of one batch, so of one kind
        try:
            answers = iter(frames[0][0].together(frames) if frames else [])
        except BaseException as error:
            for served, _ in ready:
                self._fail(served, error)
            return
        for served, work in ready:
            tracks = None if work.frame is None else next(answers)
            self._tried(served, lambda work=work, tracks=tracks: work.then(tracks))  # type: ignore[misc]

    def _tried(self, served: Served, action: Callable[[], None]) -> bool:
        """Whether the action went well; the tracker is told if not."""
        try:
            action()
        except BaseException as error:
            self._fail(served, error)
            return False
        return True

    def _fail(self, served: Served, error: BaseException) -> None:
        with self.changed:
            if served in self._served:
                self._served.remove(served)
            served.failed(error)
            self.changed.notify_all()

    def _find(self) -> bool:
        """Whether a tracker has work; that of the first one, and of those in its batch, is kept in `_found`."""
        for first in sorted(self._served, key=lambda served: not served.is_asked):
            work = first.next_work()
            if work is None:
                continue
            self._found = [(first, work)]
            for other in self._served:
                if other is not first and other.batch is first.batch and (more := other.next_work()) is not None:
                    self._found.append((other, more))
            return True
        return False
