"""The rolling window: the features of the last frames, by frame id, so that a late query can be answered.

Buffers are allocated once, at the first frame, for all lanes, and reused as rings; a pyramid read from a window is a
view of them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from online_tapir.model.grids import Grids
from online_tapir.model.tapir import FeaturePyramid
from online_tapir.tracking.window import RememberedFrame, Window


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


class FeatureWindow(Window):
    """The frames of one lane whose features are in the rings."""

    def __init__(self, rings: FeatureRings, lane: int = 0) -> None:
        super().__init__(rings.capacity)
        self._rings = rings
        self._lane = lane

    def push(self, frame: RememberedFrame, pyramid: FeaturePyramid) -> FeaturePyramid:
        """Stores a frame over the oldest one; returns its pyramid as a view of the window."""
        self._rings.put(self.slot(frame), pyramid)
        self.remember(frame)
        return self.pyramid(frame)

    def slot(self, frame: RememberedFrame) -> int:
        """The index of the frame's features in the rings."""
        return self._lane * self.capacity + frame.number % self.capacity

    def pyramid(self, frame: RememberedFrame) -> FeaturePyramid:
        """The features of a frame in the window, as views that are valid until the frame leaves it."""
        return self._rings.pyramid(self.slot(frame))
