"""A tracker with two paths keeps what the plain one promises: ids, late points, removal, saved states, errors."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from online_tapir.errors import FrameError, QueryError
from online_tapir.flow.model_thread import ModelThread
from online_tapir.flow.tracker import FlowTracker
from online_tapir.model.tapir import Tapir
from online_tapir.records import Frame, Tracks
from online_tapir.testing import Grid, ListSink, SyntheticCamera, run, sliding_pictures
from online_tapir.tracking.tracker import Tracker

PICTURES = sliding_pictures(24, 96, 128)
XY = np.array([[60, 40], [80, 60]], np.float32)
LONG = 30.0


def frame(number: int) -> Frame:
    return Frame(number, number * 33_000_000, number * 33_000_000, PICTURES[number % len(PICTURES)])


class SlowTracker(Tracker):
    """The model's answers come when the test lets them."""

    def __init__(self, model: Tapir, **how: Any) -> None:
        super().__init__(model, **how)
        self.go = threading.Semaphore(0)
        self.done = threading.Semaphore(0)

    def collect(self) -> Tracks:
        assert self.go.acquire(timeout=LONG)
        tracks = super().collect()
        self.done.release()
        return tracks


@pytest.fixture
def slow(make_model: Callable[..., Tapir]) -> Iterator[tuple[SlowTracker, FlowTracker]]:
    inner = SlowTracker(make_model(), max_points=8, window=6)
    with closing(FlowTracker(inner)) as tracker:
        yield inner, tracker
        inner.go.release(100)


@pytest.fixture
def patient(make_model: Callable[..., Tapir]) -> Iterator[FlowTracker]:
    with closing(FlowTracker(Tracker(make_model(), max_points=8, window=6), waits=True)) as tracker:
        yield tracker


def answer(tracker: FlowTracker, number: int) -> Tracks:
    tracker.submit(frame(number))
    return tracker.collect()


def test_every_frame_is_answered_though_the_model_never_is(slow: tuple[SlowTracker, FlowTracker]) -> None:
    _, tracker = slow
    ids = tracker.add(XY)
    for number in range(6):
        tracks = answer(tracker, number)
        assert (tracks.frame_id, tracks.model_frame_id) == (number, -1)
        assert_array_equal(tracks.ids, ids)
        assert_allclose(tracks.xy, XY + number * np.array([-3, -1]), atol=0.3)


def test_the_capture_stage_is_the_age_of_the_frame_itself(make_model: Callable[..., Tapir]) -> None:
    now_ns = [0]
    inner = Tracker(make_model(), max_points=8, window=6)
    with closing(FlowTracker(inner, waits=True, clock=lambda: now_ns[0])) as tracker:
        tracker.add(XY)
        for number, age_ns in enumerate((7_000_000, 9_000_000)):
            now_ns[0] = frame(number).captured_ns + age_ns
            assert answer(tracker, number).times.capture == age_ns


def test_the_model_takes_the_newest_frame_and_its_answer_is_said_with_its_number(
    slow: tuple[SlowTracker, FlowTracker],
) -> None:
    inner, tracker = slow
    tracker.add(XY)
    for number in range(4):
        answer(tracker, number)
    inner.go.release(2)  # what it had taken, and then the newest
    tracker._wait_for_answer(3, LONG)
    assert answer(tracker, 4).model_frame_id in (3, 4)  # 1 and 2 were replaced before it took them


def test_where_the_model_answers_in_time_its_frames_are_all_seen(patient: FlowTracker) -> None:
    patient.add(XY)
    for number in range(5):
        tracks = answer(patient, number)
        assert tracks.model_frame_id == tracks.frame_id == number


def test_ids_are_those_of_a_plain_tracker_whatever_is_added_and_removed(
    patient: FlowTracker, make_model: Callable[..., Tapir]
) -> None:
    plain = Tracker(make_model(), max_points=8, window=6)
    for number in range(8):
        for tracker in (plain, patient):
            if number in (0, 3):
                tracker.add(XY)
            if number == 2:
                tracker.remove([0])
            if number == 5:
                tracker.add(XY[:1], frame_id=3)
            if number == 6:
                tracker.clear()
            if number == 7:
                tracker.add(XY)
        expected, found = plain.step(frame(number)), answer(patient, number)
        assert_array_equal(found.ids, expected.ids)
        assert_array_equal(patient.ids, plain.ids)


def test_a_late_point_is_in_the_very_next_answer_where_flow_carries_it(slow: tuple[SlowTracker, FlowTracker]) -> None:
    _, tracker = slow
    for number in range(5):
        answer(tracker, number)
    (id,) = tracker.add(XY[:1] + 2 * np.array([-3, -1], np.float32), frame_id=2)
    tracks = answer(tracker, 5)
    assert tracks.ids.tolist() == [id]
    assert_allclose(tracks.xy, XY[:1] + 5 * np.array([-3, -1]), atol=0.3)
    with pytest.raises(QueryError, match="has left the window"):
        tracker.add(XY[:1], frame_id=99)


