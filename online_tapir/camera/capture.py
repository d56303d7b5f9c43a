"""The capture thread: it timestamps and numbers frames at the grab and puts them into a mailbox.

A live source that can be reopened is read by another thread; the capture thread watches it and abandons it if it hangs.
"""

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.camera.base import Camera, warn
from online_tapir.camera.reconnect import Health, Reconnect
from online_tapir.clock import NS, Clock, SystemClock
from online_tapir.errors import CameraError, FrameError
from online_tapir.mailbox import Closed, Mailbox
from online_tapir.records import Frame

CLOSE_TIMEOUT_S = 0.4  # a read that blocks for longer is left to its daemon thread
OPEN_TIMEOUT_S = 15.0  # a driver may take ten seconds to report that there is no first frame
CORRUPT_IN_A_ROW = 30  # frames; this many in a row are a failure
STEADY_FRAMES = 10  # frames after which back-off resets; a source that fails after each first frame waits ever longer
MOST_HUNG = 3  # most readers of one source that may hang at a time
WATCHES = 5  # a time-out is this many empty watches: a process that was suspended sees one of them, not a stall

CORRUPT = (CameraError, FrameError, cv2.error)
FAILED = (*CORRUPT, OSError)


class StallError(CameraError):
    """A source that is open, or being opened, delivers nothing."""


class Reader:
    """One opening of the source and its state, shared by the reading and the watching thread."""

    def __init__(self, open_: Callable[[], Camera]) -> None:
        self.open = open_
        self.opened = False
        self.frames = 0  # delivered
        self.reported: set[str] = set()
        self.abandoned = False
        self.ended = False
        self.error: BaseException | None = None


