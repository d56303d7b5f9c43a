"""A sink that writes files in its own thread, in order: `publish` puts a step into a backlog and never waits.

Steps that do not fit into the backlog are dropped and counted. An error in that thread ends the writing with one
reported line, never the tracker.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from online_tapir.live.sink import Sink
from online_tapir.mailbox import Backlog, Closed
from online_tapir.recording.steps import Source, TrackedFrame, Writer
from online_tapir.records import Frame, Queries, Tracks

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream

BACKLOG_BYTES = 256 << 20  # of pictures: nine seconds at 640x480 and 30 fps, one at 1920x1080
LEAST_BACKLOG = 4  # frames, of any size
CLOSE_SECONDS = 10.0


class WriterSink(Sink):
    """Passes each step to `writer`, in its own thread; `title` names it in reports, for example "the recording X".

    `report` receives a line if writing ends early, and at the end a line if frames are missing. A `live` writer shows
    the newest frames and misses others in silence. With `close_s` None the end waits until all is written. Frames are
    written after `publish` returns: do not modify `frame.rgb` afterwards.
    """

    def __init__(
        self,
        writer: Writer,
        title: str,
        *,
        report: Callable[[str], None] = print,
        backlog_bytes: int = BACKLOG_BYTES,
        live: bool = False,
        close_s: float | None = CLOSE_SECONDS,
    ) -> None:
        self._writer = writer
        self._title = title
        self._report = report
        self._backlog_bytes = 0 if live else backlog_bytes
        self._live = live
        self._close_s = close_s
        self._box: Backlog[TrackedFrame] | None = None  # None until the size of a frame is known
        self._thread: threading.Thread | None = None
        self._named: list[Queries] = []
        self._closed = False

    @property
    def dropped(self) -> int:
        """Frames that are missing because they came faster than they could be written."""
        return 0 if self._box is None else self._box.dropped

    @property
    def ended(self) -> bool:
        """Whether writing has ended early, after an error."""
        return self._thread is not None and not self._thread.is_alive() and not self._closed

    def begin(self, stream: "Stream") -> None:
        """Tells the writer the source, before the first frame."""
        camera = stream.camera
        self._writer.begin(Source(camera.name, camera.description, camera.live, camera.fps))

    def named(self, camera: str, queries: Sequence[Queries]) -> None:
        """Takes points whose first tracks come with the next frame published."""
        self._named.extend(queries)

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        """Queues the step for the thread without waiting; does nothing once writing has ended."""
        box = self._box or self._start(frame)
        dropped = box.dropped
        try:
            box.offer(TrackedFrame(frame, tracks, tuple(self._named), dropped))
        except Closed:
            self._named.clear()
            return
        if box.dropped == dropped:  # otherwise its points go with the next step
            self._named.clear()

    def close(self) -> None:
        """Writes what is left, for at most `close_s`, and ends. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._thread is None or self._box is None:
            self._end("no frame came")
            return
        self._box.close()
        wait_s = CLOSE_SECONDS if self._close_s is None else self._close_s
        self._thread.join(wait_s)
        if self._thread.is_alive() and self._close_s is None:
            self._report(f"{self._title} is still being written")
            self._thread.join()
        elif self._thread.is_alive():
            self.give_up(wait_s)
        if self.dropped and not self._live:
            self._report(f"{self._title} lacks {self.dropped} frames: they came faster than they could be written")

    def give_up(self, waited_s: float) -> None:
        """Reports that the program ends before all is written."""
        self._report(f"{self._title} was still busy after {waited_s:g} s; its last frames are missing")

    def _start(self, frame: Frame) -> Backlog[TrackedFrame]:
        self._box = Backlog(max(LEAST_BACKLOG, self._backlog_bytes // frame.rgb.nbytes))
        self._thread = threading.Thread(target=self._run, args=(self._box,), name=self._title, daemon=True)
        self._thread.start()
        return self._box

    def _run(self, box: Backlog[TrackedFrame]) -> None:
        end = "the run ended"
        try:
            while True:
                self._writer.write(box.take())
        except Closed:
            pass
        except Exception as error:  # after any error the tracker continues
            box.close()
            end = " ".join(str(error).split())
            self._report(f"{self._title} ended: {end}; tracking goes on")
            with suppress(Closed):
                while True:  # frees a lot of memory
                    box.take()
        self._end(end)

    def _end(self, end: str) -> None:
        try:
            self._writer.close(end, self.dropped)
        except OSError as error:
            self._report(f"{self._title} could not be closed: {error}; it is readable up to there")
        except Exception as error:  # such as memory that does not suffice: the run still ends in order
            self._report(f"{self._title} could not be written: {str(error) or type(error).__name__}")
