"""The first guess: where on a frame a point's features match best, and whether it is hidden there."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from online_tapir.model import coordinates
from online_tapir.model.backbone import Grids
from online_tapir.model.config import TapirConfig
from tapir_kernels import cost_volume, soft_argmax


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the model believes of N points on G frames, after one of its stages."""

    xy: Tensor  # [G, N, 2] pixels of the initial resolution
    occlusion: Tensor  # [G, N] logit that the point is hidden
    expected_distance: Tensor  # [G, N] logit that the position is off


@dataclass(frozen=True, slots=True)
class Match:
    """A first guess and the heat map it was read from."""

    estimate: Estimate
    heat: Tensor  # [G, N, H, W] before the softmax


def sample(grid: Tensor, frame: Tensor, xy: Tensor) -> Tensor:
    """Bilinear samples [P, C] of grid [G, H, W, C], point p on frame[p] at xy[p] (cells), clamped at the border."""
    height, width = grid.shape[1:3]
    last = xy.new_tensor([width - 1, height - 1])
    centre = torch.minimum((xy - 0.5).clamp_min(0), last)  # [P, 2]
    corner = torch.floor(centre)
    across, down = (centre - corner).unsqueeze(-1).to(grid.dtype).unbind(1)  # each [P, 1]
    left, top = corner.long().unbind(1)
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    table = grid.flatten(0, 2)  # [GHW, C]
    upper, lower = (
        torch.lerp(table[start + left], table[start + right], across.expand(-1, table.shape[1]))
        for start in ((frame * height + top) * width, (frame * height + bottom) * width)
    )
    return torch.lerp(upper, lower, down.expand(-1, table.shape[1]))


def describe(grids: Grids, frame: Tensor, xy: Tensor, size: tuple[int, int]) -> Tensor:
    """Features [P, C] of points xy [P, 2] (pixels of a picture of `size`) on their frames: fine, then coarse."""
    fine, coarse = (
        sample(level, frame, coordinates.rescale(xy, size, (level.shape[1], level.shape[2])))
        for level in grids.levels[:2]
    )
    return torch.cat([fine, coarse], dim=1)


class MatchingHead(nn.Module):
    """Reads a position and two logits from every cost map (TAPIR, section 3.1)."""

    def __init__(self, config: TapirConfig) -> None:
        super().__init__()
        width = config.match_width
        self.hidden = nn.Conv2d(1, width, 3, padding=1)
        self.heat = nn.Conv2d(width, 1, 3, padding=1)
        self.occlusion_conv = nn.Conv2d(width, 2 * width, 3, 2)
        self.occlusion_hidden = nn.Linear(2 * width, width)
        self.occlusion_out = nn.Linear(width, 2)
        self.temperature = config.softmax_temperature

    def forward(self, queries: Tensor, grids: Grids) -> Match:
        """The first guess for queries [G, N, C] on the coarse grid, in pixels of the grids' resolution."""
        coarse = grids.coarse
        groups, points = queries.shape[:2]
        height, width = coarse.shape[1:3]
        cost = cost_volume(queries, coarse).flatten(0, 1)[:, None]  # [GN, 1, H, W]
        hidden = F.relu(self.hidden(cost), inplace=True)
        heat = self.heat(hidden)[:, 0]  # [GN, H, W]
        xy = coordinates.rescale(soft_argmax(heat.float(), self.temperature), (height, width), grids.size)
        pooled = F.relu(self.occlusion_conv(F.pad(hidden, (0, 2, 0, 2)))).mean(dim=(2, 3))
        logits = self.occlusion_out(F.relu(self.occlusion_hidden(pooled))).float()
        estimate = Estimate(
            xy.view(groups, points, 2), logits[:, 0].view(groups, points), logits[:, 1].view(groups, points)
        )
        return Match(estimate, heat.view(groups, points, height, width))
