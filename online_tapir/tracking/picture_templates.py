"""Templates from a picture: the picture as it is, and turned and scaled, as a camera may see the same things later.

The model's features change with turn and scale: alone, a view is found within some 15 degrees and a quarter of its
size.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.model.tapir import Tapir
from online_tapir.records import Label
from online_tapir.tracking.templates import Templates, patches_of
from online_tapir.tracking.tracker import Tracker

PLAIN = ((0.0, 1.0),)  # degrees, and multiples of the size
VIEWS = (*PLAIN, (0.0, 0.72), (0.0, 1.4), (22.0, 1.0), (-22.0, 1.0), (22.0, 0.72), (-22.0, 0.72))


def from_picture(
    model: Tapir,
    rgb: NDArray[np.uint8],
    xy: NDArray[np.float32],
    labels: Sequence[Label],
    views: Sequence[tuple[float, float]] = VIEWS,
) -> Templates:
    """Templates of points xy [P, 2] (image pixels) with a view for each of `views` in which a point is in the picture.

    Raises TemplateError for a name that is missing or given twice.
    """
    height, width = rgb.shape[:2]
    found: Templates | None = None
    for turn, size in views:
        matrix = np.asarray(cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, size), np.float64)
        seen = rgb if (turn, size) == PLAIN[0] else _moved(rgb, matrix)
        places = np.asarray((xy - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5, np.float32)
        inside = [row for row, (x, y) in enumerate(places.tolist()) if 0 <= x < width and 0 <= y < height]
        if not inside:
            continue
        tracker = Tracker(model, max_points=1, window=1, engine="auto")
        tracker.step(seen)
        own = [labels[row] for row in inside]
        made = Templates.made(tracker.model, own, tracker.looks(places[inside]), patches_of(seen, places[inside]))
        found = made if found is None else found.with_views(made)
    assert found is not None, "the points are outside their picture"
    return found


def _moved(rgb: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    return np.asarray(cv2.warpAffine(rgb, matrix, (width, height), borderMode=cv2.BORDER_REFLECT), np.uint8)
