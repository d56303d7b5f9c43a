"""Saves the points of a run without delaying it: on request, at intervals, and at the end.

The points are copied between two frames, which takes milliseconds; a separate thread writes the copy, however slow the
disk is. If several copies wait for that thread, only the newest is written.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from online_tapir.errors import OnlineTapirError, StateError
from online_tapir.flow.tracker import FlowTracker
from online_tapir.live.saves import Outcome, Save
from online_tapir.live.sink import Sink
from online_tapir.mailbox import Closed, Mailbox
from online_tapir.points.objects import Objects
from online_tapir.records import Tracks
from online_tapir.tracking import state_file
from online_tapir.tracking.exported import ExportedTracker
from online_tapir.tracking.state_file import SavedState
from online_tapir.tracking.tracker import Tracker

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream

CLOSE_SECONDS = 10.0


class StateKeeper(Sink):
    """Saves the points of `tracker` to `path` on request, every `every_s`, and at the end of the `with`.

    What their `objects` are measured against is saved with them.

    A failed save is reported, and tracking continues. Raises StateError at once if `path` cannot be written or is some
    other file, and at the end if the last save fails, unless another error ended the run.
    """

    def __init__(
        self,
        path: Path,
        tracker: Tracker | FlowTracker | ExportedTracker,
        *,
        objects: Objects | None = None,
        every_s: float | None = None,
        report: Callable[[str], None] = print,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        write: Callable[[Path, SavedState], None] | None = None,
    ) -> None:
        state_file.check_place(path)
        self.outcome = Outcome()
        self._path = path
        self._tracker = tracker
        self._objects = objects
        self._every_ns = None if every_s is None else int(every_s * 1e9)
        self._report = report
        self._monotonic_ns = monotonic_ns
        self._write = write or state_file.write
        self._asked = 0
        self._last: Tracks | None = None  # the tracks at the last save that was due
        self._due_ns = monotonic_ns() + (self._every_ns or 0)
        self._ending = False
        self._box: Mailbox[Save] = Mailbox()
        self._thread = threading.Thread(target=self._run, name="saving the points", daemon=True)

    def save(self) -> Save:
        """Queues a copy of the points for writing; see `outcome`. Raises StateError before the first frame."""
        state = self._tracker.saved_state()
        if self._objects is not None:
            state = replace(state, objects=self._objects.references)
        save = Save(self._asked + 1, state)
        self._asked = save.number
        self._box.offer(save)
        return save

    def serve(self, stream: "Stream") -> None:
        """Saves if a save is due and a frame has been tracked since the last one; called between frames."""
        if self._every_ns is None or stream.tracks in (None, self._last) or self._monotonic_ns() < self._due_ns:
            return
        self._due_ns = self._monotonic_ns() + self._every_ns
        self._last = stream.tracks
        with suppress(OnlineTapirError):  # what is wrong with the model is told with its next frame
            self.save()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Saves a last time, except after an unexpected error, which may have left a frame half tracked."""
        self._ending = True
        last = None
        try:
            if error is None or isinstance(error, OnlineTapirError):
                # No frame came, or the model failed and its error ends the run: what was saved before stays.
                with suppress(StateError if error is None else OnlineTapirError):
                    last = self.save()
        finally:
            self._box.close()
            self._thread.join(CLOSE_SECONDS)
        if last is None:
            return
        failure = self.outcome.error
        if self.outcome.number < last.number:
            failure = f"{self._path} was still being written after {CLOSE_SECONDS:g} s; it may be as it was before"
        if failure and error is None:
            raise StateError(failure)
        self._report(failure or f"{last.state.points} points of frame {last.state.frame_id} saved to {self._path}")

    def _run(self) -> None:
        with suppress(Closed):
            while True:
                save = self._box.take()
                before, self.outcome = self.outcome, self._outcome(save)
                if self.outcome.error not in ("", before.error) and not self._ending:
                    self._report(f"{self.outcome.error}; tracking goes on")

    def _outcome(self, save: Save) -> Outcome:
        try:
            self._write(self._path, save.state)
        except StateError as error:
            return Outcome(save.number, str(error))
        except Exception as error:  # a failed save must not stop the tracker
            return Outcome(save.number, f"the points cannot be saved to {self._path}: {error!r}")
        return Outcome(save.number)
