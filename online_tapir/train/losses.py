"""The TAPIR losses on the first guess and on every refinement, plus a cross-entropy that bootstraps the matching."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from online_tapir.model import coordinates
from online_tapir.model.clip import ClipTracks
from online_tapir.model.estimate import Estimate
from online_tapir.model.grids import Grids, describe
from online_tapir.scenes.clips import Clips
from online_tapir.scenes.views import ViewPairs
from tapir_kernels import cost_volume

LEAST_STRIDE = 4  # the correlation loss skips grids with a smaller stride


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights of the loss terms; pixels are at the training resolution."""

    position: float = 0.1  # smooth L1 of the error in pixels
    position_log: float = 0.3  # log1p of the error in half pixels: rewards relative improvements
    position_cap_px: float = 24.0  # larger errors are failures of the matching and get no gradient
    occlusion: float = 1.0
    expected_distance: float = 0.5
    expected_distance_px: float = 6.0  # a position with a larger error counts as wrong (TAPIR, section 3.4)
    heat: float = 0.3
    correlation: float = 0.1  # heat loss on the raw dot products, so that features become discriminative
    matching: float = 0.5  # of features on pairs of views, beside the clips
    first_guess: float = 0.5  # all losses of the first guess; the last refinement has weight 1
    earlier: float = 0.7  # weight of each refinement relative to the next one
    returned: float = 3.0  # frames on which a point is visible again; those before it was hidden have weight 1


@dataclass(frozen=True, slots=True)
class Truth:
    """The truth of a batch of clips, in the layout of the model's estimates: [B T, N]."""

    xy: Tensor  # [BT, N, 2]
    visible: Tensor  # [BT, N] bool
    tracked: Tensor  # [BT, N] bool: from the query on
    returned: Tensor  # [BT, N] bool: visible again after being hidden since the query

    @classmethod
    def of(cls, clips: Clips) -> "Truth":
        frames = clips.frames.shape[1]
        alive = torch.arange(frames, device=clips.xy.device)[:, None] >= clips.query_frame[:, None]  # [B, T, N]
        visible = clips.visible.transpose(1, 2)  # [B, T, N]
        returned = visible & (alive & ~visible).cumsum(dim=1).bool()
        return cls(
            clips.xy.transpose(1, 2).flatten(0, 1), visible.flatten(0, 1), alive.flatten(0, 1), returned.flatten(0, 1)
        )

    def sights(self, weights: LossWeights) -> Tensor:
        """The weight of each frame in the position losses, [BT, N]: 0 before the query and while hidden."""
        return (self.visible & self.tracked) * torch.where(self.returned, weights.returned, 1.0)


def clip_loss(tracks: ClipTracks, truth: Truth, temperature: float, weights: LossWeights) -> Tensor:
    """The training loss of one batch of clips; heat maps and dot products are multiplied by `temperature`."""
    size = tracks.grids.size
    first = estimate_loss(tracks.match.estimate, truth, weights)
    first = first + weights.heat * heat_loss(tracks.match.heat * temperature, truth, size, weights)
    levels = tracks.grids.describing
    for features, grid in zip(
        torch.split(tracks.queries, [level.shape[3] for level in levels], dim=2), levels, strict=True
    ):
        if size[0] < LEAST_STRIDE * grid.shape[1]:
            continue  # a finer grid is too ambiguous to match on; it only has to tell refinement which way to move
        correlations = cost_volume(features, grid) * temperature
        first = first + weights.correlation * heat_loss(correlations, truth, size, weights)
    total = weights.first_guess * first
    for index, estimate in enumerate(reversed(tracks.refined)):
        total = total + weights.earlier**index * estimate_loss(estimate, truth, weights)
    return total


def estimate_loss(estimate: Estimate, truth: Truth, weights: LossWeights) -> Tensor:
    """Losses of position and uncertainty on visible points and of occlusion on all (TAPIR, section 3.4)."""
    seen = truth.sights(weights)
    error = (estimate.xy - truth.xy).square().sum(dim=-1).add(1e-10).sqrt()  # [BT, N] pixels
    capped = error.clamp_max(weights.position_cap_px)
    huber = F.smooth_l1_loss(capped, torch.zeros_like(error), beta=1.0, reduction="none")
    occlusion = F.binary_cross_entropy_with_logits(
        estimate.occlusion, (~truth.visible).to(estimate.occlusion.dtype), reduction="none"
    )
    wrong = (error.detach() > weights.expected_distance_px).to(error.dtype)
    distance = F.binary_cross_entropy_with_logits(estimate.expected_distance, wrong, reduction="none")
    return (
        weights.position * _mean(huber, seen)
        + weights.position_log * _mean(torch.log1p(2 * capped), seen)
        + weights.occlusion * _mean(occlusion, truth.tracked)
        + weights.expected_distance * _mean(distance, seen)
    )


def heat_loss(logits: Tensor, truth: Truth, size: tuple[int, int], weights: LossWeights) -> Tensor:
    """Cross-entropy of heat maps [BT, N, H, W] (logits) against the truth, spread bilinearly over four cells."""
    height, width = logits.shape[2:]
    cells = coordinates.rescale(truth.xy, size, (height, width)) - 0.5
    corner = torch.floor(cells)
    share = cells - corner
    log_probability = torch.log_softmax(logits.flatten(2).float(), dim=2)  # [BT, N, HW]
    total = torch.zeros_like(share[..., 0])
    for down in (0, 1):
        for across in (0, 1):
            x = (corner[..., 0].long() + across).clamp(0, width - 1)
            y = (corner[..., 1].long() + down).clamp(0, height - 1)
            weight = (share[..., 0] if across else 1 - share[..., 0]) * (share[..., 1] if down else 1 - share[..., 1])
            total = total - weight * log_probability.gather(2, (y * width + x)[..., None])[..., 0]
    return _mean(total, truth.sights(weights))


def matching_loss(features: Tensor, pairs: ViewPairs, temperature: float) -> Tensor:
    """Cross-entropy of finding first-view points on the second view; features [2B, h, w, C] of both, unit length."""
    batch, points = pairs.shared.shape
    size = (pairs.first.shape[2], pairs.first.shape[3])
    first, second = features[:batch], features[batch:]
    index = torch.arange(batch, device=features.device).repeat_interleave(points)
    queries = describe(Grids(size, (first,), 0), index, pairs.first_xy.flatten(0, 1), size)
    scores = cost_volume(F.normalize(queries, dim=-1).view(batch, points, -1), second) * temperature
    nowhere = torch.zeros_like(pairs.shared)
    truth = Truth(pairs.second_xy, pairs.shared, torch.ones_like(pairs.shared), nowhere)
    return heat_loss(scores, truth, size, LossWeights())


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return (values * counted).sum() / counted.sum().clamp_min(1)
