"""Keeps a crop around each point's query, cut from the frame it was named on, for as long as the point lives.

Points may be named on past frames, so the newest frames are kept too, within a memory limit. Only the crops are
copied.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from online_tapir.drawing.inspection_pictures import Crop, crop_around
from online_tapir.records import Frame, Queries, Tracks

SIDE = 65  # image pixels, the side of a crop
FRAME_BYTES = 64 << 20  # of frames kept for queries: two seconds at 640x480 and 30 fps, ten frames at 1920x1080
MOST_PATCHES = 1024  # of 13 KB each; points named beyond that get none


@dataclass(frozen=True, slots=True, eq=False)
class QueryPatch:
    """Where a point was named, and the crop around it."""

    frame_id: int
    xy: NDArray[np.float32]  # [2] image pixels
    crop: Crop | None  # None if that frame was gone, or there was no room for the crop


class QueryPatches:
    """The query patches of all living points. Call `named`, then `follow`, for every frame."""

    def __init__(self, frame_bytes: int = FRAME_BYTES) -> None:
        self._frame_bytes = frame_bytes
        self._frames: deque[Frame] = deque()  # the newest last
        self._held_bytes = 0
        self._named: list[Queries] = []
        self._patches: dict[int, QueryPatch] = {}  # by point id

    def named(self, queries: Sequence[Queries]) -> None:
        """Takes points whose first tracks come with the next frame followed."""
        self._named.extend(queries)

    def follow(self, frame: Frame, tracks: Tracks) -> None:
        """Keeps a frame (do not modify it afterwards), crops the new queries and forgets the points that are gone."""
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
        """The patch of a living point; None if `named` was never called for it."""
        return self._patches.get(id)

    def _keep(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._held_bytes += frame.rgb.nbytes
        while self._held_bytes > self._frame_bytes and len(self._frames) > 1:
            self._held_bytes -= self._frames.popleft().rgb.nbytes
