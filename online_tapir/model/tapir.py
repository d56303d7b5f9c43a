"""Causal TAPIR, top to bottom: encode a frame, describe a point, match it, refine it (arXiv 2306.08637).

One model serves many streams: each passes its own `TrackState` with every frame. `Taps`, if given, record what the
stages computed for one of its points.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from online_tapir.model import coordinates
from online_tapir.model.backbone import Backbone
from online_tapir.model.config import TapirConfig
from online_tapir.model.coordinates import Size
from online_tapir.model.estimate import Estimate
from online_tapir.model.grids import Grids, describe
from online_tapir.model.lean import LeanBackbone
from online_tapir.model.matching import Match, MatchingHead
from online_tapir.model.refine import Refiner
from online_tapir.model.state import TrackState
from online_tapir.model.taps import Taps


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

        Query features for matching [P, C] and refining [R, P, C]; positions [P, 2] in pixels of the initial resolution.
        """
        frame = torch.zeros(len(xy), dtype=torch.long, device=xy.device)
        refine = torch.stack([describe(grids, frame, xy, size) for grids in pyramid.refine])
        match = describe(pyramid.match, frame, xy, size)[:, -self.config.lowres_channels :]
        return match, refine, coordinates.rescale(xy, size, pyramid.match.size)

    def match(self, pyramid: FeaturePyramid, state: TrackState, taps: Taps | None = None) -> Match:
        """The first guess for every row of `state` on one frame."""
        found: Match = self.matching(state.match_queries[None], pyramid.match, state.recent, taps)
        return found

    def refine(
        self, pyramid: FeaturePyramid, first: Estimate, state: TrackState, phase: int, taps: Taps | None = None
    ) -> list[Estimate]:
        """The estimates [1, N] after each iteration at each resolution, the best last; `state` advances by one frame.

        `phase` is the parity of the frame's number; it must alternate from call to call (see tapir_kernels.mixer_step).
        """
        initial = pyramid.match.size
        estimates: list[Estimate] = []
        guess = first
        for level, grids in enumerate(pyramid.refine):
            guess = Estimate(guess.xy, first.occlusion, first.expected_distance)
            features = state.refine_queries[level][None]
            for iteration in range(self.config.iterations):
                motion = self.motion(guess.xy[0], state.previous_xy[level, iteration])[None]
                memory = state.memory[level, iteration]

                def mix(seen: Tensor, memory: Tensor = memory) -> Tensor:
                    return self.refiner.mixer.step(seen[0], memory, phase)[None]

                guess, features = self.refiner.iterate(
                    grids, guess, features, motion, initial, state.recent, level, mix, taps
                )
                estimates.append(guess)
                if taps is not None:
                    taps.refined(guess)
        if state.recent is not None:
            state.recent.copy_(state.recent.after(guess, pyramid.match, pyramid.refine, initial))
        return estimates

    def motion(self, xy: Tensor, previous: Tensor) -> Tensor:
        """How far guesses xy [N, 2] moved from `previous` [N, 2], which becomes xy; zeros without `motion_inputs`."""
        if not self.config.motion_inputs:
            return torch.zeros_like(xy)
        moved = torch.nan_to_num(xy - previous)
        previous.copy_(xy)
        return moved


def resize(image: Tensor, size: Size) -> Tensor:
    """Resizes image [G, 3, H, W] as in the checkpoints' training: bilinear, half-pixel centres, no antialiasing."""
    if image.shape[2:] == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
