"""What the model believes of points."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the model believes of N points on G frames, after one of its stages."""

    xy: Tensor  # [G, N, 2] pixels of the initial resolution
    occlusion: Tensor  # [G, N] logit that the point is hidden
    expected_distance: Tensor  # [G, N] logit that the position is off


def certainty(occlusion: Tensor, expected_distance: Tensor) -> Tensor:
    """How likely a point is seen and its position right, from the two logits (TAPIR, section 3.1)."""
    return torch.sigmoid(-occlusion) * torch.sigmoid(-expected_distance)


def visibility(occlusion: Tensor, expected_distance: Tensor, above: float) -> Tensor:
    """Whether a point is seen and its position right, likelier than `above`."""
    return certainty(occlusion, expected_distance) > above
