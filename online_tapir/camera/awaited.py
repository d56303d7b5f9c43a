"""A live source that could not be opened yet."""

import numpy as np
from numpy.typing import NDArray

from online_tapir.camera.opencv import source_name, without_secrets
from online_tapir.errors import CameraError


class Awaited:
    """Stands for a source until it is there: the first grab fails with the reason, and `Capture` opens it anew."""

    live = True
    size = (0, 0)  # not known yet
    fps = 0.0

    def __init__(self, spec: str, name: str | None, error: CameraError) -> None:
        label = without_secrets(spec) if "://" in spec else f"camera {spec}"
        self.name = name or source_name(spec)
        self.description = f"{label}: not open yet"
        self._error = error

    def grab(self) -> bool:
        raise self._error

    def retrieve(self) -> NDArray[np.uint8]:
        raise self._error

    def read(self) -> NDArray[np.uint8] | None:
        raise self._error

    def close(self) -> None:
        """There is nothing to give back."""
