"""The capture thread: it stamps and numbers frames at the grab and leaves them in a mailbox; it looks at none."""

import threading
import warnings
from collections.abc import Callable
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.camera.base import Camera
from online_tapir.clock import Clock, SystemClock
from online_tapir.mailbox import Closed, Mailbox
from online_tapir.records import Frame

CLOSE_TIMEOUT_S = 0.4  # a read that blocks for longer is left to its daemon thread


def warn(message: str) -> None:
    """What is said when nobody else listens."""
    warnings.warn(message, RuntimeWarning, stacklevel=2)


class Capture:
    """Reads a camera in a thread of its own, which also closes it.

        with Capture(open_camera("0"), report=print) as capture:
            frame = capture.mailbox.take(timeout=1.0)

    Frames are numbered from 0 as they are grabbed, dropped ones too, so a gap between ids is that many drops. A live
    camera drops the oldest; a file waits and drops nothing. `mailbox.take` raises the camera's own error if reading
    failed, and `Closed` after the last frame. A frame of another size than the first is scaled to it, which is reported
    once.
    """

    def __init__(self, camera: Camera, *, report: Callable[[str], None] = warn, clock: Clock | None = None) -> None:
        self.camera = camera
        self.mailbox: Mailbox[Frame] = Mailbox()
        self._report = report
        self._clock = clock or SystemClock()
        self._size: tuple[int, int] | None = None
        self._rescaled = False
        self._thread = threading.Thread(target=self._run, name=f"capture {camera.name}", daemon=True)
        self._started = False

    @property
    def dropped(self) -> int:
        """Frames that were grabbed and never taken, because a newer one came."""
        return self.mailbox.dropped

    def __enter__(self) -> "Capture":
        self._started = True
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading. Returns within a second even if the camera blocks; it is then closed when it stops blocking."""
        self.mailbox.close()
        if self._started:
            self._thread.join(CLOSE_TIMEOUT_S)
        else:
            self.camera.close()

    def _run(self) -> None:
        try:
            self._read_all()
            self.mailbox.close()
        except Closed:
            pass  # nobody wants more
        except BaseException as error:
            self.mailbox.fail(error)
        finally:
            self.camera.close()

    def _read_all(self) -> None:
        deliver = self.mailbox.offer if self.camera.live else self.mailbox.put
        number = 0
        while not self.mailbox.closed and self.camera.grab():
            captured_ns, captured_unix_ns = self._clock.monotonic_ns(), self._clock.unix_ns()
            rgb = self._keep_size(self.camera.retrieve())
            deliver(Frame(number, captured_ns, captured_unix_ns, rgb))
            number += 1

    def _keep_size(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = rgb.shape[:2]
        if self._size is None:
            self._size = (width, height)
        if (width, height) == self._size:
            return rgb
        if not self._rescaled:
            self._rescaled = True
            first = f"{self._size[0]}x{self._size[1]}"
            self._report(f"{self.camera.name} went from {first} to {width}x{height}; its frames are scaled to {first}")
        shrinks = width * height > self._size[0] * self._size[1]
        scaled = cv2.resize(rgb, self._size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return np.asarray(scaled, dtype=np.uint8)
