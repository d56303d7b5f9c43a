"""The appearance and position of points when they were last seen: a second cue, in addition to the query.

A query never changes, so a point that turns or grows stops matching it. Between two frames a point hardly changes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from online_tapir.model import coordinates
from online_tapir.model.config import Size
from online_tapir.model.estimate import Estimate, certainty
from online_tapir.model.grids import Grids, describe

UPDATE = 0.5  # share of the old appearance that a new one replaces, at certainty 1
SEEN = 0.5  # a point counts as seen if its certainty exceeds this
EXTRAPOLATED = 2.0  # frames over which a point's motion is extrapolated, at most
FORGOTTEN = 0.9  # factor on the trust in the last position for each hidden frame
REACH = 4.0  # cells from the expected position at which closeness falls to 1 / e


@dataclass(frozen=True, slots=True)
class Recent:
    """What is remembered from when the points were last seen, on G streams."""

    match: Tensor  # [G, N, C coarse]
    refine: Tensor  # [R, G, N, C fine + coarse], R refinement resolutions
    xy: Tensor  # [G, N, 2] pixels of the initial resolution
    velocity: Tensor  # [G, N, 2] pixels a frame
    age: Tensor  # [G, N] frames since the point was last seen

    @classmethod
    def begun(cls, match: Tensor, refine: Tensor, xy: Tensor) -> "Recent":
        """The memory of new points."""
        return cls(match, refine, xy, torch.zeros_like(xy), torch.zeros_like(xy[..., 0]))

    def by_lane(self, lanes: int) -> "Recent":
        """These memories of one stream, G = 1, as views of those of `lanes` streams with as many points each."""
        shape = lanes, self.xy.shape[1] // lanes
        match, xy, velocity = (memory.view(*shape, memory.shape[2]) for memory in (self.match, self.xy, self.velocity))
        refine = self.refine[:, 0].view(len(self.refine), *shape, self.refine.shape[3])
        return Recent(match, refine, xy, velocity, self.age.view(shape))

    @property
    def expected_xy(self) -> Tensor:
        """Where the points are expected if they keep moving, [G, N, 2]."""
        return self.xy + self.velocity * (self.age + 1).clamp_max(EXTRAPOLATED)[..., None]

    @property
    def trust(self) -> Tensor:
        """Confidence in the expected position, [G, N]: 1 for a point that was seen on the last frame."""
        return FORGOTTEN**self.age

    def closeness(self, grid: Size, initial: Size) -> Tensor:
        """Closeness of grid cells to each point's expected position, [G, N, H, W]: `trust` there, 0 far away."""
        cells = coordinates.rescale(self.expected_xy, initial, grid)
        height, width = (torch.arange(side, device=cells.device, dtype=cells.dtype) + 0.5 for side in grid)
        across = torch.exp(-(cells[..., 0, None] - width).abs() / REACH)  # [G, N, W]
        down = torch.exp(-(cells[..., 1, None] - height).abs() / REACH)  # [G, N, H]
        return (self.trust[..., None] * down)[..., :, None] * across[..., None, :]

    def after(self, found: Estimate, matched: Grids, refined: tuple[Grids, ...], initial: Size) -> "Recent":
        """The memory after a frame with these grids and the estimates `found` on it."""
        certain = certainty(found.occlusion, found.expected_distance).detach()  # [G, N]
        xy = found.xy.detach()
        looks = [_look(grids, xy, initial) for grids in refined]
        coarse = _look(matched, xy, initial) if matched is not refined[0] else looks[0]
        rate = (UPDATE * certain)[..., None]
        seen = certain > SEEN
        moved = (xy - self.xy) / (self.age + 1)[..., None]
        return Recent(
            torch.lerp(self.match, coarse[..., -self.match.shape[-1] :], rate.to(coarse.dtype)),
            torch.lerp(self.refine, torch.stack(looks), rate.to(coarse.dtype)),
            torch.where(seen[..., None], xy, self.xy),
            torch.where(seen[..., None], moved, self.velocity),
            (self.age + 1).masked_fill(seen, 0.0),
        )

    @property
    def tensors(self) -> list[Tensor]:
        return [self.match, self.refine, self.xy, self.velocity, self.age]

    def copy_(self, other: "Recent") -> None:
        """Overwrites this in place with the contents of `other`."""
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            mine.copy_(theirs)

    def where(self, chosen: Tensor, other: "Recent") -> "Recent":
        """These memories where `chosen` [G, N], otherwise those of `other`."""
        pairs = zip(self.tensors, other.tensors, strict=True)
        return Recent(*(torch.where(chosen if a is self.age else chosen[..., None], a, b) for a, b in pairs))


def _look(grids: Grids, xy: Tensor, initial: Size) -> Tensor:
    """Features [G, N, C] of points xy [G, N, 2] on their grids."""
    groups, points = xy.shape[:2]
    frame = torch.arange(groups, device=xy.device).repeat_interleave(points)
    features = describe(grids, frame, xy.flatten(0, 1), initial)
    return features.view(groups, points, features.shape[1])
