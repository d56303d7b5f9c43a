"""Causal TAPIR, top to bottom: encode a frame, describe a point, match it, refine it (arXiv 2306.08637).

One model serves many streams: each passes its own `TrackState` with every frame, or several lanes share one, whose rows
are theirs lane after lane, and pass a frame each as a batch. `Tapping`, if given, records what the stages computed for
one of the points.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from online_tapir.model import coordinates
from online_tapir.model.backbone import Backbone
from online_tapir.model.config import Size, TapirConfig
from online_tapir.model.estimate import Estimate
from online_tapir.model.grids import Grids, describe, describe_query
from online_tapir.model.lean import LeanBackbone
from online_tapir.model.matching import Match, MatchingHead
from online_tapir.model.refine import Refiner
from online_tapir.model.state import TrackState
from online_tapir.model.taps import Tapping
from tapir_kernels import IDLE


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


class Tapir(nn.Module):
    """The weights of a causal TAPIR and the stages that use them."""

    def __init__(self, config: TapirConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = LeanBackbone(config) if config.trunk == "lean" else Backbone(config)
        self.matching = MatchingHead(config)
        self.refiner = Refiner(config)

    def at(self, size: Size) -> "Tapir":
        """The same weights for frames matched at `size` (height, width), multiples of 8. Raises ConfigError."""
        sized = copy.copy(self)  # shares the modules, and so the weights
        sized.config = replace(self.config, initial_resolution=size)
        return sized

    def encode(self, image: Tensor, refinement: Sequence[Size] = ()) -> FeaturePyramid:
        """Features of image [G, 3, H, W] in [-1, 1], for refinement at the given sizes (default: the initial one)."""
        return self.encode_resized([resize(image, size) for size in self.sizes(refinement)], refinement)

    def encode_resized(self, images: Sequence[Tensor], refinement: Sequence[Size] = ()) -> FeaturePyramid:
        """Like `encode`, for a frame that is resized already: images [G, 3, H, W] of `sizes(refinement)`."""
        grids = tuple(self.backbone(image) for image in images)
        return FeaturePyramid(grids, refined_from=len(images) - max(1, len(refinement)))

    def sizes(self, refinement: Sequence[Size] = ()) -> list[Size]:
        """The sizes that a frame is encoded at: the initial one to match on, and those to refine at."""
        initial = self.config.initial_resolution
        return [initial, *(refinement[1:] if refinement and refinement[0] == initial else refinement)]

    def describe(self, pyramid: FeaturePyramid, xy: Tensor, size: Size) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of TrackState.begin for points xy [P, 2], in pixels of a frame of `size`.

        Query features for matching [P, C] and refining [R, P, C + 8 C'] (`describe_query`); positions [P, 2] in pixels
        of the initial resolution.
        """
        frame = torch.zeros(len(xy), dtype=torch.long, device=xy.device)
        neighbours = self.config.neighbour_grids
        refine = torch.stack([describe_query(grids, frame, xy, size, neighbours) for grids in pyramid.refine])
        match = describe(pyramid.match, frame, xy, size)[:, -self.config.lowres_channels :]
        return match, refine, coordinates.rescale(xy, size, pyramid.match.size)

    def match(self, pyramid: FeaturePyramid, state: TrackState, taps: Tapping | None = None) -> Match:
        """The first guess [G, N / G] for every row of `state` on the frames of its G lanes."""
        lanes = len(pyramid.match.coarse)
        recent = None if state.recent is None else state.recent.by_lane(lanes)
        found: Match = self.matching(by_lane(state.match_queries, lanes), pyramid.match, recent, taps)
        return found

    def refine(
        self, pyramid: FeaturePyramid, first: Estimate, state: TrackState, phase: Tensor, taps: Tapping | None = None
    ) -> list[Estimate]:
        """The estimates [G, N / G] after each iteration at each resolution, the best last; `state` advances by a frame.

        phase, int32 [G], is the parity of the number of each lane's frame, which must alternate from frame to frame, or
        IDLE for a lane without one, whose rows do not change (see `tapir_kernels.mixer_step`).
        """
        initial, lanes = pyramid.match.size, len(phase)
        there = (phase != IDLE)[:, None]  # [G, 1]
        recent = None if state.recent is None else state.recent.by_lane(lanes)
        estimates: list[Estimate] = []
        guess = first
        for level, grids in enumerate(pyramid.refine):
            guess = Estimate(guess.xy, first.occlusion, first.expected_distance)
            features, neighbours = self.split(by_lane(state.refine_queries[level], lanes))
            for iteration in range(self.config.iterations):
                motion = self.motion(guess.xy, by_lane(state.previous_xy[level, iteration], lanes), there)
                memory = state.memory[level, iteration]

                def mix(seen: Tensor, memory: Tensor = memory) -> Tensor:
                    return by_lane(self.refiner.mixer.step(seen.flatten(0, 1), memory, phase), lanes)

                guess, features = self.refiner.iterate(
                    grids, guess, features, neighbours, motion, initial, recent, level, mix, taps
                )
                estimates.append(guess)
                if taps is not None:
                    taps.refined(guess)
        if recent is not None:
            after = recent.after(guess, pyramid.match, pyramid.refine, initial)
            recent.copy_(after.where(there, recent))
        return estimates

    def split(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The features [..., C] in what points are refined by, and those of their neighbours, [..., 8 C']."""
        features = self.config.feature_channels
        return queries[..., :features], queries[..., features:]

    def motion(self, xy: Tensor, previous: Tensor, there: Tensor) -> Tensor:
        """How far guesses xy [G, N, 2] moved from `previous` [G, N, 2], which becomes xy where `there` [G, N or 1].

        Zeros for a model without `motion_inputs`.
        """
        if not self.config.motion_inputs:
            return torch.zeros_like(xy)
        moved = torch.nan_to_num(xy - previous)
        previous.copy_(torch.where(there[..., None], xy, previous))
        return moved


def by_lane(rows: Tensor, lanes: int) -> Tensor:
    """A view of rows [N, C] as [S, N / S, C], for S lanes with as many rows each."""
    return rows.view(lanes, len(rows) // lanes, rows.shape[1])


def phase_of(number: int, device: torch.device) -> Tensor:
    """The phase [1] of a frame with this number, for `Tapir.refine`."""
    return torch.full((1,), number & 1, dtype=torch.int32, device=device)


def resize(image: Tensor, size: Size) -> Tensor:
    """Resizes image [G, 3, H, W] as in the checkpoints' training: bilinear, half-pixel centres, no antialiasing."""
    if image.shape[2:] == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
