"""Taps hold the tensors that the stages computed, to the bit, change none of them and compute nothing anew."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from online_tapir.model.config import PRESETS
from online_tapir.model.estimate import Estimate
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import FeaturePyramid, Tapir, phase_of
from online_tapir.model.taps import Sight, Taps
from online_tapir.testing import tiny_config
from tapir_kernels import cost_volume, cost_volume_head, local_correlations

MakeModel = Callable[..., Tapir]
MakeFrames = Callable[..., list[NDArray[np.uint8]]]

SIZE = (64, 96)
ROW, POINTS = 3, 7
ODD = phase_of(1, torch.device("cpu"))
ALWAYS = torch.ones(1, 1, dtype=torch.bool)
PUBLIC = tiny_config(name="like the published", iterations=3, pyramid_levels=2, peak_inputs=False, motion_inputs=False)
SMALL = replace(PRESETS["small"], initial_resolution=SIZE, neighbour_grids=2)
CONFIGS = [PUBLIC, SMALL, replace(PUBLIC, recent_inputs=True)]
COPYING = {"clone", "select", "view", "stack", "cat", "to", "_to_copy", "alias", "slice", "unsqueeze"}


class Stream:
    """A model and the state of points on the second frame of a stream, about to be matched there."""

    def __init__(self, model: Tapir, frames: list[NDArray[np.uint8]], sizes: list[tuple[int, int]]) -> None:
        self.model = model
        first, self.pyramid = (model.encode(as_image(frame), sizes) for frame in frames[:2])
        self.state = TrackState.empty(model.config, max(1, len(sizes)), POINTS, torch.device("cpu"), torch.float32)
        xy = torch.rand(POINTS, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([SIZE[1], SIZE[0]])
        self.state.begin(0, *model.describe(first, xy, SIZE))
        self.track(first, 0)

    def track(self, pyramid: FeaturePyramid, phase: int, taps: Taps | None = None) -> list[Estimate]:
        first = self.model.match(pyramid, self.state, taps).estimate
        return [first, *self.model.refine(pyramid, first, self.state, phase_of(phase, torch.device("cpu")), taps)]


def as_image(frame: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 127.5 - 1  # [1, 3, H, W]


@pytest.fixture(params=[[], [(96, 64)], [SIZE, (96, 128)]], ids=["initial", "another", "two"])
def sizes(request: pytest.FixtureRequest) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = request.param
    return found


@pytest.fixture(params=CONFIGS, ids=lambda config: config.name)
def stream(
    request: pytest.FixtureRequest, make_model: MakeModel, make_frames: MakeFrames, sizes: list[tuple[int, int]]
) -> Stream:
    return Stream(make_model(request.param), make_frames(2), sizes)


def test_the_maps_and_the_first_guess_are_the_models_own(stream: Stream) -> None:
    taps = Taps(ROW)
    found = stream.model.match(stream.pyramid, stream.state, taps)
    queries, recent, coarse = stream.state.match_queries[None], stream.state.recent, stream.pyramid.match.coarse
    planes = [cost_volume(queries, coarse)]
    if recent is not None:
        planes += [cost_volume(recent.match, coarse), recent.closeness(coarse.shape[1:3], SIZE)]  # type: ignore[arg-type]
    cost = torch.stack(planes, dim=2)  # [1, N, K, H, W]
    head = stream.model.matching
    convolutions = [(layer.weight, layer.bias) for layer in (head.hidden, head.heat, head.occlusion_conv)]
    reading = cost_volume_head(cost[0], *(part for pair in convolutions for part in pair), head.temperature)
    sight = taps.sight
    assert torch.equal(sight.cost, cost[0, ROW])
    assert torch.equal(sight.heat, reading.heat[ROW])
    assert torch.equal(sight.heat, found.heat[0, ROW])
    assert torch.equal(sight.estimates[0], row_of(found.estimate))


def test_every_patch_and_every_estimate_is_the_models_own(stream: Stream, sizes: list[tuple[int, int]]) -> None:
    """Running features are not taken from the taps, but walked through the refinements by hand."""
    model, config = stream.model, stream.model.config
    before = copied(stream.state)
    taps = Taps(ROW)
    estimates = stream.track(stream.pyramid, 1, taps)
    assert len(taps.sight.patches) == config.iterations * len(stream.pyramid.refine)
    assert all(torch.equal(mine, row_of(its)) for mine, its in zip(taps.sight.estimates, estimates, strict=True))
    guess, number = estimates[0], 0
    for level, grids in enumerate(stream.pyramid.refine):
        guess = Estimate(guess.xy, estimates[0].occlusion, estimates[0].expected_distance)
        features, neighbours = model.split(before.refine_queries[level][None])
        for iteration in range(config.iterations):
            seen = taps.sight.patches[number]
            assert seen.resolution == (sizes or [SIZE])[level] == grids.size
            assert seen.grids == tuple(tuple(grid.shape[1:3]) for grid in grids.levels)
            assert_patches(seen.query, local_correlations(features, grids.levels, guess.xy, SIZE))
            if before.recent is None:
                assert seen.recent is None
            else:
                last_sights = before.recent.refine[level]
                assert_patches(seen.recent, local_correlations(last_sights, grids.levels, guess.xy, SIZE))
            motion = model.motion(guess.xy, before.previous_xy[None, level, iteration], ALWAYS)
            inputs = model.refiner.inputs(grids, guess, features, neighbours, motion, SIZE, before.recent, level)
            change = model.refiner.mixer.step(inputs[0], before.memory[level, iteration], ODD)[None]
            guess, features = model.refiner.move(guess, features, change, grids, SIZE)
            number += 1
    assert torch.equal(taps.sight.estimates[-1], row_of(guess))


def assert_patches(found: Tensor | None, expected: Tensor) -> None:
    """found [L, 49] of row ROW; expected [1, N, 49 L]."""
    assert found is not None
    assert found.shape[1] == 49
    assert torch.equal(found.flatten(), expected[0, ROW])


def test_the_estimates_and_the_state_are_the_same_with_taps_and_without(stream: Stream) -> None:
    plain, tapped = stream.state, copied(stream.state)
    found = []
    for state, taps in ((plain, None), (tapped, Taps(ROW))):
        stream.state = state
        found.append(stream.track(stream.pyramid, 1, taps))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.xy, other.xy)
        assert torch.equal(one.occlusion, other.occlusion)
        assert torch.equal(one.expected_distance, other.expected_distance)
    for one, other in zip(tensors(plain), tensors(tapped), strict=True):
        assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))


def test_without_taps_nothing_is_done_and_with_them_only_copies_are_made(
    stream: Stream, count_ops: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    for taps in (None, Taps(ROW), None):
        with count_ops() as ops, torch.inference_mode():
            stream.track(stream.pyramid, 1, taps)
        counts.append(ops.asked)
    assert counts[0] == counts[2]
    assert set(counts[1] - counts[0]) <= COPYING
    assert not counts[0] - counts[1]
    for name in ("matched", "correlated", "refined", "__init__"):
        monkeypatch.setattr(Taps, name, None)  # whoever calls it fails
    stream.track(stream.pyramid, 0)


def test_what_was_seen_stays_as_it_was_on_the_next_frame(stream: Stream) -> None:
    taps = Taps(ROW)
    stream.track(stream.pyramid, 1, taps)
    kept = taps.sight.flat().clone()
    stream.track(stream.pyramid, 0)
    for tensor in tensors(stream.state):
        tensor.zero_()
    assert torch.equal(taps.sight.flat(), kept)


def test_a_sight_survives_its_way_to_the_host(stream: Stream) -> None:
    taps = Taps(ROW)
    stream.track(stream.pyramid, 1, taps)
    arrived = taps.sight.filled(taps.sight.flat().clone())
    assert_same(arrived, taps.sight)
    empty = taps.sight.filled(torch.zeros_like(taps.sight.flat()))
    assert not any(tensor.any() for tensor in (empty.cost, empty.heat, *empty.estimates, empty.patches[-1].query))


def assert_same(one: Sight, other: Sight) -> None:
    assert torch.equal(one.cost, other.cost)
    assert torch.equal(one.heat, other.heat)
    assert all(torch.equal(a, b) for a, b in zip(one.estimates, other.estimates, strict=True))
    for mine, theirs in zip(one.patches, other.patches, strict=True):
        assert (mine.resolution, mine.grids) == (theirs.resolution, theirs.grids)
        assert torch.equal(mine.query, theirs.query)
        assert (mine.recent is None) == (theirs.recent is None)
        assert mine.recent is None or theirs.recent is None or torch.equal(mine.recent, theirs.recent)


def test_a_stage_of_some_rows_taps_the_same_point_and_one_without_it_none(stream: Stream) -> None:
    taps, whole = Taps(ROW), Taps(ROW)
    stream.model.match(stream.pyramid, stream.state, whole)
    for start, stop in ((0, 3), (3, 5), (5, POINTS)):
        there = taps.within(start, stop)
        assert (there is None) == (start != 3)
        stream.model.match(stream.pyramid, stream.state.rows(start, stop), there)
    torch.testing.assert_close(taps.sight.flat(), whole.sight.flat(), atol=1e-4, rtol=0)


def row_of(estimate: Estimate) -> Tensor:
    logits = [estimate.occlusion[0, ROW, None], estimate.expected_distance[0, ROW, None]]
    return torch.cat([estimate.xy[0, ROW], *logits])


def tensors(state: TrackState) -> list[Tensor]:
    recent = [] if state.recent is None else state.recent.tensors
    return [state.match_queries, state.refine_queries, state.memory, state.previous_xy, *recent]


def copied(state: TrackState) -> TrackState:
    recent = state.recent and type(state.recent)(*(tensor.clone() for tensor in state.recent.tensors))
    return TrackState(*(tensor.clone() for tensor in tensors(state)[:4]), recent)
