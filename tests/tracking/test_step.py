"""The step that a GPU replays, on a CPU: stand-ins for streams, events and graphs do at once what is asked of them.

What a real GPU adds - order between streams, a capture's own rules - is not tested here; see tests/model/test_static.py
for what a capture would refuse, and `python -m bench.gpu`.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from online_tapir.model.config import TapirConfig
from online_tapir.model.matching import Match
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import FeaturePyramid, Tapir
from online_tapir.model.taps import Taps
from online_tapir.records import Tracks
from online_tapir.tracking import graphed
from online_tapir.tracking import step as step_module
from online_tapir.tracking.tracker import Tracker
from tests.configs import LIKE_SMALL

Pictures = list[NDArray[np.uint8]]
MakeModel = Callable[..., Tapir]
MakeFrames = Callable[..., Pictures]


class Moment:
    """In place of a stream or an event."""

    def __init__(self, **options: bool) -> None: ...

    def record(self) -> None: ...

    def synchronize(self) -> None: ...

    def wait_event(self, event: "Moment") -> None: ...

    def wait_stream(self, stream: "Moment") -> None: ...

    def elapsed_time(self, other: "Moment") -> float:
        return 0.25


class Captures:
    """In place of `capture`: runs a stage whenever it is replayed; its result is where it was the first time."""

    def __init__(self) -> None:
        self.made = 0
        self.replayed: list[str] = []

    def __call__(self, stage: Callable[[], Any], pool: object) -> Callable[[], Any]:
        self.made += 1
        stage()  # as a warm-up would
        held: list[Tensor] = []
        name = stage.__name__

        def replay() -> Any:
            self.replayed.append(name)
            result = stage()
            if not isinstance(result, Tensor):
                return result
            if not held:
                held.append(torch.full_like(result, torch.nan))
            return held[0].copy_(result)

        return replay


class GraphTracker(Tracker):
    """A tracker whose step is the one of a GPU."""

    def __init__(self, *settings: Any, **more: Any) -> None:
        super().__init__(*settings, **more)
        self.lanes._graphs = self.lanes.batches = True


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Captures:
    for name in ("Stream", "Event"):
        monkeypatch.setattr(torch.cuda, name, Moment)
    for name in ("stream", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda which: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", Moment)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(graphed, "pinned", lambda shape, dtype: torch.empty(tuple(shape), dtype=dtype))
    found = Captures()
    monkeypatch.setattr(graphed, "capture", found)
    return found


@pytest.fixture(params=[False, True], ids=["public inputs", "own inputs"])
def model(request: pytest.FixtureRequest, make_model: MakeModel, tiny_config: TapirConfig) -> Tapir:
    own: bool = request.param
    return make_model(LIKE_SMALL if own else tiny_config)


def scattered(count: int, seed: int = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).random((count, 2)) * (96, 64)).astype(np.float32)


def assert_same(one: Tracks, other: Tracks) -> None:
    assert one.ids.tolist() == other.ids.tolist()
    assert (one.frame_id, one.width, one.height) == (other.frame_id, other.width, other.height)
    np.testing.assert_allclose(one.xy, other.xy, atol=1e-4, rtol=0)
    np.testing.assert_allclose(one.occlusion, other.occlusion, atol=1e-4, rtol=0)
    np.testing.assert_allclose(one.uncertainty, other.uncertainty, atol=1e-4, rtol=0)


@pytest.mark.parametrize("resolution", [None, (96, 64), (64, 96)])
def test_the_static_step_gives_the_tracks_of_the_dynamic_one(
    model: Tapir, make_frames: MakeFrames, captures: Captures, resolution: tuple[int, int] | None
) -> None:
    """Through points that are added, named late and removed, both parities and a camera that changes its size."""
    trackers = [kind(model, 16, window=4, resolution=resolution) for kind in (Tracker, GraphTracker)]
    frames = make_frames(6) + make_frames(4, 130, 161, seed=2)
    for index, frame in enumerate(frames):
        tracks = []
        for tracker in trackers:
            if index in (1, 4, 7):
                tracker.add(scattered(4, seed=index))
            if index in (3, 8):
                tracker.add(scattered(2, seed=index), frame_id=index - 2)
            if index in (4, 6):
                tracker.remove(tracker.ids[1:3])
            tracks.append(tracker.step(frame))
        assert_same(*tracks)
    assert len(tracks[0].ids) == 12
    assert captures.made == 3, "encode, match and refine, whatever came"


@pytest.mark.parametrize("largest", [1, 7_000, 16_000, 40_000])
def test_points_that_are_tracked_a_few_at_a_time_take_the_same_tracks(
    model: Tapir, make_frames: MakeFrames, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    """One by one; a few of them, and in one go at the most."""
    whole, parts = Tracker(model, 33), Tracker(model, 33)
    for tracker in (whole, parts):
        tracker.add(scattered(33))
    for frame in make_frames(3):
        expected = whole.step(frame)
        with monkeypatch.context() as patched:
            patched.setattr(step_module, "MATCH_BYTES", largest)
            patched.setattr(step_module, "REFINE_BYTES", largest)
            assert_same(parts.step(frame), expected)


def test_adding_and_removing_points_moves_no_buffer(model: Tapir, make_frames: MakeFrames, captures: Captures) -> None:
    tracker = GraphTracker(model, 8)
    frames = make_frames(6)
    tracker.step(frames[0])
    assert tracker.lanes.state is not None
    tensors = [tracker.lanes.state.memory, tracker.lanes.state.match_queries, tracker.lanes.state.previous_xy]
    before = [tensor.data_ptr() for tensor in tensors]
    for frame in frames[1:]:
        tracker.add(scattered(2))
        tracker.step(frame)
        tracker.remove(tracker.ids[:1])
    assert [tensor.data_ptr() for tensor in tensors] == before
    assert captures.made == 3


@pytest.mark.parametrize("kind", [Tracker, GraphTracker])
def test_what_is_saved_while_frames_are_under_way_is_of_the_newest(
    model: Tapir, make_frames: MakeFrames, captures: Captures, tmp_path: Path, kind: type[Tracker]
) -> None:
    whole, again = kind(model, 8), kind(model, 8)
    frames = make_frames(4)
    whole.add(scattered(5))
    for frame in frames[:2]:
        whole.submit(frame)
    assert whole.save_state(tmp_path / "points").frame_id == 1
    while whole.in_flight:
        whole.collect()
    again.load_state(tmp_path / "points")
    for frame in frames[2:]:
        assert_identical(again.step(frame), whole.step(frame))


def test_what_is_tried_before_the_first_frame_leaves_resumed_points_as_they_are(
    model: Tapir, make_frames: MakeFrames, captures: Captures, tmp_path: Path
) -> None:
    whole, again = GraphTracker(model, 8), GraphTracker(model, 8)
    frames = make_frames(6)
    whole.add(scattered(5))
    for frame in frames[:3]:
        whole.step(frame)
    whole.save_state(tmp_path / "points")
    again.load_state(tmp_path / "points")
    for frame in frames[3:]:
        assert_identical(again.step(frame), whole.step(frame))


@pytest.mark.parametrize("kind", [Tracker, GraphTracker])
def test_two_frames_under_way_give_what_one_at_a_time_gives(
    model: Tapir, make_frames: MakeFrames, captures: Captures, kind: type[Tracker]
) -> None:
    one, two = kind(model, 8), kind(model, 8)
    frames = make_frames(6)
    for tracker in (one, two):
        tracker.add(scattered(5))
    expected, found = [], []
    for index, frame in enumerate(frames):
        if index == 3:
            one.remove([1])
            two.remove([1])  # after frame 2 was submitted, before it is collected
        expected.append(one.step(frame))
        two.submit(frame)
        if two.in_flight == 2:
            found.append(two.collect())
    found.append(two.collect())
    for mine, theirs in zip(expected, found, strict=True):
        assert_same(mine, theirs)


@pytest.mark.parametrize("kind", [Tracker, GraphTracker])
@pytest.mark.parametrize("under_way", [1, 2])
def test_a_point_is_inspected_now_and_then_and_the_tracks_stay_the_same_to_the_bit(
    model: Tapir, make_frames: MakeFrames, captures: Captures, kind: type[Tracker], under_way: int
) -> None:
    plain, inspecting = kind(model, 8), kind(model, 8)
    inspected = {2: 3, 3: 3, 4: 0, 6: 4}  # by frame
    for tracker in (plain, inspecting):
        tracker.add(scattered(5))
    expected, found = [], []
    for index, frame in enumerate(make_frames(9)):
        expected.append(plain.step(frame))
        inspecting.inspect(inspected.get(index))
        inspecting.submit(frame)
        if inspecting.in_flight == under_way:
            found.append(inspecting.collect())
    while inspecting.in_flight:
        found.append(inspecting.collect())
    assert {t.frame_id: t.inspection.id for t in found if t.inspection is not None} == inspected
    for tracks, plain_tracks in zip(found, expected, strict=True):
        assert_identical(tracks, plain_tracks)
        if (seen := tracks.inspection) is not None:
            assert seen.stages[-1].xy.tolist() == tracks.xy[tracks.ids == seen.id][0].tolist()


def assert_identical(one: Tracks, other: Tracks) -> None:
    for name in ("ids", "xy", "visible", "occlusion", "uncertainty"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name


def test_beside_graphs_what_an_inspection_needs_is_launched_and_the_rest_is_replayed(
    model: Tapir, make_frames: MakeFrames, captures: Captures
) -> None:
    eager, graphed = Tracker(model, 8), GraphTracker(model, 8)
    frames = make_frames(4)
    for tracker in (eager, graphed):
        tracker.add(scattered(8))
        tracker.step(frames[0])
        tracker.inspect(2)
    for frame in frames[1:]:
        captures.replayed.clear()
        mine, theirs = (tracker.step(frame).inspection for tracker in (graphed, eager))
        assert captures.replayed == ["encode"]
        assert mine is not None
        assert theirs is not None
        np.testing.assert_allclose(mine.cost, theirs.cost, atol=1e-4, rtol=0)
        np.testing.assert_allclose(mine.correlations[-1].query, theirs.correlations[-1].query, atol=1e-4, rtol=0)
    graphed.inspect(None)
    captures.replayed.clear()
    graphed.step(make_frames(5)[4])
    assert captures.replayed == ["encode", "match", "refine"]


def test_memory_that_is_too_small_to_inspect_a_point_ends_no_run(
    model: Tapir,
    make_frames: MakeFrames,
    captures: Captures,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker, plain = GraphTracker(model, 8), GraphTracker(model, 8)
    frames = make_frames(3)
    for one in (tracker, plain):
        one.add(scattered(5))
        one.step(frames[0])
    match = model.match

    def limited(pyramid: FeaturePyramid, state: TrackState, taps: Taps | None) -> Match:
        if taps is not None:
            raise torch.OutOfMemoryError("a test")
        return match(pyramid, state)

    monkeypatch.setattr(model, "match", limited)
    tracker.inspect(3)
    for frame in frames[1:]:
        found = tracker.step(frame)
        assert found.inspection is None
        assert_identical(found, plain.step(frame))
    assert "leave too little memory to inspect" in caplog.text


def test_a_point_that_is_matched_in_a_batch_is_inspected_all_the_same(
    model: Tapir, make_frames: MakeFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    match = model.match

    def limited(pyramid: FeaturePyramid, state: TrackState, taps: Taps | None) -> Match:
        if len(state.match_queries) > 7:
            raise torch.OutOfMemoryError("a test")
        return match(pyramid, state, taps)

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    found = []
    for asked in (match, limited):
        monkeypatch.setattr(model, "match", asked)
        tracker = Tracker(model, 33)
        tracker.add(scattered(33))
        tracker.inspect(17)
        tracks = tracker.step(make_frames(1)[0])
        assert tracks.inspection is not None
        assert tracks.inspection.stages[-1].xy.tolist() == tracks.xy[17].tolist()
        found.append(tracks.inspection)
    whole, batched = found
    np.testing.assert_allclose(batched.cost, whole.cost, atol=1e-4, rtol=0)
    np.testing.assert_allclose(batched.heat, whole.heat, atol=1e-4, rtol=0)
    assert len(batched.stages) == len(whole.stages)


def test_what_is_not_collected_is_not_overtaken(model: Tapir, make_frames: MakeFrames) -> None:
    tracker = Tracker(model, 8)
    frames = make_frames(3)
    with pytest.raises(RuntimeError, match="no frame was submitted"):
        tracker.collect()
    tracker.submit(frames[0])
    with pytest.raises(RuntimeError, match="1 submitted frames were not collected"):
        tracker.step(frames[1])
    tracker.submit(frames[1])
    with pytest.raises(RuntimeError, match="2 submitted frames are under way"):
        tracker.submit(frames[2])
    assert [tracker.collect().frame_id, tracker.collect().frame_id] == [0, 1]
    assert tracker.step(frames[2]).frame_id == 2


def test_a_graphs_times_are_the_devices_own(model: Tapir, make_frames: MakeFrames, captures: Captures) -> None:
    times = GraphTracker(model, 8).step(make_frames(1)[0]).times
    assert times.upload == times.encode == times.refine == times.download == 250_000
