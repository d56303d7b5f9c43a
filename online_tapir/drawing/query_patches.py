"""What was at the place where each point was named: a small piece of that frame, kept for as long as the point lives.

Points may be named on frames that have passed, so the last frames are kept too, as many as fit into some memory; they
are not copied, but for the pieces.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from online_tapir.drawing.inspection_pictures import Crop, crop_around
from online_tapir.records import Frame, Tracks

if TYPE_CHECKING:
    from online_tapir.points.replenish import Queries  # it imports torch

SIDE = 65  # image pixels of a piece
FRAME_BYTES = 64 << 20  # of frames that may still be named: two seconds at 640x480 and 30 fps, ten frames at 1920x1080
MOST_PATCHES = 1024  # of 13 KB; points that are named while there are so many have none


@dataclass(frozen=True, slots=True, eq=False)
class QueryPatch:
    """Where a point was named, and what was there."""

    frame_id: int
    xy: NDArray[np.float32]  # [2] image pixels
    crop: Crop | None  # None where that frame, or room for the piece, was no longer there


class QueryPatches:
    """The pieces of all living points. `named` and `follow` are called for every frame, in that order."""

    def __init__(self, frame_bytes: int = FRAME_BYTES) -> None:
        self._frame_bytes = frame_bytes
        self._frames: deque[Frame] = deque()  # the newest last
        self._held_bytes = 0
        self._named: list[Queries] = []
        self._patches: dict[int, QueryPatch] = {}  # by point id

    def named(self, queries: Sequence["Queries"]) -> None:
        """Points that the next frame to be followed is the first to have tracks of."""
        self._named.extend(queries)

    def follow(self, frame: Frame, tracks: Tracks) -> None:
        """Takes in a frame, not to be written into again: cuts out what is named, forgets the points that are gone."""
        self._keep(frame)
        for queries in self._named:
            named_on = next((kept for kept in reversed(self._frames) if kept.id == queries.frame_id), None)
            for id, xy in zip(queries.ids.tolist(), queries.xy, strict=True):
                room = named_on is not None and len(self._patches) < MOST_PATCHES
                crop = crop_around(named_on.rgb, xy, SIDE) if named_on is not None and room else None
                self._patches[id] = QueryPatch(queries.frame_id, xy, crop)
        self._named.clear()
        for id in self._patches.keys() - set(tracks.ids.tolist()):
            del self._patches[id]

    def get(self, id: int) -> QueryPatch | None:
        """Of a living point; None where nobody said that it was named."""
        return self._patches.get(id)

    def _keep(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._held_bytes += frame.rgb.nbytes
        while self._held_bytes > self._frame_bytes and len(self._frames) > 1:
            self._held_bytes -= self._frames.popleft().rgb.nbytes
