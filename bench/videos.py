"""Reads video files for benches."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def read(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video, RGB."""
    capture = cv2.VideoCapture(str(path))
    while True:
        there, bgr = capture.read()
        if not there:
            return
        yield np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
