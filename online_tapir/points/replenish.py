"""Keeps up the number of tracked points: decides which are lost, and replaces them."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from online_tapir.points.placement import replenish
from online_tapir.records import Frame, Label, Queries, Tracks

PATIENCE_FRAMES = 45  # a point hidden for longer is replaced


NOTHING = Queries(np.empty(0, np.int32), np.empty((0, 2), np.float32), -1)


class Follower(Protocol):
    """What is asked of a tracker here."""

    @property
    def ids(self) -> NDArray[np.int32]: ...

    @property
    def labels(self) -> dict[int, Label]: ...

    @property
    def max_points(self) -> int: ...

    def add(self, xy: NDArray[np.float32], frame_id: int | None = None) -> NDArray[np.int32]: ...

    def remove(self, ids: NDArray[np.int32]) -> None: ...


class Replenisher:
    """Replaces points that left the picture, or were hidden for more than `patience` frames in a row.

    Those that have a name or a group stay: no other point is as good.
    """

    def __init__(self, want: int, patience: int = PATIENCE_FRAMES) -> None:
        self.want = want
        self._patience = patience
        self._hidden: dict[int, int] = {}  # frames in a row, by id

    def renew(self, tracker: Follower, frame: Frame, tracks: Tracks) -> Queries:
        """Removes the lost points of `tracks` and adds new ones on `frame`, up to `want`; returns the new ones."""
        lost = np.intersect1d(self._lost(tracks), tracker.ids)  # a frame under way may have points that are gone
        if len(lost):
            tracker.remove(lost)
        sought = sum(bool(label.sought) for label in tracker.labels.values())
        missing = min(self.want - (len(tracker.ids) - sought), tracker.max_points - len(tracker.ids))
        if missing <= 0:
            return NOTHING
        kept = tracks.xy[~np.isin(tracks.ids, lost)]
        fresh = replenish(frame.rgb, kept, missing, seed=frame.id)
        return Queries(tracker.add(fresh, frame_id=frame.id), fresh, frame.id)

    def _lost(self, tracks: Tracks) -> NDArray[np.int32]:
        self._hidden = {
            int(id): 0 if seen else self._hidden.get(int(id), 0) + 1
            for id, seen in zip(tracks.ids, tracks.visible, strict=True)
        }
        overdue = np.array([self._hidden[int(id)] > self._patience for id in tracks.ids], np.bool_)
        outside = ((tracks.xy < 0) | (tracks.xy > (tracks.width, tracks.height))).any(axis=1)
        labelled = np.isin(tracks.ids, [id for id, label in tracks.labels.items() if label.name or label.group])
        return tracks.ids[(overdue | (outside & ~tracks.visible)) & ~labelled]
