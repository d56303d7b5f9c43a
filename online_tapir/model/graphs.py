"""The stages as pure functions of tensors, for other runtimes: encoder, query and step, without in-place updates.

One stream, one resolution, a fixed number of rows. A step takes the tensors of a TrackState and returns the next ones.
Its memory holds the older input and the sum that is due first, whatever the frame's parity (`mixer_advance`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from online_tapir.model.config import Size
from online_tapir.model.estimate import packed
from online_tapir.model.grids import Grids, describe_query
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import Tapir

# The state's tensors that a step changes, in the order in which it returns them.
CHANGING = ("memory", "previous_xy", "recent.match", "recent.refine", "recent.xy", "recent.velocity", "recent.age")


class EncoderGraph(nn.Module):
    """Image [1, 3, H, W] in [-1, 1] to the levels of its grids, fine to coarse, each [1, h, w, C]."""

    def __init__(self, model: Tapir) -> None:
        super().__init__()
        self.backbone = model.backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        grids: Grids = self.backbone(image)
        return grids.levels


class QueryGraph(nn.Module):
    """Levels and points xy [P, 2], in pixels of `size`, to what their slots begin with.

    Features to match by [P, C coarse], to refine by [1, P, C fine + coarse and the neighbours'], and the last without
    the neighbours', which the last sight begins with.
    """

    def __init__(self, model: Tapir, size: Size) -> None:
        super().__init__()
        self.size = size
        self.config = model.config

    def forward(self, xy: Tensor, *levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config, grids = self.config, Grids(self.size, levels, self.config.pyramid_levels)
        frame = torch.zeros(xy.shape[0], dtype=torch.long, device=xy.device)
        queries = describe_query(grids, frame, xy, self.size, config.neighbour_grids)
        features = queries[:, : config.feature_channels]
        return features[:, -config.lowres_channels :], queries[None], features[None]


class StepGraph(nn.Module):
    """Levels of a frame and the state's tensors to the estimates [N, 4] (see `estimate.packed`) and the next state."""

    def __init__(self, model: Tapir, size: Size, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.names = tuple(names)
        self.levels = model.config.grids

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        model, levels = self.model, tensors[: self.levels]
        grids = Grids(self.size, levels, model.config.pyramid_levels)
        state = TrackState.of(dict(zip(self.names, tensors[self.levels :], strict=True)))
        guess = model.matching(state.match_queries[None], grids, state.recent).estimate
        features, neighbours = model.split(state.refine_queries[0][None])
        memories, places = [], []
        for iteration in range(model.config.iterations):
            previous = state.previous_xy[0, iteration]
            motion = torch.where(torch.isnan(previous), 0.0, guess.xy[0] - previous)[None]
            if not model.config.motion_inputs:
                motion = torch.zeros_like(guess.xy)
            places.append(guess.xy[0] if model.config.motion_inputs else previous)
            seen = model.refiner.inputs(grids, guess, features, neighbours, motion, self.size, state.recent, 0)
            change, memory = model.refiner.mixer.advance(seen[0], state.memory[0, iteration])
            memories.append(memory)
            guess, features = model.refiner.move(guess, features, change[None], grids, self.size)
        following = TrackState(
            state.match_queries,
            state.refine_queries,
            torch.stack(memories)[None],
            torch.stack(places)[None],
            None if state.recent is None else state.recent.after(guess, grids, (grids,), self.size),
        )
        changed = [tensor for name, tensor in following.tensors.items() if name in CHANGING]
        return (packed(guess), *changed)
