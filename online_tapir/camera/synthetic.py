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
    """Delivers frames, RGB (or anything that `rgb_to_rgb8` converts), one after another, and then ends.

    frames may be a generator: the camera raises what it raises, and blocks while it blocks. With fps above 0, clock
    paces it; with live it acts like a live camera, and frames that nobody takes are dropped. Raises CameraError if
    there are no frames.
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
            raise CameraError("a synthetic camera has no frames; give it at least one")
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
        assert self._grabbed is not None, "call grab() first"
        return rgb_to_rgb8(self._grabbed)

    def read(self) -> NDArray[np.uint8] | None:
        return self.retrieve() if self.grab() else None

    def close(self) -> None:
        self.closed = True
