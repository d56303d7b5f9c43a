"""The rolling window: the features of the last frames, by frame id, so that a late query can be answered.

Buffers are allocated once, at the first frame, for all lanes, and reused as rings; a pyramid read from a window is a
view of them.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from online_tapir.errors import QueryError
from online_tapir.model.coordinates import Size
from online_tapir.model.grids import Grids
from online_tapir.model.tapir import FeaturePyramid


@dataclass(frozen=True, slots=True)
class RememberedFrame:
    """One frame of the window: its id, how many frames came before it, and its size in image pixels."""

    id: int
    number: int
    size: Size


class FeatureRings:
    """Buffers for the feature pyramids of the last `capacity` frames of each of several lanes, in slots."""

    def __init__(self, capacity: int, lanes: int = 1) -> None:
        self.capacity = capacity
        self.lanes = lanes
        self._rings: list[list[Tensor]] = []  # per resolution and level, [slots, H, W, C]

    @property
    def nbytes(self) -> int:
        """Size of the buffers."""
        return sum(ring.nbytes for rings in self._rings for ring in rings)

    @property
    def idle_slot(self) -> int:
        """Where a batch may store what it computed for a lane without a frame, after `make_room` for idle lanes."""
        return self.capacity * self.lanes if self.lanes > 1 else 0

    def make_room(self, pyramid: FeaturePyramid, idle: bool = False) -> None:
        """Allocates buffers for pyramids of this shape, with a slot more if lanes may be `idle` in a batch."""
        slots = self.capacity * self.lanes + (1 if idle and self.lanes > 1 else 0)
        self._sizes = [grids.size for grids in pyramid.grids]
        self._pooled = pyramid.match.pooled
        self._refined_from = pyramid.refined_from
        self._rings = [
            [torch.empty(slots, *level.shape[1:], dtype=level.dtype, device=level.device) for level in g.levels]
            for g in pyramid.grids
        ]

    def put(self, slot: int, pyramid: FeaturePyramid) -> None:
        """Writes the pyramid of one frame to a slot."""
        if not self._rings:
            self.make_room(pyramid)
        for ring, level in self._places(pyramid):
            ring[slot].copy_(level[0])

    def store(self, slots: Tensor, pyramid: FeaturePyramid) -> None:
        """Writes the pyramids of a batch to slots [G], which are on the device so that a graph can do it."""
        for ring, level in self._places(pyramid):
            ring.index_copy_(0, slots, level)

    def pyramid(self, slot: int) -> FeaturePyramid:
        """The features in a slot, as views."""
        grids = tuple(
            Grids(size, tuple(ring[slot : slot + 1] for ring in rings), self._pooled)
            for size, rings in zip(self._sizes, self._rings, strict=True)
        )
        return FeaturePyramid(grids, self._refined_from)

    def _places(self, pyramid: FeaturePyramid) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs each level of a pyramid with its buffer, buffer first."""
        for rings, grids in zip(self._rings, pyramid.grids, strict=True):
            yield from zip(rings, grids.levels, strict=True)


class FeatureWindow:
    """The frames of one lane whose features are in the rings."""

    def __init__(self, rings: FeatureRings, lane: int = 0) -> None:
        self.capacity = rings.capacity
        self._rings = rings
        self._lane = lane
        self._frames: deque[RememberedFrame] = deque(maxlen=rings.capacity)

    @property
    def ids(self) -> list[int]:
        """The ids of the frames that a query may name, oldest first."""
        return [frame.id for frame in self._frames]

    def push(self, frame: RememberedFrame, pyramid: FeaturePyramid) -> FeaturePyramid:
        """Stores a frame over the oldest one; returns its pyramid as a view of the window."""
        self._rings.put(self.slot(frame), pyramid)
        self.remember(frame)
        return self.pyramid(frame)

    def remember(self, frame: RememberedFrame) -> None:
        """Records that the frame's slot holds its features; the oldest frame leaves a full window."""
        self._frames.append(frame)

    def forget(self) -> None:
        """Empties the window."""
        self._frames.clear()

    def slot(self, frame: RememberedFrame) -> int:
        """The index of the frame's features in the rings."""
        return self._lane * self.capacity + frame.number % self.capacity

    def pyramid(self, frame: RememberedFrame) -> FeaturePyramid:
        """The features of a frame in the window, as views that are valid until the frame leaves it."""
        return self._rings.pyramid(self.slot(frame))

    def find(self, frame_id: int) -> RememberedFrame:
        """The frame with id `frame_id`; QueryError, listing the frames that a query may name, if there is none."""
        for frame in self._frames:
            if frame.id == frame_id:
                return frame
        if not self._frames:
            raise QueryError(f"frame {frame_id} was named before any frame was tracked; omit it for the next frame")
        oldest, newest = self._frames[0].id, self._frames[-1].id
        if frame_id < oldest:
            why = f"has left the window of {self.capacity}"
        elif frame_id > newest:
            why = "has not been tracked yet"
        else:
            why = "was dropped by the source"
        raise QueryError(f"frame {frame_id} {why}; a query may name frames {oldest} (the oldest) to {newest}")

    def since(self, frame: RememberedFrame) -> list[RememberedFrame]:
        """The frames from `frame` to the newest, in order."""
        return [other for other in self._frames if other.number >= frame.number]
