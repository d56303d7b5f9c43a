"""What the model believes of points."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the model believes of N points on G frames, after one of its stages."""

    xy: Tensor  # [G, N, 2] pixels of the initial resolution
    occlusion: Tensor  # [G, N] logit that the point is hidden
    expected_distance: Tensor  # [G, N] logit that the position is off

    def rows(self, rows: slice) -> "Estimate":
        """That of some of the points."""
        return Estimate(self.xy[:, rows], self.occlusion[:, rows], self.expected_distance[:, rows])

    @classmethod
    def joined(cls, parts: Sequence["Estimate"]) -> "Estimate":
        """That of all points, from those of some after others."""
        return cls(
            torch.cat([part.xy for part in parts], dim=1),
            torch.cat([part.occlusion for part in parts], dim=1),
            torch.cat([part.expected_distance for part in parts], dim=1),
        )


def certainty(occlusion: Tensor, expected_distance: Tensor) -> Tensor:
    """How likely a point is seen and its position right, from the two logits (TAPIR, section 3.1)."""
    return torch.sigmoid(-occlusion) * torch.sigmoid(-expected_distance)


def visibility(occlusion: Tensor, expected_distance: Tensor, above: float) -> Tensor:
    """Whether a point is seen and its position right, likelier than `above`."""
    return certainty(occlusion, expected_distance) > above
