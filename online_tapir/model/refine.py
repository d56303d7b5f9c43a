"""Refinement: correlations around the current position, through the mixer, move the estimate."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from online_tapir.model import coordinates
from online_tapir.model.backbone import Grids
from online_tapir.model.config import TapirConfig
from online_tapir.model.coordinates import Size
from online_tapir.model.matching import Estimate
from online_tapir.model.mixer import Mixer
from tapir_kernels import PATCH_RADIUS, PATCH_SAMPLES, local_correlation

MOTION_SCALE_PX = 16.0
MOTION_LIMIT = 4.0


class Refiner(nn.Module):
    """One weight-shared refinement (TAPIR, section 3.2). Holds no stream's state."""

    def __init__(self, config: TapirConfig) -> None:
        super().__init__()
        peaks = 2 * config.grids if config.peak_inputs else 0
        source = 4 + config.feature_channels + PATCH_SAMPLES * config.grids + peaks
        self.mixer = Mixer(config, source, 4 + config.feature_channels)
        self.config = config

    def inputs(self, grids: Grids, guess: Estimate, features: Tensor, motion: Tensor, initial: Size) -> Tensor:
        """What the mixer sees of a guess (pixels of a picture of `initial` size) and features [G, N, C]: [G, N, D].

        motion [G, N, 2] is how far the guess moved since the last frame, in pixels of `initial`.
        """
        split = [self.config.hires_channels, self.config.lowres_channels]
        fine, coarse = (part.contiguous() for part in torch.split(features, split, dim=-1))
        patches = [
            local_correlation(
                fine if index == 0 else coarse,
                level,
                coordinates.rescale(guess.xy, initial, (level.shape[1], level.shape[2])),
            )
            for index, level in enumerate(grids.levels)
        ]  # each [G, N, 49]
        moved = (motion / MOTION_SCALE_PX).clamp(-MOTION_LIMIT, MOTION_LIMIT)
        logits = torch.stack([guess.occlusion, guess.expected_distance], dim=-1)
        peaks = [_peak(patch, self.config.softmax_temperature) for patch in patches] if self.config.peak_inputs else []
        dtype = features.dtype
        return torch.cat([moved.to(dtype), logits.to(dtype), features, *patches, *peaks], dim=-1)

    def move(
        self, guess: Estimate, features: Tensor, change: Tensor, grids: Grids, initial: Size
    ) -> tuple[Estimate, Tensor]:
        """The guess and running features after the mixer's change [G, N, 4 + C]."""
        moved = coordinates.rescale(change[..., :2].float(), grids.size, initial)
        refined = Estimate(
            guess.xy + moved, guess.occlusion + change[..., 2].float(), guess.expected_distance + change[..., 3].float()
        )
        return refined, features + change[..., 4:]


def _peak(patch: Tensor, temperature: float) -> Tensor:
    """Where a correlation patch [..., 49] peaks: the softmax's mean offset from its middle, -1..1, [..., 2] (x, y)."""
    side = 2 * PATCH_RADIUS + 1
    weight = F.softmax(patch * temperature, dim=-1).view(*patch.shape[:-1], side, side)
    offsets = torch.linspace(-1, 1, side, device=patch.device, dtype=patch.dtype)
    return torch.stack([weight.sum(dim=-2) @ offsets, weight.sum(dim=-1) @ offsets], dim=-1)
