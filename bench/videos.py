"""Reads video files for benches."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.command import BenchError


def read(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video, RGB. Raises BenchError for what is no video."""
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise BenchError(f"{path} cannot be opened as a video")
    while True:
        there, bgr = capture.read()
        if not there:
            return
        yield np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