def test_what_does_not_fit_or_is_outside_is_refused_as_by_a_plain_tracker(patient: FlowTracker) -> None:
    with pytest.raises(QueryError, match="room for 8"):
        patient.add(np.full((9, 2), 20))
    patient.add([[500, 5]])
    with pytest.raises(QueryError, match="outside"):
        patient.submit(frame(0))
    with pytest.raises(QueryError, match="no point 7"):
        patient.remove([7])


def test_an_error_of_the_model_is_raised_by_the_next_call(slow: tuple[SlowTracker, FlowTracker]) -> None:
    inner, tracker = slow
    tracker.add(XY)

    def fails() -> Tracks:
        raise ValueError("the model broke")

    inner.collect = fails  # type: ignore[method-assign]
    tracker.submit(frame(0))
    tracker._wait_for_answer(0, LONG)
    with pytest.raises(ValueError, match="the model broke"):
        tracker.collect()


def test_points_go_on_from_a_saved_state(
    patient: FlowTracker, make_model: Callable[..., Tapir], tmp_path: Path
) -> None:
    patient.add(XY)
    for number in range(3):
        answer(patient, number)
    from online_tapir.tracking import state_file

    state_file.write(tmp_path / "points", patient.saved_state())
    with closing(FlowTracker(Tracker(make_model(), max_points=8, window=6), waits=True)) as second:
        second.load_state(tmp_path / "points")
        assert second.ids.tolist() == [0, 1]
        assert answer(second, 0).ids.tolist() == [0, 1]
        assert second.add(XY).tolist() == [2, 3]


def test_a_live_run_with_flow_answers_every_frame_in_order(make_model: Callable[..., Tapir]) -> None:
    sink = ListSink()
    with closing(FlowTracker(Tracker(make_model(), max_points=8, window=6))) as tracker:
        follower: Any = tracker
        run(SyntheticCamera(PICTURES), follower, Grid(3, 2), [sink])
    assert [tracks.frame_id for tracks in sink.tracks] == list(range(24))
    assert {tuple(tracks.ids) for tracks in sink.tracks} == {(0, 1, 2, 3, 4, 5)}


def test_removing_points_while_a_frame_is_on_offer_gives_them_out_once(slow: tuple[SlowTracker, FlowTracker]) -> None:
    inner, tracker = slow
    answer(tracker, 0)
    tracker.add(XY, frame_id=0)
    answer(tracker, 1)
    tracker.remove([0])
    for number in range(2, 6):
        answer(tracker, number)
    inner.go.release(100)
    tracker._wait_for_answer(5, LONG)
    assert answer(tracker, 6).ids.tolist() == [1]


def test_points_named_on_frames_in_any_order_keep_their_ids_in_order(patient: FlowTracker) -> None:
    for number in range(6):
        answer(patient, number)
    patient.add(XY, frame_id=5)
    patient.add(XY, frame_id=2)
    assert answer(patient, 6).ids.tolist() == [0, 1, 2, 3]
    assert answer(patient, 7).ids.tolist() == [0, 1, 2, 3]


def test_restored_points_stand_before_those_that_were_added_since(
    patient: FlowTracker, make_model: Callable[..., Tapir], tmp_path: Path
) -> None:
    from online_tapir.tracking import state_file

    patient.add(XY)
    answer(patient, 0)
    state_file.write(tmp_path / "points", patient.saved_state())
    with closing(FlowTracker(Tracker(make_model(), max_points=8, window=6), waits=True)) as second:
        second.load_state(tmp_path / "points")
        second.add(XY)
        for number in range(3):
            assert answer(second, number).ids.tolist() == [0, 1, 2, 3]


def test_a_state_that_is_saved_has_the_points_that_the_model_has_not_seen(patient: FlowTracker) -> None:
    answer(patient, 0)
    answer(patient, 1)
    ids = patient.add(XY, frame_id=1)
    saved = patient.saved_state()
    assert saved.next_id == 2
    assert np.union1d(saved.ids, saved.waiting_ids).tolist() == ids.tolist()
    assert_allclose(saved.waiting_xy, XY)


