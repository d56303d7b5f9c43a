"""Laws of the model: a stream is its clip, the past is fixed, points do not meet, shapes are free."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from online_tapir import Tracker
from online_tapir.model import refine
from online_tapir.model.clip import track_clip
from online_tapir.model.config import PRESETS, TapirConfig
from online_tapir.model.estimate import visibility
from online_tapir.model.grids import describe, describe_query
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import Tapir, phase_of
from tapir_kernels import local_correlations

MakeModel = Callable[..., Tapir]
MakeFrames = Callable[..., list[NDArray[np.uint8]]]


def as_clip(frames: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None].float() / 127.5 - 1  # [1, T, 3, H, W]


def stream(model: Tapir, clip: Tensor, xy: Tensor, query_frame: Tensor) -> list[list[Tensor]]:
    """Frame by frame, one point at a time: positions and logits [T][N, 4] from each point's query on."""
    size = (clip.shape[3], clip.shape[4])
    results: list[list[Tensor]] = []
    for point, start in zip(xy[0], query_frame[0].tolist(), strict=True):
        state = TrackState.empty(model.config, 1, 1, torch.device("cpu"), torch.float32)
        track = []
        for number in range(start, clip.shape[1]):
            pyramid = model.encode(clip[:, number])
            if number == start:
                state.begin(0, *model.describe(pyramid, point[None], size))
            phase = phase_of(number, torch.device("cpu"))
            best = model.refine(pyramid, model.match(pyramid, state).estimate, state, phase)[-1]
            track.append(torch.cat([best.xy[0, 0], best.occlusion[0], best.expected_distance[0]]))
        results.append(track)
    return results


@pytest.mark.parametrize("size", [(64, 96), (64, 64), (96, 40)])
@pytest.mark.parametrize("own_inputs", [True, False])
def test_a_stream_gives_what_the_whole_clip_gives(
    make_model: MakeModel, make_frames: MakeFrames, tiny_config: TapirConfig, size: tuple[int, int], own_inputs: bool
) -> None:
    config = replace(
        tiny_config,
        initial_resolution=size,
        peak_inputs=own_inputs,
        motion_inputs=own_inputs,
        recent_inputs=own_inputs,
        described_by=(0, 1, 3) if own_inputs else (1, 3),
        neighbour_grids=2 if own_inputs else 0,
    )
    model = make_model(config)
    clip = as_clip(make_frames(6, *size))
    xy = torch.rand(1, 7, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([size[1], size[0]])
    query_frame = torch.tensor([[0, 0, 1, 2, 3, 4, 5]])
    last = track_clip(model, clip, xy, query_frame).refined[-1]
    for point, track in enumerate(stream(model, clip, xy, query_frame)):
        start = int(query_frame[0, point])
        whole = torch.cat([last.xy, last.occlusion[..., None], last.expected_distance[..., None]], dim=-1)[
            start:, point
        ]
        torch.testing.assert_close(torch.stack(track), whole, atol=1e-4, rtol=0)


def test_a_query_brings_along_what_lies_two_cells_around_it_on_the_finest_grids(
    make_model: MakeModel, make_frames: MakeFrames, tiny_config: TapirConfig
) -> None:
    config = replace(tiny_config, initial_resolution=(64, 96), described_by=(0, 1, 3), neighbour_grids=2)
    model = make_model(config)
    pyramid = model.encode(as_clip(make_frames(1, 64, 96))[:, 0])
    xy = torch.tensor([[40.0, 30.0], [51.3, 22.9]])
    _, refine, _ = model.describe(pyramid, xy, (64, 96))
    features, neighbours = model.split(refine[0])
    assert torch.equal(features, describe(pyramid.match, torch.zeros(2, dtype=torch.long), xy, (64, 96)))
    fine, middle = config.described_channels[:2]
    around = [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)]
    for (x, y), found in zip(around, neighbours.view(2, 8, fine + middle).unbind(1), strict=True):
        for pixels, first, channels in ((4, 0, fine), (8, fine, middle)):  # two cells at strides 2 and 4
            there = xy + torch.tensor([x, y]) * pixels
            expected = describe(pyramid.match, torch.zeros(2, dtype=torch.long), there, (64, 96))
            part = slice(first, first + channels)
            torch.testing.assert_close(found[:, part], expected[:, part])


