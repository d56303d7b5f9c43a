"""Where a flat object is in space, from points on it: its first four are the corners of a rectangle of known size.

Solved by IPPE (Collins and Bartoli: Infinitesimal Plane-Based Pose Estimation, IJCV 2014; OpenCV's solvePnP) and
refined by Levenberg-Marquardt on all points that follow the object.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.errors import ConfigError
from online_tapir.points.calibration import Calibration
from online_tapir.records import Pose

CORNERS = 4
AS_GOOD = 1.1  # times the least error: then the points do not decide between two poses
WORST_PX = 5.0 / 640  # of the picture's longer side: a pose that misses its points by more is none


def parse_sizes(words: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Width and height in millimetres by group, of words such as `cup=80x50`. Raises ConfigError."""
    found: dict[str, tuple[float, float]] = {}
    for word in words:
        group, equals, size = word.rpartition("=")
        try:
            width, height = (float(side) for side in size.lower().split("x"))
        except ValueError:
            width = height = 0.0
        if not (equals and group and 0 < width < 1e6 and 0 < height < 1e6):
            raise ConfigError(f"--object-size {word!r} is not GROUP=WIDTHxHEIGHT in millimetres; write card=85.6x54")
        found[group] = width, height
    return found


def plane_of(corners: NDArray[np.float32], size: tuple[float, float]) -> NDArray[np.float64] | None:
    """The homography [3, 3] from undistorted pixels to millimetres on the rectangle, (0, 0) its first corner.

    `corners` [4, 2] are clockwise from the top left. None where they are no quadrangle.
    """
    width, height = size
    rectangle = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    if not cv2.isContourConvex(corners.reshape(-1, 1, 2)) or cv2.contourArea(corners) < 1:
        return None
    return np.asarray(cv2.getPerspectiveTransform(corners, rectangle), np.float64)


def pose(
    plane_mm: NDArray[np.float32],
    ideal: NDArray[np.float32],
    calibration: Calibration,
    size: tuple[float, float],
    before: Pose | None = None,
) -> Pose | None:
    """The pose of a plane whose points plane_mm [N, 2] are seen at the undistorted pixels ideal [N, 2].

    A plane seen from afar may be tilted to either side: of two poses that explain the points almost as well, it is the
    one that is nearer to the pose `before`. None for fewer than four points, or if none explains them to within
    `WORST_PX`.
    """
    if len(plane_mm) < CORNERS:
        return None
    space = np.column_stack([plane_mm, np.zeros(len(plane_mm))]).astype(np.float64)
    seen = np.asarray(ideal, np.float64) - 0.5  # OpenCV's pixel (0, 0) is the middle of the first
    try:
        found = cv2.solvePnPGeneric(space, seen, calibration.matrix, None, flags=cv2.SOLVEPNP_IPPE)
    except cv2.error:
        return None
    poses: list[Pose] = []
    for rotation, translation in zip(found[1], found[2], strict=True):  # two: tilted to either side
        rotation, translation = cv2.solvePnPRefineLM(space, seen, calibration.matrix, None, rotation, translation)
        back, _ = cv2.projectPoints(space, rotation, translation, calibration.matrix, None)
        error = float(np.sqrt(np.mean(np.sum((back.reshape(-1, 2) - seen) ** 2, axis=1))))
        if translation[2, 0] > 0 and error <= WORST_PX * max(calibration.size):
            poses.append(Pose(rotation.ravel().astype(float), translation.ravel().astype(float), error, size))
    if not poses:
        return None
    least = min(one.error_px for one in poses)
    as_good = [one for one in poses if one.error_px <= AS_GOOD * least]
    return min(as_good, key=lambda one: one.error_px if before is None else angle(one, before))


def angle(one: Pose, other: Pose) -> float:
    """The angle between two poses, in radians."""
    turn = cv2.Rodrigues(one.rotation)[0].T @ cv2.Rodrigues(other.rotation)[0]
    return float(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))


def outline(one: Pose, calibration: Calibration) -> NDArray[np.float32]:
    """The corners of the rectangle in the picture, [4, 2] image pixels, clockwise from the first."""
    width, height = one.size_mm
    space = np.array([[0, 0, 0], [width, 0, 0], [width, height, 0], [0, height, 0]], np.float64)
    seen, _ = cv2.projectPoints(space, one.rotation, one.translation_mm, calibration.matrix, calibration.distortion)
    return np.asarray(seen.reshape(-1, 2) + 0.5, np.float32)
