"""What a point looked like and where it was when it was last seen: a way to it that its query does not give.

A query never changes, so a point that turns or grows stops matching it; from one frame to the next it hardly changes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from online_tapir.model import coordinates
from online_tapir.model.coordinates import Size
from online_tapir.model.estimate import Estimate, certainty
from online_tapir.model.grids import Grids, describe

UPDATE = 0.5  # how much of what a point looks like replaces what it looked like, where it is surely seen
SEEN = 0.5  # likelier than this, a point is where it is said to be
EXTRAPOLATED = 2.0  # frames for which a hidden point is expected to move on
FORGOTTEN = 0.9  # of the trust in the last position is left after each hidden frame
REACH = 4.0  # cells from the expected position at which closeness falls to 1 / e


@dataclass(frozen=True, slots=True)
class Recent:
    """The points' last sight, on G streams."""

    match: Tensor  # [G, N, C coarse]
    refine: Tensor  # [R, G, N, C fine + coarse], R refinement resolutions
    xy: Tensor  # [G, N, 2] pixels of the initial resolution
    velocity: Tensor  # [G, N, 2] pixels a frame
    age: Tensor  # [G, N] frames since

    @classmethod
    def begun(cls, match: Tensor, refine: Tensor, xy: Tensor) -> "Recent":
        """Points that are looked at for the first time."""
        return cls(match, refine, xy, torch.zeros_like(xy), torch.zeros_like(xy[..., 0]))

    @property
    def expected_xy(self) -> Tensor:
        """Where the points would be if they moved on, [G, N, 2]."""
        return self.xy + self.velocity * (self.age + 1).clamp_max(EXTRAPOLATED)[..., None]

    @property
    def trust(self) -> Tensor:
        """What the expected position is worth, [G, N]: 1 for a point that was seen on the last frame."""
        return FORGOTTEN**self.age

    def closeness(self, grid: Size, initial: Size) -> Tensor:
        """How near the cells of a grid are to where each point is expected, [G, N, H, W]: `trust` there, 0 far off."""
        cells = coordinates.rescale(self.expected_xy, initial, grid)
        height, width = (torch.arange(side, device=cells.device, dtype=cells.dtype) + 0.5 for side in grid)
        across = torch.exp(-(cells[..., 0, None] - width).abs() / REACH)  # [G, N, W]
        down = torch.exp(-(cells[..., 1, None] - height).abs() / REACH)  # [G, N, H]
        return (self.trust[..., None] * down)[..., :, None] * across[..., None, :]

    def after(self, found: Estimate, matched: Grids, refined: tuple[Grids, ...], initial: Size) -> "Recent":
        """The memory after a frame with these grids, on which the points were `found`."""
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

    def rows(self, start: int, stop: int) -> "Recent":
        """The same memory, seen through points start..stop only."""
        return Recent(
            self.match[:, start:stop],
            self.refine[:, :, start:stop],
            self.xy[:, start:stop],
            self.velocity[:, start:stop],
            self.age[:, start:stop],
        )

    @property
    def tensors(self) -> list[Tensor]:
        return [self.match, self.refine, self.xy, self.velocity, self.age]

    def copy_(self, other: "Recent") -> None:
        """Takes over what `other` remembers, in place."""
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            mine.copy_(theirs)

    def where(self, chosen: Tensor, other: "Recent") -> "Recent":
        """These memories where chosen [G, N], else those of `other`."""
        pairs = zip(self.tensors, other.tensors, strict=True)
        return Recent(*(torch.where(chosen if a is self.age else chosen[..., None], a, b) for a, b in pairs))


def _look(grids: Grids, xy: Tensor, initial: Size) -> Tensor:
    """Features [G, N, C] of points xy [G, N, 2] on their grids."""
    groups, points = xy.shape[:2]
    frame = torch.arange(groups, device=xy.device).repeat_interleave(points)
    features = describe(grids, frame, xy.flatten(0, 1), initial)
    return features.view(groups, points, features.shape[1])
