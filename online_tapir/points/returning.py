"""Points that come back are believed when they agree: with their object, or with two answers of the model in a row.

A point that was hidden for some answers and is seen again may have been found on something that looks alike. One answer
later it is either near there, or somewhere else again. An absurd position costs whoever acts on it more than one that
comes an answer late. `python -m bench.returning` shows what that is worth.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from online_tapir.records import TrackedObject, Tracks

HIDDEN = 5  # answers after which a point has to prove itself
NEAR = 1 / 16  # of the picture's longer side: how far two answers in a row may be apart


@dataclass(slots=True)
class _Point:
    """What is known of a point."""

    hidden: int = 0  # answers in a row
    sighting: NDArray[np.float32] | None = None  # the first after them, [2] image pixels


class Returns:
    """Sifts the tracks of one stream. Call `sift` with those of every frame, before they are published."""

    def __init__(self) -> None:
        self._points: dict[int, _Point] = {}
        self._answer = -1

    def sift(self, tracks: Tracks, objects: tuple[TrackedObject, ...] = ()) -> Tracks:
        """`tracks` with those points hidden that have come back and not proved themselves yet."""
        fresh = tracks.model_frame_id != self._answer
        self._answer = tracks.model_frame_id
        sure = {id for one in objects for id in one.following.tolist()}
        near = NEAR * max(tracks.width, tracks.height)
        ids = tracks.ids.tolist()
        held = [
            row
            for row, (id, seen) in enumerate(zip(ids, tracks.visible.tolist(), strict=True))
            if self._waits(id, tracks.xy[row], seen, fresh, id in sure, near)
        ]
        if len(self._points) > len(ids):
            self._points = {id: self._points[id] for id in ids if id in self._points}
        if not held:
            return tracks
        visible = tracks.visible.copy()
        visible[held] = False
        return replace(tracks, visible=visible)

    def _waits(self, id: int, xy: NDArray[np.float32], seen: bool, fresh: bool, sure: bool, near: float) -> bool:
        """Whether a point that is seen has yet to prove that it is the one that was lost."""
        point = self._points.get(id)
        if point is None:
            self._points[id] = point = _Point()
        if not seen:
            point.hidden += fresh
            point.sighting = None
            return False
        if point.hidden < HIDDEN or sure:
            point.hidden, point.sighting = 0, None
            return False
        if point.sighting is None:
            point.sighting = xy.copy()
            return True
        if not fresh:
            return True
        if float(np.linalg.norm(xy - point.sighting)) < near:
            point.hidden, point.sighting = 0, None
            return False
        point.sighting = xy.copy()
        return True
