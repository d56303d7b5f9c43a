"""A camera's calibration as OpenCV and ROS write it, and what it makes of points: pixels without the lens's distortion.

Undistorted points are those of an ideal pinhole camera with the same matrix, so that a plane moves by a homography
between them. The model of the lens is OpenCV's (Brown 1971; Zhang 2000).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.errors import ConfigError

NAMES = {  # as OpenCV's own programs and ROS's camera_calibration write them
    "matrix": ("camera_matrix", "cameraMatrix", "K"),
    "distortion": ("distortion_coefficients", "distCoeffs", "D"),
    "width": ("image_width", "imageWidth"),
    "height": ("image_height", "imageHeight"),
}
MODELS = ("plumb_bob", "rational_polynomial")  # of ROS's lenses, whose coefficients are OpenCV's
COEFFICIENTS = (0, 4, 5, 8, 12, 14)  # how many OpenCV's model of a lens may have


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A pinhole camera with a lens, for pictures of one size."""

    size: tuple[int, int]  # (width, height), pixels
    matrix: NDArray[np.float64]  # [3, 3]
    distortion: NDArray[np.float64]  # [0, 4, 5, 8, 12 or 14]

    @property
    def numbers(self) -> tuple[float, ...]:
        """Its matrix, row by row, and its distortion: what tells it from another lens."""
        return (*self.matrix.ravel().tolist(), *self.distortion.ravel().tolist())

    def undistort(self, xy: NDArray[Any]) -> NDArray[np.float32]:
        """Points xy [N, 2] of the picture, in image pixels, where the ideal camera sees them."""
        if not len(xy):
            return np.empty((0, 2), np.float32)
        # OpenCV's pixel (0, 0) is the middle of the first pixel, ours its corner.
        places = np.asarray(xy, np.float64).reshape(-1, 1, 2) - 0.5
        ideal = cv2.undistortPoints(places, self.matrix, self.distortion, P=self.matrix)
        return np.asarray(ideal.reshape(-1, 2) + 0.5, np.float32)

    def distort(self, xy: NDArray[Any]) -> NDArray[np.float32]:
        """The way back: where ideal points xy [N, 2] lie in the picture."""
        if not len(xy):
            return np.empty((0, 2), np.float32)
        rays = np.linalg.solve(self.matrix, np.column_stack([np.asarray(xy, np.float64) - 0.5, np.ones(len(xy))]).T).T
        seen, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), self.matrix, self.distortion)
        return np.asarray(seen.reshape(-1, 2) + 0.5, np.float32)


def read(path: Path) -> Calibration:
    """Reads an OpenCV file (YAML, XML or JSON) or one of ROS's camera_calibration. ConfigError for what is neither."""
    if not path.is_file():
        raise ConfigError(f"--calibration {path}: there is no such file; give what OpenCV's calibration wrote")
    try:
        file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
        try:
            found = {what: _first(file, names) for what, names in NAMES.items()}
        finally:
            file.release()
    except (cv2.error, SystemError) as error:
        found = _plain(path)
        if not found:
            raise ConfigError(f"--calibration {path} cannot be read: it is no file of OpenCV's or ROS's") from error
    missing = [NAMES[what][0] for what in ("matrix", "width", "height") if found[what] is None]
    if missing:
        raise ConfigError(f"--calibration {path} has no {', '.join(missing)}")
    matrix = np.asarray(found["matrix"], np.float64)
    distortion = np.zeros(0) if found["distortion"] is None else np.asarray(found["distortion"], np.float64).ravel()
    size = int(found["width"]), int(found["height"])
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or min(matrix[0, 0], matrix[1, 1], *size) <= 0:
        raise ConfigError(f"--calibration {path}: its camera matrix or size is none that a camera could have")
    if len(distortion) not in COEFFICIENTS or not np.isfinite(distortion).all():
        count = len(distortion)
        raise ConfigError(f"--calibration {path} has {count} distortion coefficients; a lens has 4, 5, 8, 12 or 14")
    return Calibration(size, matrix, distortion)


def _first(file: cv2.FileStorage, names: tuple[str, ...]) -> Any:
    """The first entry of these names that the file has; None if it has none."""
    for name in names:
        node = file.getNode(name)
        if not node.empty():
            return node.mat() if node.isMap() else node.real()
    return None


def _plain(path: Path) -> dict[str, Any]:
    """What ROS's camera_calibration writes: the same names in plain YAML. Empty for what it does not write."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    model = re.search(r"^distortion_model:\s*(\w+)", text, re.MULTILINE)
    if model is not None and model[1] not in MODELS:
        raise ConfigError(f"--calibration {path} is of a lens of model {model[1]}; there are {' and '.join(MODELS)}")
    told: dict[str, Any] = {}
    for what in ("matrix", "distortion"):
        name = NAMES[what][0]
        found = re.search(
            rf"^{name}:[ \t]*\n(?:[ \t]+(?:rows|cols):.*\n)*[ \t]+data:\s*\[([^\]]*)\]", text, re.MULTILINE
        )
        try:
            told[what] = None if found is None else np.array([float(number) for number in found[1].split(",")])
        except ValueError:
            return {}
    if told["matrix"] is None or len(told["matrix"]) != 9:
        return {}
    told["matrix"] = told["matrix"].reshape(3, 3)
    for what in ("width", "height"):
        found = re.search(rf"^{NAMES[what][0]}:\s*(\d+)\s*$", text, re.MULTILINE)
        told[what] = None if found is None else float(found[1])
    return told
