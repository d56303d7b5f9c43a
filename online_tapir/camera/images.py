"""Reads a folder of images as a video, in natural order."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.camera.base import in_words, topic_name
from online_tapir.camera.hush import hush
from online_tapir.clock import MakePace
from online_tapir.errors import CameraError
from online_tapir.picture import bgr_to_rgb8, depth_of

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
DEFAULT_FPS = 30.0


class ImageCamera:
    """Delivers the images one after another and drops none. Accepts 8 and 16 bits, grey, colour and alpha.

    16-bit files often hold the 10, 12 or 14 bits of a sensor. `depth`, the bits of the first, middle and last image,
    is what all are scaled by, so that brightness does not flicker; an image that needs more bits widens it.
    """

    def __init__(
        self, paths: list[Path], *, label: str, name: str, fps: float, pace_by: MakePace | None = None
    ) -> None:
        hush()
        self.label = label
        self.name = topic_name(name)
        self.live = False
        self.fps = fps
        self._paths = paths
        self._next = 0
        self.depth = 8
        first = _decoded(paths[0])
        self.size = (first.shape[1], first.shape[0])
        self._widen(first)
        if first.dtype == np.uint16:
            self._widen(_decoded(paths[len(paths) // 2]))
            self._widen(_decoded(paths[-1]))
        self._pace = pace_by(fps) if pace_by is not None else None

    @property
    def description(self) -> str:
        bits = f" of {self.depth} bits" if self.depth > 8 else ""
        return f"{self.label}: {len(self._paths)} images{bits}, {in_words(self.size, self.fps)}"

    def grab(self) -> bool:
        if self._pace is not None:
            self._pace.wait()
        self._next += 1
        return self._next <= len(self._paths)

    def retrieve(self) -> NDArray[np.uint8]:
        image = _decoded(self._paths[self._next - 1])
        self._widen(image)
        return bgr_to_rgb8(image, self.depth)

    def read(self) -> NDArray[np.uint8] | None:
        return self.retrieve() if self.grab() else None

    def close(self) -> None:
        """Nothing to release."""

    def _widen(self, image: NDArray[Any]) -> None:
        if image.dtype == np.uint16 and image.max(initial=0) >= 2**self.depth:
            self.depth = depth_of(image)


def open_folder(folder: Path, fps: float | None, pace_by: MakePace | None) -> ImageCamera:
    """The images of a folder in natural order: frame 9 before frame 10."""
    paths = sorted((path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES), key=_natural)
    if not paths:
        kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise CameraError(f"{folder} has no images in it; supported types are {kinds}")
    return ImageCamera(paths, label=folder.name, name=folder.name, fps=fps or DEFAULT_FPS, pace_by=pace_by)


def open_image(path: Path, fps: float | None, pace_by: MakePace | None) -> ImageCamera:
    """One image, as a video of one frame."""
    return ImageCamera([path], label=path.name, name=path.stem, fps=fps or DEFAULT_FPS, pace_by=pace_by)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part or 0), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name.lower())]


def _decoded(path: Path) -> NDArray[Any]:
    """BGR or grey, uint8 or uint16."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)  # upright, without alpha, 16 bits kept
    if image is None:
        raise CameraError(f"{path} is not an image that OpenCV can read, or is damaged; remove it or write it again")
    return np.asarray(image)
