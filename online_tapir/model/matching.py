"""The first guess: where on a frame a point's features match best, and whether it is hidden there."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from online_tapir.model import coordinates
from online_tapir.model.config import TapirConfig
from online_tapir.model.estimate import Estimate
from online_tapir.model.grids import Grids
from online_tapir.model.recent import Recent
from online_tapir.model.taps import Tapping
from tapir_kernels import cost_volume, cost_volume_head


@dataclass(frozen=True, slots=True)
class Match:
    """A first guess and the heat map it was read from."""

    estimate: Estimate
    heat: Tensor  # [G, N, H, W] before the softmax


class BiasedConv(nn.Conv2d):
    """A convolution that has a bias."""

    bias: Tensor


class MatchingHead(nn.Module):
    """Reads a position and two logits from every cost map (TAPIR, section 3.1)."""

    def __init__(self, config: TapirConfig) -> None:
        super().__init__()
        width = config.match_width
        self.hidden = BiasedConv(config.match_planes, width, 3, padding=1)
        self.heat = BiasedConv(width, 1, 3, padding=1)
        self.occlusion_conv = BiasedConv(width, 2 * width, 3, 2)
        self.occlusion_hidden = nn.Linear(2 * width, width)
        self.occlusion_out = nn.Linear(width, 2)
        self.temperature = config.softmax_temperature

    def forward(self, queries: Tensor, grids: Grids, recent: Recent | None, taps: Tapping | None = None) -> Match:
        """The first guess for queries [G, N, C] on the coarse grid, in pixels of the grids' resolution."""
        coarse = grids.coarse
        groups, points = queries.shape[:2]
        height, width = coarse.shape[1:3]
        cost = cost_volume(queries, coarse)[:, :, None]  # [G, N, P, H, W]
        if recent is not None:
            closeness = recent.closeness((height, width), grids.size).to(queries.dtype)
            cost = torch.cat([cost, cost_volume(recent.match, coarse)[:, :, None], closeness[:, :, None]], dim=2)
        found = cost_volume_head(
            cost.flatten(0, 1),
            self.hidden.weight,
            self.hidden.bias,
            self.heat.weight,
            self.heat.bias,
            self.occlusion_conv.weight,
            self.occlusion_conv.bias,
            self.temperature,
        )
        xy = coordinates.rescale(found.xy, (height, width), grids.size)
        logits = self.occlusion_out(F.relu(self.occlusion_hidden(found.pooled.to(queries.dtype)))).float()
        estimate = Estimate(
            xy.view(groups, points, 2), logits[:, 0].view(groups, points), logits[:, 1].view(groups, points)
        )
        match = Match(estimate, found.heat.view(groups, points, height, width))
        if taps is not None:
            taps.matched(cost, match.heat, estimate)
        return match