def test_a_save_does_not_wait_for_the_frame_on_offer(slow: tuple[SlowTracker, FlowTracker]) -> None:
    """While the model works on one frame and the next is on offer, a save comes before the next."""
    inner, tracker = slow
    tracker.submit(frame(0))
    inner.go.release()
    tracker.collect()
    assert inner.done.acquire(timeout=LONG)
    tracker.submit(frame(1))
    tracker.collect()
    while tracker._offered is not None:
        time.sleep(0.001)
    ids = tracker.add(XY, frame_id=1)
    tracker.submit(frame(2))  # on offer, with the points, while the model is busy with frame 1
    tracker.collect()

    def finish_frame_1() -> None:
        while not tracker.is_asked:
            time.sleep(0.001)
        inner.go.release()

    threading.Thread(target=finish_frame_1, daemon=True).start()
    saved = tracker.saved_state()
    assert saved.frame_id == 1
    assert np.union1d(saved.ids, saved.waiting_ids).tolist() == ids.tolist()
    assert np.isfinite(saved.waiting_xy).all()


def test_points_that_are_removed_again_and_again_keep_no_other_camera_from_the_model(
    make_model: Callable[..., Tapir],
) -> None:
    thread = ModelThread()
    inner = [SlowTracker(make_model(), max_points=8, window=6) for _ in range(2)]
    with (
        closing(thread),
        closing(FlowTracker(inner[0], thread=thread)) as one,
        closing(FlowTracker(inner[1], thread=thread)) as other,
    ):
        for number in range(12):
            for tracker in (one, other):
                tracker.submit(frame(number))
                tracker.collect()
            one.remove(one.add(XY[:1], frame_id=number))  # a task, for which nobody waits
            for slow in inner:
                slow.go.release()
            time.sleep(0.02)
        deadline = time.monotonic() + LONG
        while other.answer is None and time.monotonic() < deadline:
            number += 1
            other.submit(frame(number))
            other.collect()
            time.sleep(0.01)
        assert other.answer is not None
        for slow in inner:
            slow.go.release(100)


def test_a_point_that_overflowed_is_left_out_of_the_state(patient: FlowTracker) -> None:
    patient.add(np.concatenate([XY, XY[:1] + 5]), frame_id=None)
    answer(patient, 0)
    answer(patient, 1)
    with torch.inference_mode():
        patient._tracker.lanes.state.memory[..., 1, :] = torch.inf
    saved = patient.saved_state()
    assert saved.ids.tolist() == [0, 2]
    assert saved.waiting_ids.tolist() == []


def test_frames_out_of_order_are_refused_and_a_closed_tracker_says_so(patient: FlowTracker) -> None:
    answer(patient, 3)
    with pytest.raises(FrameError, match="frame 2 came after frame 3"):
        patient.submit(frame(2))
    patient.close()
    with pytest.raises(RuntimeError, match="closed"):
        patient.saved_state()


def test_a_point_that_flow_loses_before_the_model_sees_it_is_learned_on_a_frame_that_the_model_has_seen(
    slow: tuple[SlowTracker, FlowTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, tracker = slow
    answer(tracker, 0)
    inner.go.release()
    tracker._wait_for_answer(0, LONG)
    answer(tracker, 1)
    with tracker._changed:  # the model takes it, and is busy from now on
        assert tracker._changed.wait_for(lambda: tracker._offered is None, LONG)
    learned: list[tuple[list[int], np.ndarray, int | None]] = []
    adopt = inner.adopt

    def watched(ids: Any, xy: Any, frame_id: int | None = None, looks: Any = None) -> None:
        learned.append((ids.tolist(), xy, frame_id))
        adopt(ids, xy, frame_id, looks)

    monkeypatch.setattr(inner, "adopt", watched)
    ids = tracker.add(XY)
    answer(tracker, 2)
    elsewhere = np.random.default_rng(5).integers(0, 255, PICTURES[0].shape, np.uint8)
    tracker.submit(Frame(3, 99_000_000, 99_000_000, elsewhere))  # a cut: flow has lost the points
    assert not tracker.collect().visible.any()
    inner.go.release(2)
    tracker._wait_for_answer(3, LONG)
    ((told, xy, frame_id),) = learned
    assert (told, frame_id) == (ids.tolist(), 0), "not where they were in what is now another scene"
    assert_allclose(xy, XY + 2 * np.array([3, 1]), atol=0.3)


def test_points_of_a_saved_state_are_corrected_by_the_model_like_any_other(
    make_model: Callable[..., Tapir], tmp_path: Path
) -> None:
    with closing(FlowTracker(Tracker(make_model(), max_points=8, window=6), waits=True)) as before:
        before.add(XY)
        answer(before, 0)
        before._tracker.save_state(tmp_path / "points")
    with closing(FlowTracker(Tracker(make_model(), max_points=8, window=6), waits=True)) as tracker:
        tracker.load_state(tmp_path / "points")
        tracker.submit(frame(1))
        tracker.collect()
        tracker.add(XY)
        answer(tracker, 2)
        anchors = tracker._fusion._points["anchor"]
        assert anchors.tolist() == [-1, -1, 2, 2], "where the model found them is not where people named them"
