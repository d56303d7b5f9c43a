"""A camera made of arrays, for tests."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from online_tapir.camera.base import in_words
from online_tapir.clock import Clock, Pace, SystemClock
from online_tapir.errors import CameraError
from online_tapir.picture import rgb_to_rgb8


class SyntheticCamera:
    """Gives frames, RGB (or what `rgb_to_rgb8` makes RGB), one after another, and ends with them.

    frames may be a generator: what it raises, the camera raises; while it blocks, so does the camera. With fps above 0
    it is paced by clock; with live it is read as a live camera is, and drops what nobody takes. Raises CameraError when
    there is no frame at all.
    """

    def __init__(
        self,
        frames: Iterable[NDArray[Any]],
        *,
        name: str = "synthetic",
        live: bool = False,
        fps: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        rest = iter(frames)
        first = next(rest, None)
        if first is None:
            raise CameraError("a synthetic camera was asked for with no frames; give it at least one")
        self.name = name
        self.live = live
        self.fps = fps
        height, width = rgb_to_rgb8(first).shape[:2]
        self.size = (width, height)
        self.closed = False
        self._frames = chain([first], rest)
        self._pace = Pace(fps, clock or SystemClock()) if fps > 0 else None
        self._grabbed: NDArray[Any] | None = None

    @property
    def description(self) -> str:
        return f"{self.name}: {in_words(self.size, self.fps)}"

    def grab(self) -> bool:
        if self._pace is not None:
            self._pace.wait()
        self._grabbed = next(self._frames, None)
        return self._grabbed is not None

    def retrieve(self) -> NDArray[np.uint8]:
        assert self._grabbed is not None, "grab() comes first"
        return rgb_to_rgb8(self._grabbed)

    def read(self) -> NDArray[np.uint8] | None:
        return self.retrieve() if self.grab() else None

    def close(self) -> None:
        self.closed = True
