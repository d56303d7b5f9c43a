"""Refinement: the mixer updates the estimate from correlations around the current position."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from online_tapir.model import coordinates
from online_tapir.model.config import NEIGHBOURS, Size, TapirConfig
from online_tapir.model.estimate import Estimate
from online_tapir.model.grids import Grids
from online_tapir.model.mixer import Mixer
from online_tapir.model.recent import Recent
from online_tapir.model.taps import Tapping
from tapir_kernels import PATCH_RADIUS, PATCH_SAMPLES, local_correlations

MOTION_SCALE_PX = 16.0
MOTION_LIMIT = 4.0


class Refiner(nn.Module):
    """One refinement; iterations share its weights (TAPIR, section 3.2). Holds no state of a stream."""

    def __init__(self, config: TapirConfig) -> None:
        super().__init__()
        peaks = 2 * config.grids if config.peak_inputs else 0
        source = 4 + config.feature_channels + PATCH_SAMPLES * config.grids + peaks
        if config.recent_inputs:
            source += PATCH_SAMPLES * config.grids + peaks + 3
        source += NEIGHBOURS * PATCH_SAMPLES * config.neighbour_grids
        self.mixer = Mixer(config, source, 4 + config.feature_channels)
        self.config = config

    def inputs(
        self,
        grids: Grids,
        guess: Estimate,
        features: Tensor,
        neighbours: Tensor,
        motion: Tensor,
        initial: Size,
        recent: Recent | None,
        resolution: int,
        taps: Tapping | None = None,
    ) -> Tensor:
        """The mixer's input [G, N, D] for a guess (pixels of a picture of `initial` size) and features [G, N, C].

        neighbours [G, N, 8 C'] are the features of the query's neighbours (`describe_query`). motion [G, N, 2] is how
        far the guess moved since the last frame, in pixels of `initial`; `resolution` is the index of the refinement
        resolution that the grids belong to.
        """
        looks = [features] if recent is None else [features, recent.refine[resolution]]
        patches = self._patches(grids, guess.xy, looks, initial)
        moved = (motion / MOTION_SCALE_PX).clamp(-MOTION_LIMIT, MOTION_LIMIT)
        logits = torch.stack([guess.occlusion, guess.expected_distance], dim=-1)
        dtype = features.dtype
        parts = [moved.to(dtype), logits.to(dtype), features, *patches[0]]
        if recent is not None:
            expected = ((recent.expected_xy - guess.xy) / MOTION_SCALE_PX).clamp(-MOTION_LIMIT, MOTION_LIMIT)
            parts += [*patches[1], expected.to(dtype), recent.trust[..., None].to(dtype)]
        if self.config.neighbour_grids:
            parts.append(self.around(grids, guess.xy, neighbours, initial))
        if taps is not None:
            taps.correlated(grids, patches[0][0], None if recent is None else patches[1][0])
        return torch.cat(parts, dim=-1)

    def iterate(
        self,
        grids: Grids,
        guess: Estimate,
        features: Tensor,
        neighbours: Tensor,
        motion: Tensor,
        initial: Size,
        recent: Recent | None,
        resolution: int,
        mix: Callable[[Tensor], Tensor],
        taps: Tapping | None = None,
    ) -> tuple[Estimate, Tensor]:
        """One refinement: what `inputs` sees goes through `mix`, one frame of the mixer, and moves the guess."""
        change = mix(self.inputs(grids, guess, features, neighbours, motion, initial, recent, resolution, taps))
        return self.move(guess, features, change, grids, initial)

    def _patches(self, grids: Grids, xy: Tensor, looks: list[Tensor], initial: Size) -> list[list[Tensor]]:
        """For each of `looks` [G, N, C], correlations [G, N, 49 L] with all levels around xy, all computed at once.

        With `peak_inputs` also each patch's peak [G, N, 2 L].
        """
        patches = local_correlations(torch.cat(looks, dim=1), grids.levels, xy, initial)
        parts = [patches]
        if self.config.peak_inputs:
            by_level = patches.view(*patches.shape[:2], len(grids.levels), PATCH_SAMPLES)
            parts.append(_peak(by_level, self.config.softmax_temperature).flatten(-2))
        return [list(of_look) for of_look in zip(*(part.chunk(len(looks), dim=1) for part in parts), strict=True)]

    def around(self, grids: Grids, xy: Tensor, neighbours: Tensor, initial: Size) -> Tensor:
        """Correlations of each neighbour [G, N, 8 C'] of a query around xy, [G, N, 8 * 49 L], L the neighbours' levels.

        With the query's own they correlate a patch with a patch: local 4D correlation (LocoTrack, section 3.2).
        """
        groups, points = xy.shape[:2]
        looks = neighbours.view(groups, points, NEIGHBOURS, self.config.neighbour_channels)
        looks = looks.transpose(1, 2).flatten(1, 2).contiguous()  # [G, 8 N, C']; of a single point it would be a view
        found = local_correlations(looks, grids.levels[: self.config.neighbour_grids], xy, initial)
        return found.view(groups, NEIGHBOURS, points, found.shape[2]).transpose(1, 2).flatten(2)

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
    """Where a correlation patch [..., 49] peaks: the softmax's mean offset from the centre, -1..1, [..., 2] (x, y)."""
    side = 2 * PATCH_RADIUS + 1
    weight = F.softmax(patch * temperature, dim=-1).view(*patch.shape[:-1], side, side)
    offsets = torch.linspace(-1, 1, side, device=patch.device, dtype=patch.dtype)
    return torch.stack([weight.sum(dim=-2) @ offsets, weight.sum(dim=-1) @ offsets], dim=-1)
