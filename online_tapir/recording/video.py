"""Writes and reads the videos of recordings with OpenCV, one picture after another.

HuffYUV and FFV1 are lossless, Motion JPEG is not. HuffYUV is the default: it takes a tenth of FFV1's CPU time, which
the tracker needs, and a third more space. A truncated AVI is readable except for its last quarter of a megabyte;
Matroska would lose up to five seconds.
"""

from collections.abc import Generator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.camera.hush import hush
from online_tapir.errors import CameraError, PublishError

VIDEO = "video.avi"

FOURCC = {"huffyuv": "HFYU", "ffv1": "FFV1", "mjpeg": "MJPG"}
LOSSLESS = frozenset({"huffyuv", "ffv1"})

Picture = NDArray[np.uint8]


class VideoWriter:
    """Writes pictures RGB uint8 [H, W, 3], all of one size, to a file.

    The encoders need even sizes: the last row or column of an odd side is repeated, and `read_video` removes it again.
    Raises PublishError if the file cannot be created.
    """

    def __init__(self, path: Path, codec: str, fps: float, width: int, height: int) -> None:
        hush()
        self._size = (width, height)
        even = (width + width % 2, height + height % 2)
        self._video = cv2.VideoWriter(_named(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*FOURCC[codec]), fps, even)
        if not self._video.isOpened():
            raise PublishError(
                f"cannot write {path} as {codec}: check that the folder is writable, or try another codec"
            )

    def write(self, rgb: Picture) -> None:
        height, width = rgb.shape[:2]
        assert (width, height) == self._size, "every frame of a source has the size of its first"
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        if width % 2 or height % 2:
            bgr = cv2.copyMakeBorder(bgr, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        self._video.write(bgr)

    def close(self) -> None:
        self._video.release()


def read_video(path: Path, width: int, height: int) -> Generator[Picture]:
    """Yields the pictures [height, width, 3] of a file, up to where it was cut off. Raises CameraError for none."""
    hush()
    video = cv2.VideoCapture(_named(path), cv2.CAP_FFMPEG)
    if not video.isOpened():
        raise CameraError(f"{path} cannot be read: it is missing, damaged, or was cut before its first picture")
    try:
        while True:
            ok, bgr = video.read()
            if not ok:
                return
            yield np.asarray(cv2.cvtColor(bgr[:height, :width], cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        video.release()


def _named(path: Path) -> str:
    """The whole path: of a relative one such as 12:30/video.avi, ffmpeg takes 12 for a protocol."""
    return str(path.absolute())
