"""What the model estimates for points: position, occlusion and uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Estimate:
    """The model's estimates for N points on G frames, after one of its stages."""

    xy: Tensor  # [G, N, 2] pixels of the initial resolution
    occlusion: Tensor  # [G, N] logit that the point is hidden
    expected_distance: Tensor  # [G, N] logit that the position is wrong

    def rows(self, rows: slice) -> "Estimate":
        """The estimates for some of the points."""
        return Estimate(self.xy[:, rows], self.occlusion[:, rows], self.expected_distance[:, rows])

    @classmethod
    def joined(cls, parts: Sequence["Estimate"]) -> "Estimate":
        """Concatenates the estimates of consecutive points."""
        return cls(
            torch.cat([part.xy for part in parts], dim=1),
            torch.cat([part.occlusion for part in parts], dim=1),
            torch.cat([part.expected_distance for part in parts], dim=1),
        )


def packed(estimate: Estimate) -> Tensor:
    """The result to download: float32 [G N, 4], positions in pixels of the initial resolution, then both logits."""
    logits = torch.stack([estimate.occlusion, estimate.expected_distance], dim=-1)
    return torch.cat([estimate.xy.float(), logits.float()], dim=-1).flatten(0, 1)


def certainty(occlusion: Tensor, expected_distance: Tensor) -> Tensor:
    """Probability that a point is visible and its position right, from the two logits (TAPIR, section 3.1)."""
    return torch.sigmoid(-occlusion) * torch.sigmoid(-expected_distance)


def visibility(occlusion: Tensor, expected_distance: Tensor, above: float) -> Tensor:
    """Whether a point's `certainty` exceeds `above`."""
    return certainty(occlusion, expected_distance) > above