class Capture:
    """Reads a camera in its own thread, which also closes it.

        with Capture(open_camera("0"), report=print) as capture:
            frame = capture.mailbox.take(timeout=1.0)

    Frames are numbered from 0 as they are grabbed, including dropped ones: a gap between ids counts the drops. A live
    camera drops the oldest; a file waits and drops nothing. `mailbox.take` raises the camera's own error if reading
    failed, and `Closed` after the last frame. A frame whose size differs from the first is scaled to it; this is
    reported once per opening. A frame of a live camera that cannot be decoded is dropped; many in a row are a failure.

    With reopen, a live camera that fails or stalls is reopened according to reconnect. Meanwhile `health` shows its
    state, and no frames are invented. After a reconnect the numbering continues but skips one id, which counts as
    dropped and stands for all missed frames. Loss and return are reported. A read or an opening that blocks cannot be
    interrupted: it is left to its daemon thread, which closes the camera once it unblocks, and the camera is opened
    again meanwhile, unless three attempts hang. When the attempts run out, `mailbox.take` raises the last error.
    """

    def __init__(
        self,
        camera: Camera,
        *,
        reopen: Callable[[], Camera] | None = None,
        reconnect: Reconnect | None = None,
        report: Callable[[str], None] = warn,
        clock: Clock | None = None,
    ) -> None:
        self.camera = camera
        self.mailbox: Mailbox[Frame] = Mailbox()
        self._reopen = reopen if camera.live else None
        self._reconnect = reconnect or Reconnect()
        self._report = report
        self._clock = clock or SystemClock()
        self._changed = threading.Condition()  # a reader opened, ended or is abandoned, or close() was called
        self._next_id = 0
        self._missed = 0
        self._size = camera.size
        self._hung: list[Reader] = []
        self._health = Health("streaming", self._clock.monotonic_ns())
        self._thread = threading.Thread(target=self._run, name=f"capture {camera.name}", daemon=True)
        self._started = False

    @property
    def dropped(self) -> int:
        """Numbered frames that were never taken: replaced by a newer one, corrupt, or missed during a reconnect."""
        return self.mailbox.dropped + self._health.corrupt + self._missed

    @property
    def health(self) -> Health:
        """The current state of the camera; never blocks."""
        return self._health

    def __enter__(self) -> "Capture":
        self._started = True
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops reading. Returns within a second even if the camera blocks; it is then closed once it unblocks."""
        self.mailbox.close()
        with self._changed:
            self._changed.notify_all()
        if self._started:
            self._thread.join(CLOSE_TIMEOUT_S)  # the thread waits half of that for its reader
        else:
            self.camera.close()

    def _run(self) -> None:
        first = Reader(lambda: self.camera)
        if self._reopen is None:
            self._read(first)
            error = first.error
        else:
            error = self._keep_reading(first, self._reopen)
        if error is None or self.mailbox.closed:
            self.mailbox.close()
        else:
            self._note_loss(error)
            self.mailbox.fail(error)

    def _keep_reading(self, reader: Reader, reopen: Callable[[], Camera]) -> BaseException | None:
        """Runs one reader after another until the end or close(). Returns the final error, if any."""
        waits = self._reconnect.waits()
        while isinstance(error := self._watch(reader), FAILED):
            if reader.frames >= STEADY_FRAMES:
                waits = self._reconnect.waits()
            wait_s = next(waits, None)
            if wait_s is None:
                break
            if self._note_loss(error):
                self._report(f"{error}; it is being opened again")
            with self._changed:
                if self._changed.wait_for(lambda: self.mailbox.closed, wait_s):
                    return None
            reader = Reader(reopen)
        return error

    def _watch(self, reader: Reader) -> BaseException | None:
        """Runs reader until it ends and returns its error, or abandons it when it stalls and returns a StallError."""
        self._hung = [other for other in self._hung if not other.ended]
        if len(self._hung) == MOST_HUNG:
            return StallError(f"{MOST_HUNG} attempts to read {self.camera.name} hang; see that it is still there")
        thread = threading.Thread(target=self._read, args=(reader,), name=f"read {self.camera.name}", daemon=True)
        thread.start()
        empty = 0
        while empty < WATCHES:
            opened, frames, timeout_s = reader.opened, reader.frames, self._timeout_s(reader)
            if self._is_over_within(timeout_s / WATCHES, reader, opened):
                thread.join(CLOSE_TIMEOUT_S / 2)
                return reader.error
            empty = empty + 1 if (reader.opened, reader.frames) == (opened, frames) else 0
        with self._changed:
            reader.abandoned = True
        self._hung.append(reader)
        does = "has given no frame" if reader.opened else "has not opened"
        return StallError(f"{self.camera.name} {does} for {timeout_s:g} s; see that it is still there")

    def _is_over_within(self, seconds: float, reader: Reader, opened: bool) -> bool:
        """True if reader has ended or close() was called; returns early when it opens, as its time-out then changes."""
        with self._changed:
            self._changed.wait_for(lambda: reader.ended or self.mailbox.closed or reader.opened is not opened, seconds)
        return reader.ended or self.mailbox.closed

    def _timeout_s(self, reader: Reader) -> float:
        stall_s = self._reconnect.stall_timeout_s
        return stall_s if reader.opened else max(OPEN_TIMEOUT_S, 3 * stall_s)

    def _read(self, reader: Reader) -> None:
        try:
            with closing(reader.open()) as camera:
                with self._changed:
                    reader.opened = True
                    self._changed.notify_all()
                self._read_all(camera, reader)
        except Closed:
            pass  # close() was called, or this reader was abandoned
        except BaseException as error:
            reader.error = error
        finally:
            with self._changed:
                reader.ended = True
                self._changed.notify_all()

    def _read_all(self, camera: Camera, reader: Reader) -> None:
        corrupt = 0  # in a row
        while not (reader.abandoned or self.mailbox.closed) and camera.grab():
            captured_ns, captured_unix_ns = self._clock.monotonic_ns(), self._clock.unix_ns()
            try:
                rgb = self._keep_size(camera.retrieve(), reader)
            except CORRUPT as error:
                corrupt += 1
                if not self.camera.live:
                    raise
                self._skip(error, reader)
                if corrupt == CORRUPT_IN_A_ROW:
                    raise
            else:
                corrupt = 0
                self._deliver(rgb, captured_ns, captured_unix_ns, reader)

    def _deliver(self, rgb: NDArray[np.uint8], captured_ns: int, captured_unix_ns: int, reader: Reader) -> None:
        if not self.camera.live:  # put may wait for room; no other reader delivers
            self.mailbox.put(Frame(self._next_id, captured_ns, captured_unix_ns, rgb))
            self._next_id += 1
            return
        with self._changed:
            self._refuse_if_abandoned(reader)
            before = self._health
            if before.state != "streaming":
                self._note_return(captured_ns)
            self.mailbox.offer(Frame(self._next_id, captured_ns, captured_unix_ns, rgb))
            self._next_id += 1
            reader.frames += 1
        if before.state != "streaming":
            away_s = (captured_ns - before.since_ns) / NS
            self._report(f"{self.camera.name} gives frames again, after {away_s:.1f} s")

    def _skip(self, error: Exception, reader: Reader) -> None:
        """Counts a frame that cannot be used; it uses up a number."""
        with self._changed:
            self._refuse_if_abandoned(reader)
            self._next_id += 1
            self._health = replace(self._health, corrupt=self._health.corrupt + 1)
        self._report_once("corrupt", f"{error}; such frames are dropped", reader)

    def _refuse_if_abandoned(self, reader: Reader) -> None:
        if reader.abandoned:
            raise Closed("this reader was abandoned; another may be delivering")

    def _note_loss(self, error: BaseException) -> bool:
        """Updates health; True if the reason has changed."""
        with self._changed:
            before = self._health
            self._health = replace(
                before,
                state="stalled" if isinstance(error, StallError) else "lost",
                since_ns=self._clock.monotonic_ns() if before.state == "streaming" else before.since_ns,
                reason=str(error),
            )
        return before.reason != str(error)

    def _note_return(self, captured_ns: int) -> None:
        self._next_id += 1
        self._missed += 1
        self._health = Health("streaming", captured_ns, self._health.reconnects + 1, self._health.corrupt)

    def _keep_size(self, rgb: NDArray[np.uint8], reader: Reader) -> NDArray[np.uint8]:
        height, width = rgb.shape[:2]
        if self._size == (0, 0):  # the source was not open when this began
            self._size = (width, height)
        if (width, height) == self._size:
            return rgb
        first = f"{self._size[0]}x{self._size[1]}"
        change = f"{self.camera.name} went from {first} to {width}x{height}; its frames are scaled to {first}"
        self._report_once("size", change, reader)
        shrinks = width * height > self._size[0] * self._size[1]
        scaled = cv2.resize(rgb, self._size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return np.asarray(scaled, dtype=np.uint8)

    def _report_once(self, topic: str, message: str, reader: Reader) -> None:
        """Reports a topic once per opening, because it may recur for ever."""
        if topic not in reader.reported:
            reader.reported.add(topic)
            self._report(message)
