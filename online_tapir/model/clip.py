"""Tracks points through whole clips, with gradients; same numbers as frame by frame. For training and whole videos."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from online_tapir.model.estimate import Estimate
from online_tapir.model.grids import Grids, describe_query
from online_tapir.model.matching import Match
from online_tapir.model.mixer import Past
from online_tapir.model.recent import Recent
from online_tapir.model.tapir import Tapir


@dataclass(frozen=True, slots=True)
class ClipTracks:
    """The results of `track_clip` and the features they were computed from."""

    queries: Tensor  # [BT, N, C fine + coarse]
    grids: Grids  # of all frames, [BT, H, W, C]
    match: Match
    refined: list[Estimate]  # after each iteration


def track_clip(
    model: Tapir, clip: Tensor, xy: Tensor, query_frame: Tensor, *, backbone_bf16: bool = False
) -> ClipTracks:
    """Tracks points through clips [B, T, 3, H, W] in [-1, 1] at the working resolution, H and W multiples of 8.

    xy [B, N, 2] are in pixels of that resolution, each on frame query_frame [B, N]. The estimates [BT, N] on frames
    before a point's query are meaningless.
    """
    batch, frames = clip.shape[:2]
    with torch.autocast(clip.device.type, torch.bfloat16, enabled=backbone_bf16):
        grids: Grids = model.backbone(clip.flatten(0, 1))
    if backbone_bf16:
        grids = Grids(grids.size, tuple(level.float() for level in grids.levels), grids.pooled)
    first_frame = torch.arange(batch, device=xy.device)[:, None] * frames
    named = (first_frame + query_frame).flatten()
    queries = describe_query(grids, named, xy.flatten(0, 1), grids.size, model.config.neighbour_grids)
    walk = _Walk(model, queries.view(*xy.shape[:2], -1), xy, query_frame)
    steps = [walk.step(frame, number) for number, frame in enumerate(grids.by_frame(frames))]
    matches, refined = zip(*steps, strict=True)
    match = Match(_joined([one.estimate for one in matches]), _by_frame([one.heat for one in matches]))
    return ClipTracks(
        walk.queries[:, None].expand(-1, frames, -1, -1).flatten(0, 1),
        grids,
        match,
        [_joined(estimates) for estimates in zip(*refined, strict=True)],
    )


class _Walk:
    """What a TrackState holds, for all clips at once, kept for backpropagation."""

    def __init__(self, model: Tapir, queries: Tensor, xy: Tensor, query_frame: Tensor) -> None:
        config = model.config
        self.model = model
        self.queries, self._neighbours = model.split(queries)  # [B, N, C], [B, N, 8 C']
        self._to_match = self.queries[..., -config.lowres_channels :].contiguous()
        self._query_frame = query_frame
        self._recent = Recent.begun(self._to_match, self.queries[None], xy) if config.recent_inputs else None
        self._past = [model.refiner.mixer.no_past() for _ in range(config.iterations)]
        self._previous_xy = [torch.full_like(xy, torch.nan) for _ in range(config.iterations)]

    def step(self, grids: Grids, number: int) -> tuple[Match, list[Estimate]]:
        """The first guess and the estimates after each iteration on frame `number`."""
        alive = self._query_frame <= number  # [B, N]
        refiner, recent = self.model.refiner, self._recent
        match: Match = self.model.matching(self._to_match, grids, recent)
        guess, features = match.estimate, self.queries
        estimates: list[Estimate] = []
        for past, previous_xy in zip(self._past, self._previous_xy, strict=True):
            guess = Estimate(guess.xy.detach(), guess.occlusion, guess.expected_distance)
            motion = self.model.motion(guess.xy, previous_xy, alive)

            def mix(seen: Tensor, past: list[Past] = past) -> Tensor:
                return refiner.mixer.frame(seen, alive[..., None].to(seen.dtype), past)

            guess, features = refiner.iterate(
                grids, guess, features, self._neighbours, motion, grids.size, recent, 0, mix
            )
            estimates.append(guess)
        if recent is not None:
            self._recent = recent.after(guess, grids, (grids,), grids.size).where(alive, recent)
        return match, estimates


def _joined(estimates: Sequence[Estimate]) -> Estimate:
    """Stacks per-frame estimates [B, N] into clip estimates [BT, N]."""
    return Estimate(
        _by_frame([one.xy for one in estimates]),
        _by_frame([one.occlusion for one in estimates]),
        _by_frame([one.expected_distance for one in estimates]),
    )


def _by_frame(parts: Sequence[Tensor]) -> Tensor:
    """Stacks per-frame tensors [B, ...] into [BT, ...]."""
    return torch.stack(list(parts), dim=1).flatten(0, 1)