def test_kernels_are_given_contiguous_looks_of_one_point_in_each_of_several_streams(
    make_model: MakeModel, make_frames: MakeFrames, tiny_config: TapirConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher refuses others, and of a single point a transposed tensor may be a view with its old strides."""
    config = replace(tiny_config, initial_resolution=(64, 96), described_by=(0, 1, 3), neighbour_grids=2)
    model = make_model(config)
    clip = as_clip(make_frames(2))[0]
    grids = model.encode(clip).refine[0]
    xy = torch.tensor([[30.0, 20.0], [50.0, 40.0]])
    queries = describe_query(grids, torch.arange(2), xy, (64, 96), 2)[:, None]
    given = []

    def asked(features: Tensor, levels: Sequence[Tensor], xy: Tensor, size: tuple[int, int]) -> Tensor:
        given.append(features.is_contiguous())
        return local_correlations(features, levels, xy, size)

    monkeypatch.setattr(refine, "local_correlations", asked)
    model.refiner.around(grids, xy[:, None], model.split(queries)[1], (64, 96))
    assert given == [True]


def test_on_its_own_frame_a_neighbours_patch_peaks_at_the_neighbour(
    make_model: MakeModel, make_frames: MakeFrames, tiny_config: TapirConfig
) -> None:
    """It is compared with what surrounds the point."""
    config = replace(tiny_config, initial_resolution=(64, 96), described_by=(0, 1, 3), neighbour_grids=2)
    model = make_model(config)
    grids = model.encode(as_clip(make_frames(1, 64, 96))[:, 0]).match
    xy = torch.tensor([[42.0, 30.0]])  # in the middle of cells of 4 pixels
    _, neighbours = model.split(describe_query(grids, torch.zeros(1, dtype=torch.long), xy, (64, 96), 2))
    patches = model.refiner.around(grids, xy[None], neighbours[None], (64, 96)).view(8, 2, 7, 7)
    for index, (x, y) in enumerate([(-2, -2), (0, -2), (2, -2), (-2, 0), (2, 0), (-2, 2), (0, 2), (2, 2)]):
        assert patches[index, 1, 3 + y, 3 + x] == pytest.approx(1, abs=1e-5)  # unit features: with itself
        assert patches[index, 1].max() <= 1 + 1e-5


def test_no_points_are_no_error(make_model: MakeModel, make_frames: MakeFrames, tiny_config: TapirConfig) -> None:
    config = replace(tiny_config, described_by=(0, 1, 3), neighbour_grids=2, recent_inputs=True)
    tracker = Tracker(make_model(config), 4)
    assert [len(tracker.step(rgb).ids) for rgb in make_frames(3, 64, 96)] == [0, 0, 0]


def test_the_stages_move_the_estimate(make_model: MakeModel, make_frames: MakeFrames) -> None:
    """Guards the laws here against a model whose refinement does nothing."""
    tracks = track_clip(make_model(), as_clip(make_frames(4)), torch.tensor([[[40.0, 30.0]]]), torch.tensor([[0]]))
    assert (tracks.refined[0].xy - tracks.match.estimate.xy).abs().max() > 0.01
    assert (tracks.refined[1].xy - tracks.refined[0].xy).abs().max() > 0.01


def test_visible_means_likely_seen_and_likely_right() -> None:
    occlusion, distance = torch.tensor([-9.0, 9.0, -9.0, -0.5, -1.0]), torch.tensor([-9.0, -9.0, 9.0, -0.5, -1.0])
    assert visibility(occlusion, distance, 0.5).tolist() == [True, False, False, False, True]
    assert visibility(occlusion, distance, 0.3).tolist() == [True, False, False, True, True]


def test_the_embedded_preset_has_at_most_three_million_parameters() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Tapir(PRESETS["small"]).parameters()) <= 3_000_000


@pytest.mark.parametrize(("dtype", "mib"), [(torch.float32, 0.38), (torch.bfloat16, 0.19), (torch.float16, 0.19)])
def test_a_point_of_the_published_model_costs_at_most_0_38_mib_of_memory_and_half_that_in_half_precision(
    dtype: torch.dtype, mib: float
) -> None:
    state = TrackState.empty(PRESETS["bootstapir"], 1, 3, torch.device("meta"), dtype)
    assert state.bytes_per_point <= mib * 2**20


def test_the_published_model_has_its_published_number_of_parameters() -> None:
    """54.70 M, of which ours keeps the second temporal bias summed: 3 of every 4 of 12 x 2048 values fewer."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in Tapir(PRESETS["bootstapir"]).parameters())
    assert round((count + 12 * 2048 * 3 // 4) / 1e6, 2) == 54.70
