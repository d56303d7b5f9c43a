"""The rolling window: the features of the last frames, by frame id, so that a late query can be answered.

Buffers are allocated once, at the first frame, and reused as a ring; a pyramid read from the window is a view of them.
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


class FeatureWindow:
    """The feature pyramids of the last `capacity` frames."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._frames: deque[RememberedFrame] = deque(maxlen=capacity)
        self._rings: list[list[Tensor]] = []  # per resolution and level, [capacity, H, W, C]

    @property
    def ids(self) -> list[int]:
        """The ids of the frames that a query may name, oldest first."""
        return [frame.id for frame in self._frames]

    @property
    def nbytes(self) -> int:
        """Size of the buffers."""
        return sum(ring.nbytes for rings in self._rings for ring in rings)

    def push(self, frame: RememberedFrame, pyramid: FeaturePyramid) -> FeaturePyramid:
        """Stores a frame over the oldest one; returns its pyramid as a view of the window."""
        if not self._rings:
            self.make_room(pyramid)
        for ring, level in self._places(pyramid):
            ring[self.slot(frame)].copy_(level[0])
        self.remember(frame)
        return self.pyramid(frame)

    def make_room(self, pyramid: FeaturePyramid) -> None:
        """Allocates buffers for pyramids of this shape."""
        self._sizes = [grids.size for grids in pyramid.grids]
        self._pooled = pyramid.match.pooled
        self._refined_from = pyramid.refined_from
        self._rings = [
            [torch.empty(self.capacity, *level.shape[1:], dtype=level.dtype, device=level.device) for level in g.levels]
            for g in pyramid.grids
        ]

    def store(self, slot: Tensor, pyramid: FeaturePyramid) -> None:
        """Writes a pyramid to `slot` [1], on the device so that a graph can do it; `remember` then names the frame."""
        for ring, level in self._places(pyramid):
            ring.index_copy_(0, slot, level)

    def remember(self, frame: RememberedFrame) -> None:
        """Records that the frame's slot holds its features; the oldest frame leaves a full window."""
        self._frames.append(frame)

    def slot(self, frame: RememberedFrame) -> int:
        """The index of the frame's features in the buffers."""
        return frame.number % self.capacity

    def _places(self, pyramid: FeaturePyramid) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs each level of a pyramid with its buffer, buffer first."""
        for rings, grids in zip(self._rings, pyramid.grids, strict=True):
            yield from zip(rings, grids.levels, strict=True)

    def pyramid(self, frame: RememberedFrame) -> FeaturePyramid:
        """The features of a frame in the window, as views that are valid until the frame leaves it."""
        slot = self.slot(frame)
        grids = tuple(
            Grids(size, tuple(ring[slot : slot + 1] for ring in rings), self._pooled)
            for size, rings in zip(self._sizes, self._rings, strict=True)
        )
        return FeaturePyramid(grids, self._refined_from)

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
