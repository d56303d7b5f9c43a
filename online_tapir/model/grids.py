"""Feature grids of frames, and the features of points sampled from them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from online_tapir.model import coordinates
from online_tapir.model.config import NEIGHBOUR_OFFSETS, Size


@dataclass(frozen=True, slots=True)
class Grids:
    """Unit features of a batch of frames at one resolution, fine to coarse, then pooled copies of the coarse level."""

    size: Size  # the resolution, in pixels
    levels: tuple[Tensor, ...]  # each [G, H, W, C]
    pooled: int  # how many of the last levels are pooled copies

    @property
    def describing(self) -> tuple[Tensor, ...]:
        """The levels that describe a point, fine to coarse."""
        return self.levels[: len(self.levels) - self.pooled]

    @property
    def coarse(self) -> Tensor:
        """The level that points are matched on."""
        return self.describing[-1]

    def by_frame(self, frames: int) -> list["Grids"]:
        """Splits a batch of clips, each `frames` long, into one batch per frame number."""
        # Not slices: the gradient of each would be as large as that of all frames.
        levels = (
            level.view(-1, frames, *level.shape[1:]).transpose(0, 1).contiguous().unbind(0) for level in self.levels
        )
        return [Grids(self.size, frame, self.pooled) for frame in zip(*levels, strict=True)]


def describe(grids: Grids, frame: Tensor, xy: Tensor, size: Size) -> Tensor:
    """Features [P, C] of points xy [P, 2] (pixels of a picture of `size`) on their frames, fine to coarse."""
    samples = [
        _sample(level, frame, coordinates.rescale(xy, size, (level.shape[1], level.shape[2])))
        for level in grids.describing
    ]
    return torch.cat(samples, dim=1)


def describe_query(grids: Grids, frame: Tensor, xy: Tensor, size: Size, neighbour_grids: int) -> Tensor:
    """What points xy [P, 2] are refined by, [P, C + 8 C']: `describe`, then the features of their neighbours.

    The neighbours are two cells to the sides, above and below, on each of the finest `neighbour_grids` grids; row by
    row, each with its C' channels, fine to coarse. With them a patch of the query is correlated with a patch of a frame
    (local 4D correlation, LocoTrack, arXiv 2407.15420, section 3.2).
    """
    features = describe(grids, frame, xy, size)
    if not neighbour_grids:
        return features
    offsets = torch.tensor(NEIGHBOUR_OFFSETS, device=xy.device, dtype=xy.dtype)  # [8, 2] cells
    around = []
    for level in grids.levels[:neighbour_grids]:
        cells = coordinates.rescale(xy, size, (level.shape[1], level.shape[2]))
        places = (cells[:, None] + offsets).flatten(0, 1)  # [8 P, 2]
        around.append(
            _sample(level, frame.repeat_interleave(len(offsets)), places).view(len(xy), len(offsets), level.shape[3])
        )
    return torch.cat([features, torch.cat(around, dim=2).flatten(1)], dim=1)


def _sample(grid: Tensor, frame: Tensor, xy: Tensor) -> Tensor:
    """Bilinear samples [P, C] of grid [G, H, W, C], point p on frame[p] at xy[p] (cells), clamped at the border.

    A NaN position gives NaN for that point only.
    """
    height, width = grid.shape[1:3]
    x, y = (xy - 0.5).unbind(1)
    centre = torch.stack([x.clamp(0, width - 1), y.clamp(0, height - 1)], dim=1)  # [P, 2]
    corner = torch.floor(centre)
    across, down = (centre - corner).unsqueeze(-1).to(grid.dtype).unbind(1)  # each [P, 1]
    left, top = torch.nan_to_num(corner).long().unbind(1)
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    above, below = (frame * height + top) * width, (frame * height + bottom) * width
    cells = grid.flatten(0, 2)[torch.stack([above + left, above + right, below + left, below + right])]  # [4, P, C]
    upper, lower = torch.lerp(cells[::2], cells[1::2], across.expand_as(cells[0])).unbind(0)
    return torch.lerp(upper, lower, down.expand_as(upper))
