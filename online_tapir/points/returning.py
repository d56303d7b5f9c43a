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
    sighting: NDArray[np.float32] | None = None  # the last after them, [2] image pixels

    def proved(self, xy: NDArray[np.float32], fresh: bool, near: float) -> bool:
        """Whether a fresh answer at xy [2] agrees with the sighting before; else it is a sighting itself."""
        if self.sighting is not None and not fresh:
            return False
        agrees = self.sighting is not None and float(np.linalg.norm(xy - self.sighting)) < near
        self.sighting = xy.copy()
        return agrees


class Returns:
    """Sifts the tracks of one stream. Call `sift` with those of every frame, before they are published."""

    def __init__(self) -> None:
        self._points: dict[int, _Point] = {}  # by id, those that are hidden or have not proved themselves yet
        self._answer = -1

    def sift(self, tracks: Tracks, objects: tuple[TrackedObject, ...] = ()) -> Tracks:
        """`tracks` with those points hidden that have come back and not proved themselves yet."""
        fresh = tracks.model_frame_id != self._answer
        self._answer = tracks.model_frame_id
        concerned = np.flatnonzero(~tracks.visible | np.isin(tracks.ids, list(self._points)))
        sure = {id for one in objects for id in one.following.tolist()}
        near = NEAR * max(tracks.width, tracks.height)
        before, self._points = self._points, {}
        waiting = []
        for row in concerned.tolist():
            id = int(tracks.ids[row])
            point = before.get(id) or _Point()
            if not tracks.visible[row]:
                point.hidden += fresh
                point.sighting = None
            elif point.hidden < HIDDEN or id in sure or point.proved(tracks.xy[row], fresh, near):
                continue  # from here on it is like any other
            else:
                waiting.append(row)
            self._points[id] = point
        if not waiting:
            return tracks
        visible = tracks.visible.copy()
        visible[waiting] = False
        return replace(tracks, visible=visible)
