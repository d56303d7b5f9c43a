"""Causal TAPIR, top to bottom: encode a frame, describe a point, match it, refine it (arXiv 2306.08637).

One model serves many streams: what a stream remembers is a `TrackState` that goes in with every frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from online_tapir.model.backbone import Backbone, Grids
from online_tapir.model.config import TapirConfig
from online_tapir.model.coordinates import Size
from online_tapir.model.matching import Estimate, Match, MatchingHead, describe
from online_tapir.model.refine import Refiner
from online_tapir.model.state import TrackState


@dataclass(frozen=True, slots=True)
class ClipTracks:
    """What `track_clip` found, and the features it found it with."""

    queries: Tensor  # [BT, N, C fine + coarse]
    grids: Grids  # of all frames, [BT, H, W, C]
    match: Match
    refined: list[Estimate]  # after each iteration


@dataclass(frozen=True, slots=True)
class FeaturePyramid:
    """What `encode` returns: the grids of every resolution. Points are matched on the first."""

    grids: tuple[Grids, ...]
    refined_from: int  # points are refined on grids[refined_from:]

    @property
    def match(self) -> Grids:
        return self.grids[0]

    @property
    def refine(self) -> tuple[Grids, ...]:
        return self.grids[self.refined_from :]


def visibility(occlusion: Tensor, expected_distance: Tensor, above: float) -> Tensor:
    """Whether a point is seen and its position right, likelier than `above`, from the two logits (TAPIR, 3.1)."""
    return torch.sigmoid(-occlusion) * torch.sigmoid(-expected_distance) > above


class Tapir(nn.Module):
    """The weights of a causal TAPIR and the stages that use them."""

    def __init__(self, config: TapirConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.matching = MatchingHead(config)
        self.refiner = Refiner(config)

    def encode(self, image: Tensor, refinement: Sequence[Size] = ()) -> FeaturePyramid:
        """Features of image [G, 3, H, W] in [-1, 1], for refinement at the given sizes (none: the initial one)."""
        initial = self.config.initial_resolution
        matched_only = bool(refinement) and refinement[0] != initial
        sizes = [initial, *refinement[0 if matched_only else 1 :]]
        grids = tuple(self.backbone(resize(image, size)) for size in sizes)
        return FeaturePyramid(grids, refined_from=int(matched_only))

    def describe(self, pyramid: FeaturePyramid, xy: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """Query features of points xy [P, 2], pixels of a frame of `size`: to match [P, C], to refine [R, P, C]."""
        frame = torch.zeros(len(xy), dtype=torch.long, device=xy.device)
        refine = torch.stack([describe(grids, frame, xy, size) for grids in pyramid.refine])
        match = describe(pyramid.match, frame, xy, size)[:, self.config.hires_channels :]
        return match, refine

    def match(self, pyramid: FeaturePyramid, state: TrackState) -> Match:
        """The first guess for every row of `state` on one frame."""
        found: Match = self.matching(state.match_queries[None], pyramid.match)
        return found

    def refine(self, pyramid: FeaturePyramid, first: Estimate, state: TrackState, phase: int) -> list[Estimate]:
        """The estimates [1, N] after each iteration at each resolution, last the best; `state` advances by one frame.

        `phase` is the parity of the frame's number; it must alternate from call to call (see tapir_kernels.mixer_step).
        """
        initial = pyramid.match.size
        estimates: list[Estimate] = []
        guess = first
        for level, grids in enumerate(pyramid.refine):
            guess = Estimate(guess.xy, first.occlusion, first.expected_distance)
            features = state.refine_queries[level][None]
            for iteration in range(self.config.iterations):
                motion = self._motion(guess.xy[0], state.previous_xy[level, iteration])[None]
                seen = self.refiner.inputs(grids, guess, features, motion, initial)
                change = self.refiner.mixer.step(seen[0], state.memory[level, iteration], phase)[None]
                guess, features = self.refiner.move(guess, features, change, grids, initial)
                estimates.append(guess)
        return estimates

    def _motion(self, xy: Tensor, previous: Tensor) -> Tensor:
        """How far guesses xy [N, 2] moved since the last frame, which `previous` [N, 2] remembers and now forgets."""
        if not self.config.motion_inputs:
            return torch.zeros_like(xy)
        moved = torch.nan_to_num(xy - previous)
        previous.copy_(xy)
        return moved

    def track_clip(self, clip: Tensor, xy: Tensor, query_frame: Tensor) -> ClipTracks:
        """All frames of clips at once, the same numbers as frame by frame: for training, and for whole videos.

        clip [B, T, 3, H, W] in [-1, 1] at the resolution to work at, H and W multiples of 8; xy [B, N, 2] pixels of it,
        each on frame query_frame [B, N]. What the estimates [BT, N] say of frames before a point's query means nothing.
        """
        batch, frames = clip.shape[:2]
        points = xy.shape[1]
        grids: Grids = self.backbone(clip.flatten(0, 1))
        first_frame = torch.arange(batch, device=xy.device)[:, None] * frames
        queries = describe(grids, (first_frame + query_frame).flatten(), xy.flatten(0, 1), grids.size)
        queries = queries.view(batch, 1, points, -1).expand(-1, frames, -1, -1).flatten(0, 1)  # [BT, N, C]
        alive = torch.arange(frames, device=xy.device)[:, None] >= query_frame[:, None]  # [B, T, N]

        match: Match = self.matching(queries[..., self.config.hires_channels :], grids)
        guess, features = match.estimate, queries
        estimates: list[Estimate] = []
        for _ in range(self.config.iterations):
            guess = Estimate(guess.xy.detach(), guess.occlusion, guess.expected_distance)
            motion = self._clip_motion(guess.xy.view(batch, frames, points, 2), alive).flatten(0, 1)
            seen = self.refiner.inputs(grids, guess, features, motion, grids.size)
            change = self.refiner.mixer.clip(
                seen.view(batch, frames, points, -1), alive[..., None].to(seen.dtype)
            ).flatten(0, 1)
            guess, features = self.refiner.move(guess, features, change, grids, grids.size)
            estimates.append(guess)
        return ClipTracks(queries, grids, match, estimates)

    def _clip_motion(self, xy: Tensor, alive: Tensor) -> Tensor:
        """How far guesses xy [B, T, N, 2] moved since the frame before; zero on a point's first frame."""
        if not self.config.motion_inputs:
            return torch.zeros_like(xy)
        moved = (xy[:, 1:] - xy[:, :-1]) * alive[:, :-1, :, None]
        return F.pad(moved, (0, 0, 0, 0, 1, 0))


def resize(image: Tensor, size: Size) -> Tensor:
    """image [G, 3, H, W] at `size`: bilinear, half-pixel centres, no antialiasing, as the checkpoints were trained."""
    if image.shape[2:] == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
