"""A recording that starts again at its end."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from online_tapir.camera.base import Camera


class Looped:
    """Delivers the frames of `camera`, then of whatever `reopen` opens, for ever; keeps the name of the first."""

    def __init__(self, camera: Camera, reopen: Callable[[], Camera]) -> None:
        self.name = camera.name
        self.live = camera.live
        self.size = camera.size
        self.fps = camera.fps
        self.description = f"{camera.description}, again and again"
        self._camera = camera
        self._reopen = reopen

    def grab(self) -> bool:
        if self._camera.grab():
            return True
        self._camera.close()
        self._camera = self._reopen()
        return self._camera.grab()

    def retrieve(self) -> NDArray[np.uint8]:
        return self._camera.retrieve()

    def read(self) -> NDArray[np.uint8] | None:
        return self.retrieve() if self.grab() else None

    def close(self) -> None:
        self._camera.close()
