"""Laws of the tracker: late points catch up, slots do not meet, nothing is remembered of what was removed."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from online_tapir.errors import ConfigError, FrameError, QueryError
from online_tapir.model.config import TapirConfig
from online_tapir.model.tapir import Tapir
from online_tapir.records import Frame, Tracks
from online_tapir.tracking.tracker import Tracker

Pictures = list[NDArray[np.uint8]]
MakeModel = Callable[..., Tapir]
MakeFrames = Callable[..., Pictures]
TOLERANCE_PX = 1e-4


@pytest.fixture
def model(make_model: MakeModel) -> Tapir:
    return make_model()


def scattered(count: int, width: int = 96, height: int = 64, seed: int = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).random((count, 2)) * (width, height)).astype(np.float32)


def run(tracker: Tracker, frames: Pictures) -> Tracks:
    for frame in frames:
        tracks = tracker.step(frame)
    return tracks


def assert_same(one: Tracks, other: Tracks, tolerance: float = TOLERANCE_PX) -> None:
    np.testing.assert_allclose(one.xy, other.xy, atol=tolerance, rtol=0)
    np.testing.assert_allclose(one.occlusion, other.occlusion, atol=tolerance, rtol=0)
    np.testing.assert_allclose(one.uncertainty, other.uncertainty, atol=tolerance, rtol=0)
    assert (one.visible == other.visible).all()


@pytest.mark.parametrize("points", [1, 7, 33])
@pytest.mark.parametrize("resolution", [None, (96, 64), "frame"])
def test_a_late_point_has_the_same_track_as_one_added_on_time(
    model: Tapir, make_frames: MakeFrames, points: int, resolution: tuple[int, int] | str | None
) -> None:
    frames = make_frames(9, 130, 161)
    xy = scattered(points, 161, 130)
    on_time, late = (Tracker(model, 64, window=6, resolution=resolution) for _ in range(2))  # type: ignore[arg-type]
    late.add(scattered(3, seed=9))
    run(on_time, frames[:2])
    run(late, frames[:2])
    on_time.add(xy)
    run(on_time, frames[2:6])
    run(late, frames[2:6])
    late.add(xy, frame_id=2)
    for frame in frames[6:]:
        expected, found = on_time.step(frame), late.step(frame)
        rows = slice(3, None)
        found = dataclasses.replace(
            found,
            xy=found.xy[rows],
            occlusion=found.occlusion[rows],
            uncertainty=found.uncertainty[rows],
            visible=found.visible[rows],
        )
        assert_same(expected, found)


def test_a_point_may_be_named_on_the_oldest_frame_of_the_window_and_no_earlier(
    model: Tapir, make_frames: MakeFrames
) -> None:
    frames = make_frames(9)
    on_time, late = Tracker(model, 8, window=3), Tracker(model, 8, window=3)
    run(on_time, frames[:5])
    run(late, frames[:5])
    on_time.add([[40, 30]])
    expected = run(on_time, frames[5:])
    run(late, frames[5:8])
    assert late.frame_ids == [5, 6, 7]
    with pytest.raises(QueryError, match=r"frame 4 has left the window of 3; a query may name frames 5"):
        late.add([[40, 30]], frame_id=4)
    with pytest.raises(QueryError, match="frame 8 has not been tracked yet"):
        late.add([[40, 30]], frame_id=8)
    late.add([[40, 30]], frame_id=5)
    assert_same(expected, late.step(frames[8]))


def test_a_query_on_a_dropped_frame_is_refused_by_name(model: Tapir, make_frames: MakeFrames) -> None:
    tracker = Tracker(model, 8)
    with pytest.raises(QueryError, match="before any frame"):
        tracker.add([[1, 1]], frame_id=0)
    for id, rgb in zip((3, 7), make_frames(2), strict=True):
        tracker.step(Frame(id, 0, 0, rgb))
    with pytest.raises(QueryError, match="frame 5 was dropped by the source"):
        tracker.add([[1, 1]], frame_id=5)


def test_a_query_that_leaves_the_window_with_the_next_frame_is_still_answered(
    model: Tapir, make_frames: MakeFrames
) -> None:
    frames = make_frames(4)
    tracker = Tracker(model, 8, window=2)
    run(tracker, frames[:3])
    tracker.add([[40, 30]], frame_id=1)
    assert len(tracker.step(frames[3]).ids) == 1


def test_future_frames_do_not_change_the_past(model: Tapir, make_frames: MakeFrames) -> None:
    frames = make_frames(6)
    other_future = frames[:4] + make_frames(2, seed=5)
    one, other = Tracker(model, 16), Tracker(model, 16)
    one.add(scattered(7))
    other.add(scattered(7))
    past = [(one.step(a), other.step(b)) for a, b in zip(frames, other_future, strict=True)]
    for mine, theirs in past[:4]:
        assert_same(mine, theirs, 0)
    assert np.abs(past[5][0].xy - past[5][1].xy).max() > 0.1


def test_slots_do_not_influence_each_other(model: Tapir, make_frames: MakeFrames) -> None:
    frames = make_frames(6)
    alone, crowded = Tracker(model, 64), Tracker(model, 64)
    alone.add([[40, 30]])
    crowded.add([[40, 30]])
    crowded.add(scattered(33))
    for index, frame in enumerate(frames):
        if index == 3:
            crowded.remove(crowded.ids[5:20])
            crowded.add(scattered(9, seed=4))
        mine, theirs = alone.step(frame), crowded.step(frame)
        np.testing.assert_allclose(mine.xy[0], theirs.xy[0], atol=TOLERANCE_PX, rtol=0)
        np.testing.assert_allclose(mine.occlusion[0], theirs.occlusion[0], atol=TOLERANCE_PX, rtol=0)


def test_removing_and_adding_leaves_no_memory_of_the_old_point(model: Tapir, make_frames: MakeFrames) -> None:
    frames = make_frames(8)
    used, fresh = Tracker(model, 3), Tracker(model, 3)
    used.add(scattered(3, seed=8))
    run(used, frames[:4])
    run(fresh, frames[:4])
    used.remove(used.ids)
    used.add(scattered(3))
    fresh.add(scattered(3))
    for frame in frames[4:]:
        assert_same(used.step(frame), fresh.step(frame), 0)


def test_a_removed_point_leaves_the_others_as_they_were(model: Tapir, make_frames: MakeFrames) -> None:
    frames = make_frames(7)
    whole, thinned = Tracker(model, 16), Tracker(model, 16)
    ids = whole.add(scattered(7))
    thinned.add(scattered(7))
    run(whole, frames[:3])
    run(thinned, frames[:3])
    thinned.remove([0, 3, 6])
    for frame in frames[3:]:
        expected, found = whole.step(frame), thinned.step(frame)
        kept = ~np.isin(ids, [0, 3, 6])
        assert found.ids.tolist() == ids[kept].tolist()
        np.testing.assert_allclose(found.xy, expected.xy[kept], atol=TOLERANCE_PX, rtol=0)


def test_ids_ascend_and_are_never_used_twice(model: Tapir, make_frames: MakeFrames) -> None:
    tracker = Tracker(model, 4)
    seen: list[int] = []
    for frame in make_frames(5):
        seen += tracker.add(scattered(2)).tolist()
        tracks = tracker.step(frame)
        assert tracks.ids.tolist() == sorted(tracks.ids.tolist())
        assert tracks.ids.dtype == np.int32
        tracker.remove(tracks.ids[:2])
    assert seen == list(range(10))


def test_adding_and_removing_allocates_no_new_state(model: Tapir, make_frames: MakeFrames) -> None:
    tracker = Tracker(model, 8)
    frames = make_frames(6)
    tracker.step(frames[0])
    assert tracker.lanes.state is not None
    before = tracker.lanes.state.memory.data_ptr()
    for frame in frames[1:]:
        tracker.add(scattered(2))
        tracker.step(frame)
        tracker.remove(tracker.ids[:1])
    assert tracker.lanes.state.memory.data_ptr() == before


def test_a_stream_without_points_goes_on(model: Tapir, make_frames: MakeFrames) -> None:
    tracks = run(Tracker(model, 8), make_frames(3))
    assert tracks.xy.shape == (0, 2)
    assert tracks.frame_id == 2


@pytest.mark.parametrize("size", [(16, 16), (33, 161), (240, 97)])
def test_any_frame_size_and_aspect_is_tracked_in_its_own_pixels(
    model: Tapir, make_frames: MakeFrames, size: tuple[int, int]
) -> None:
    frames = make_frames(3, *size)
    tracker = Tracker(model, 8)
    tracker.add([[size[1], size[0]], [0, 0]])
    tracks = run(tracker, frames)
    assert (tracks.width, tracks.height) == (size[1], size[0])
    assert np.isfinite(tracks.xy).all()


def test_scaling_the_picture_scales_the_tracks(model: Tapir, make_frames: MakeFrames) -> None:
    frames = make_frames(4, 64, 96)
    doubled = [frame.repeat(2, axis=0).repeat(2, axis=1) for frame in frames]
    small, large = Tracker(model, 8), Tracker(model, 8)
    small.add(scattered(7))
    large.add(2 * scattered(7))
    for a, b in zip(frames, doubled, strict=True):  # a doubled picture, sampled at half its size, is the picture
        np.testing.assert_allclose(2 * small.step(a).xy, large.step(b).xy, atol=1e-3, rtol=0)


def test_one_model_serves_many_streams(model: Tapir, make_frames: MakeFrames) -> None:
    frames, others = make_frames(4), make_frames(4, seed=3)
    alone, beside, other = Tracker(model, 8), Tracker(model, 8), Tracker(model, 8)
    for tracker in (alone, beside, other):
        tracker.add(scattered(5))
    expected = run(alone, frames)
    for frame, noise in zip(frames, others, strict=True):
        other.step(noise)
        found = beside.step(frame)
    assert_same(expected, found, 0)


def test_half_precision_stays_near_full_precision(make_model: MakeModel, make_frames: MakeFrames) -> None:
    frames = make_frames(3)
    full, half = Tracker(make_model(), 8), Tracker(make_model().to(torch.bfloat16), 8)
    full.add([[40, 30]])
    half.add([[40, 30]])
    expected, found = run(full, frames), run(half, frames)
    np.testing.assert_allclose(found.xy, expected.xy, atol=4.0, rtol=0)
    assert 0 < half.bytes_per_point < 0.6 * full.bytes_per_point + 64


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[97.0, 5.0]], "97"),
        ([[-1.0, 5.0]], "-1"),
        ([[float("nan"), 5.0]], "nan"),
    ],
)
def test_points_outside_the_frame_are_refused(
    model: Tapir, make_frames: MakeFrames, points: list[list[float]], message: str
) -> None:
    tracker = Tracker(model, 8)
    tracker.add(points)
    tracker.add([[5.0, 5.0]])
    with pytest.raises(QueryError, match=message):
        tracker.step(make_frames(1)[0])
    assert tracker.step(make_frames(1)[0]).ids.tolist() == [1]
    with pytest.raises(QueryError, match=message):
        tracker.add(points)


def test_more_points_than_there_is_room_for_are_refused(model: Tapir) -> None:
    tracker = Tracker(model, 8)
    tracker.add(scattered(6))
    with pytest.raises(QueryError, match=r"3 points asked for beside the 6 .* room for 8.*--max-points"):
        tracker.add(scattered(3))
    tracker.add(scattered(2))


def test_a_wrong_shape_of_points_and_an_unknown_id_are_refused(model: Tapir) -> None:
    tracker = Tracker(model, 8)
    with pytest.raises(QueryError, match=r"\[3\]"):
        tracker.add([1, 2, 3])
    tracker.add(scattered(2))
    with pytest.raises(QueryError, match="no point 7"):
        tracker.remove([0, 7])
    assert tracker.ids.tolist() == [0, 1]


def test_frames_out_of_order_are_refused(model: Tapir, make_frames: MakeFrames) -> None:
    tracker = Tracker(model, 8)
    rgb = make_frames(1)[0]
    tracker.step(Frame(5, 0, 0, rgb))
    with pytest.raises(FrameError, match="frame 5 came after frame 5"):
        tracker.step(Frame(5, 0, 0, rgb))
    assert tracker.step(rgb).frame_id == 6


def test_a_picture_that_must_not_be_written_is_tracked_all_the_same(model: Tapir, make_frames: MakeFrames) -> None:
    rgb = make_frames(1)[0]
    rgb.flags.writeable = False
    assert Tracker(model, 1).step(rgb).frame_id == 0


def test_a_tracker_without_room_or_window_is_refused(model: Tapir) -> None:
    for wrong in ({"max_points": 0}, {"window": 0}):
        with pytest.raises(ConfigError):
            Tracker(model, **wrong)
    with pytest.raises(ConfigError, match="not a multiple of 8"):
        Tracker(model, resolution=(100, 100)).step(np.zeros((64, 64, 3), np.uint8))


def test_the_configuration_refuses_a_resolution_the_strides_cannot_divide() -> None:
    with pytest.raises(ConfigError, match="100x256"):
        TapirConfig(initial_resolution=(100, 256))


def test_a_device_without_kernels_is_refused_where_they_are_required(model: Tapir) -> None:
    with pytest.raises(ConfigError, match="kernels are required on cpu, which runs the reference: "):
        Tracker(model, require_kernels=True)
