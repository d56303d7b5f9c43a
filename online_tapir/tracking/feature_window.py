"""The rolling window: the features of the last frames, by frame id, so that a late query can be answered.

Buffers are made once, at the first frame, and reused as a ring; a pyramid read from the window is a view of them.
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
        """The frames a query may name, oldest first."""
        return [frame.id for frame in self._frames]

    @property
    def nbytes(self) -> int:
        """What the buffers take."""
        return sum(ring.nbytes for rings in self._rings for ring in rings)

    def push(self, frame: RememberedFrame, pyramid: FeaturePyramid) -> FeaturePyramid:
        """Remembers a frame in place of the oldest; returns its pyramid as the window holds it."""
        if not self._rings:
            self.make_room(pyramid)
        for ring, level in self._places(pyramid):
            ring[self.slot(frame)].copy_(level[0])
        self.remember(frame)
        return self.pyramid(frame)

    def make_room(self, pyramid: FeaturePyramid) -> None:
        """Makes the buffers, for pyramids like this one."""
        self._sizes = [grids.size for grids in pyramid.grids]
        self._pooled = pyramid.match.pooled
        self._refined_from = pyramid.refined_from
        self._rings = [
            [torch.empty(self.capacity, *level.shape[1:], dtype=level.dtype, device=level.device) for level in g.levels]
            for g in pyramid.grids
        ]

    def store(self, slot: Tensor, pyramid: FeaturePyramid) -> None:
        """Writes a pyramid to `slot` [1], which is on the device, so that a graph can; `remember` says whose it is."""
        for ring, level in self._places(pyramid):
            ring.index_copy_(0, slot, level)

    def remember(self, frame: RememberedFrame) -> None:
        """From now on the frame's slot is known to hold its features; the oldest frame's are gone."""
        self._frames.append(frame)

    def slot(self, frame: RememberedFrame) -> int:
        """Where in the buffers the frame's features are."""
        return frame.number % self.capacity

    def _places(self, pyramid: FeaturePyramid) -> Iterator[tuple[Tensor, Tensor]]:
        """Each level of a pyramid, after the buffer it belongs in."""
        for rings, grids in zip(self._rings, pyramid.grids, strict=True):
            yield from zip(rings, grids.levels, strict=True)

    def pyramid(self, frame: RememberedFrame) -> FeaturePyramid:
        """The features of a frame that the window holds: views, valid until it leaves."""
        slot = self.slot(frame)
        grids = tuple(
            Grids(size, tuple(ring[slot : slot + 1] for ring in rings), self._pooled)
            for size, rings in zip(self._sizes, self._rings, strict=True)
        )
        return FeaturePyramid(grids, self._refined_from)

    def find(self, frame_id: int) -> RememberedFrame:
        """The frame called `frame_id`; QueryError says which frames a query may name."""
        for frame in self._frames:
            if frame.id == frame_id:
                return frame
        if not self._frames:
            raise QueryError(f"frame {frame_id} was asked for before any frame was tracked; name none for the next one")
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
