"""The loop hands every frame on in order, stops when told, and compares with the truth it is given."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.camera import Camera, Capture, Health, Reconnect, SyntheticCamera
from online_tapir.camera.demo import DemoCamera, DemoScene
from online_tapir.clock import StepClock
from online_tapir.errors import CameraError, QueryError
from online_tapir.live.roster import Member, Roster
from online_tapir.live.run import Run
from online_tapir.live.sink import Sink
from online_tapir.live.status import Status
from online_tapir.live.stream import Stream
from online_tapir.live.truth import DemoTruth
from online_tapir.model.tapir import Tapir
from online_tapir.points.placement import NOWHERE, Grid, Listed
from online_tapir.points.replenish import PATIENCE_FRAMES, Replenisher
from online_tapir.records import Frame, Label, Queries, Tracks
from online_tapir.testing import FakeTracker, ListSink, run
from online_tapir.tracking.tracker import Tracker
from online_tapir.wire.messages import Heartbeat

Pictures = list[NDArray[np.uint8]]
GRID = Grid(3, 2)


class ScriptedControl(Sink):
    """A stand-in for a control socket: does `then` once after frame `after`, and `always` whenever it is served."""

    def __init__(self, after: int, then: Callable[[Stream], Any], always: Callable[[Stream], Any] = id) -> None:
        self._after: int | None = after
        self._then = then
        self._always = always

    def serve(self, stream: Stream) -> None:
        if stream.tracks is not None and stream.tracks.frame_id == self._after:
            self._after = None
            self._then(stream)
        self._always(stream)


class ListStatus(Status):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[NDArray[Any]] = []
        self.notes: list[str] = []

    def judge(self, tracks: Tracks, error_px: NDArray[Any]) -> None:
        super().judge(tracks, error_px)
        self.errors.append(error_px)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Overlapping(Tracker):
    """A tracker that takes a second frame ahead, as on a GPU."""

    overlaps = True
    most_in_flight = 0

    def submit(self, rgb: NDArray[np.uint8] | Frame) -> None:
        super().submit(rgb)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)


@pytest.fixture
def tracker(make_model: Callable[..., Tapir]) -> Tracker:
    return Tracker(make_model(), max_points=6, window=4)


def track(camera: Any, tracker: Any, points: Any = GRID, sinks: Any = (), controls: Any = (), **how: Any) -> ListStatus:
    status = ListStatus()
    truth = [DemoTruth(camera.scene, status.judge)] if isinstance(camera, DemoCamera) else []
    run(camera, tracker, points, [*sinks, *controls, *truth, status], report=status.note, **how)
    return status


@pytest.mark.parametrize("count", [1, 7, 33])
def test_every_frame_of_a_file_reaches_every_sink_in_order(
    tracker: Tracker, make_frames: Callable[..., Pictures], count: int
) -> None:
    camera, sinks = SyntheticCamera(make_frames(count, 33, 49), name="desk"), [ListSink(), ListSink()]
    status = track(camera, tracker, sinks=sinks)
    for sink in sinks:
        assert [frame.id for frame in sink.frames] == list(range(count))
        assert [tracks.frame_id for tracks in sink.tracks] == list(range(count))
        stamps = [tracks.captured_ns for tracks in sink.tracks]
        assert stamps == sorted(set(stamps))
        assert {(tracks.camera, tracks.dropped, len(tracks.ids)) for tracks in sink.tracks} == {("desk", 0, 6)}
        assert not sink.closed
    assert status.summary().frames == count
    assert camera.closed


def test_the_time_that_sinks_took_is_told_with_the_next_frame(
    tracker: Tracker, make_frames: Callable[..., Pictures]
) -> None:
    sink = ListSink()
    track(SyntheticCamera(make_frames(3)), tracker, sinks=[sink])
    first, *later = [tracks.times.publish for tracks in sink.tracks]
    assert first == 0
    assert min(later) > 0


def test_a_pipelined_run_publishes_the_same_tracks_in_the_same_order(
    make_model: Callable[..., Tapir], make_frames: Callable[..., Pictures]
) -> None:
    plain, pipelined = ListSink(), ListSink()
    for sink, pipeline in ((plain, False), (pipelined, True)):
        tracker = Overlapping(make_model(), max_points=6, window=4)
        track(SyntheticCamera(make_frames(7)), tracker, sinks=[sink], pipeline=pipeline)
    assert [frame.id for frame in pipelined.frames] == list(range(7))
    assert tracker.most_in_flight == 2
    for one, other in zip(plain.tracks, pipelined.tracks, strict=True):
        np.testing.assert_array_equal(one.xy, other.xy)
        np.testing.assert_array_equal(one.ids, other.ids)


def inspected(sink: ListSink) -> list[int | None]:
    return [None if tracks.inspection is None else tracks.inspection.id for tracks in sink.tracks]


@pytest.mark.parametrize("pipeline", [False, True])
def test_the_point_that_is_asked_for_is_inspected_from_the_first_frame_on(
    tracker: Tracker, make_frames: Callable[..., Pictures], pipeline: bool
) -> None:
    sink = ListSink()
    status = track(SyntheticCamera(make_frames(4)), tracker, sinks=[sink], inspect=5, pipeline=pipeline)
    assert inspected(sink) == [5, 5, 5, 5]
    assert not any("point" in note for note in status.notes)


def test_a_point_that_is_not_there_yet_is_waited_for_and_one_that_goes_is_said(
    make_model: Callable[..., Tapir], make_frames: Callable[..., Pictures]
) -> None:
    def change(stream: Stream) -> None:
        if stream.tracks is not None and stream.tracks.frame_id == 2 and len(stream.tracker.ids) == 6:
            stream.add(np.array([[20, 20], [30, 30]], np.float32), 2)
        if stream.tracks is not None and stream.tracks.frame_id == 5 and len(stream.tracker.ids) == 8:
            stream.remove(np.array([7]))

    sink, tracker = ListSink(), Tracker(make_model(), max_points=9, window=4)
    control = ScriptedControl(after=-1, then=id, always=change)
    status = track(SyntheticCamera(make_frames(8)), tracker, sinks=[sink], controls=[control], inspect=7)
    assert inspected(sink) == [None, None, None, 7, 7, 7, None, None]
    assert [note for note in status.notes if "point" in note] == [
        "point 7 will be inspected once it exists; so far the newest is 5",
        "point 7 is gone and no longer inspected",
    ]


def test_whoever_chooses_another_point_or_none_ends_the_waiting(
    make_model: Callable[..., Tapir], make_frames: Callable[..., Pictures]
) -> None:
    for chosen in (3, None):
        sink, tracker = ListSink(), Tracker(make_model(), max_points=9, window=4)
        control = ScriptedControl(after=1, then=lambda stream, id=chosen: stream.inspect(id))  # type: ignore[misc]
        adding = ScriptedControl(after=2, then=lambda stream: stream.add(np.full((1, 2), 20, np.float32), 2))
        track(SyntheticCamera(make_frames(5)), tracker, sinks=[sink], controls=[control, adding], inspect=6)
        assert inspected(sink) == [None, None, chosen, chosen, chosen]


def test_a_point_that_went_before_it_was_inspected_is_not_waited_for(
    tracker: Tracker, make_frames: Callable[..., Pictures]
) -> None:
    tracker.add([[7, 7]])
    tracker.remove([0])
    status = track(SyntheticCamera(make_frames(3)), tracker, Grid(2, 2), inspect=0)
    (said,) = [note for note in status.notes if "point 0" in note]
    assert "is gone and cannot be inspected" in said


def test_no_more_frames_than_asked_for_are_tracked(tracker: Tracker, make_frames: Callable[..., Pictures]) -> None:
    sink = ListSink()
    track(SyntheticCamera(make_frames(7)), tracker, sinks=[sink], frames=5)
    assert [frame.id for frame in sink.frames] == [0, 1, 2, 3, 4]


def test_the_stop_event_ends_a_camera_that_never_would(tracker: Tracker, make_frames: Callable[..., Pictures]) -> None:
    def endless() -> Iterator[NDArray[np.uint8]]:
        while True:
            yield from make_frames(7)

    class StopAtThird(ListSink):
        def publish(self, frame: Frame, tracks: Tracks) -> None:
            super().publish(frame, tracks)
            if len(self.frames) == 3:
                stop.set()

    stop, sink = threading.Event(), StopAtThird()
    track(SyntheticCamera(endless()), tracker, sinks=[sink], stop=stop)
    assert [frame.id for frame in sink.frames] == [0, 1, 2]


def test_a_stop_is_noticed_while_no_frame_comes(tracker: Tracker, make_frames: Callable[..., Pictures]) -> None:
    stop, silent = threading.Event(), threading.Event()

    def falls_silent() -> Iterator[NDArray[np.uint8]]:
        yield from make_frames(2)
        stop.set()
        silent.wait()

    status = track(SyntheticCamera(falls_silent()), tracker, stop=stop)
    silent.set()
    assert status.summary().frames <= 2


def test_a_stop_before_the_first_frame_tracks_nothing(tracker: Tracker, make_frames: Callable[..., Pictures]) -> None:
    stop = threading.Event()
    stop.set()
    assert track(SyntheticCamera(make_frames(7)), tracker, stop=stop).summary().frames == 0


def test_an_error_of_the_camera_is_raised_after_its_last_good_frame(
    tracker: Tracker, make_frames: Callable[..., Pictures]
) -> None:
    def breaks() -> Iterator[NDArray[np.uint8]]:
        yield from make_frames(3)
        raise CameraError("the cable is out")

    camera, sink = SyntheticCamera(breaks()), ListSink()
    with pytest.raises(CameraError, match="the cable is out"):
        track(camera, tracker, sinks=[sink])
    assert [frame.id for frame in sink.frames] == [0, 1, 2]
    assert camera.closed


def test_points_outside_the_first_frame_end_the_run(tracker: Tracker, make_frames: Callable[..., Pictures]) -> None:
    with pytest.raises(QueryError, match="outside the 96x64 frame"):
        track(SyntheticCamera(make_frames(3)), tracker, Listed(np.array([[97, 5]], np.float32)))


def test_a_size_that_changes_in_the_middle_is_reported_once(
    tracker: Tracker, make_frames: Callable[..., Pictures]
) -> None:
    sink = ListSink()
    frames = make_frames(2, 33, 49) + make_frames(2, 64, 96) + make_frames(1, 17, 33)
    status = track(SyntheticCamera(frames), tracker, sinks=[sink])
    assert {(tracks.width, tracks.height) for tracks in sink.tracks} == {(49, 33)}
    assert [note for note in status.notes if "scaled to 49x33" in note] == status.notes
    assert len(status.notes) == 1


def gone_after_three(xy: NDArray[np.float32], named: int, now: int) -> tuple[NDArray[np.float32], bool]:
    return (xy, True) if now - named < 3 else (xy - 1000, False)


def test_replenish_keeps_the_number_of_points(make_frames: Callable[..., Pictures]) -> None:
    tracker, sink = FakeTracker(gone_after_three), ListSink()
    track(SyntheticCamera(make_frames(33)), tracker, sinks=[sink], replenish=True)
    assert {len(tracks.ids) for tracks in sink.tracks} == {6}
    assert tracker.added > 6 * 7


def test_replenish_keeps_the_number_of_points_that_a_run_goes_on_with(make_frames: Callable[..., Pictures]) -> None:
    tracker, sink = FakeTracker(gone_after_three), ListSink()
    tracker.add(np.array([[10, 12], [80, 50]], np.float32), 0)
    track(SyntheticCamera(make_frames(9)), tracker, NOWHERE, sinks=[sink], replenish=True)
    assert {len(tracks.ids) for tracks in sink.tracks} == {2}
    assert tracker.added > 2


def test_without_replenish_lost_points_stay(make_frames: Callable[..., Pictures]) -> None:
    tracker, sink = FakeTracker(gone_after_three), ListSink()
    track(SyntheticCamera(make_frames(7)), tracker, sinks=[sink])
    assert {tuple(tracks.ids) for tracks in sink.tracks} == {(0, 1, 2, 3, 4, 5)}


def test_replenish_with_a_real_tracker_keeps_within_its_room(
    tracker: Tracker, make_frames: Callable[..., Pictures]
) -> None:
    sink = ListSink()
    track(SyntheticCamera(make_frames(7)), tracker, sinks=[sink], replenish=True)
    assert {len(tracks.ids) for tracks in sink.tracks} == {6}


@pytest.mark.parametrize("patience", [0, 7, PATIENCE_FRAMES])
def test_a_hidden_point_is_given_up_when_patience_is_over(make_frames: Callable[..., Pictures], patience: int) -> None:
    tracker = FakeTracker(lambda xy, named, now: (xy, False))
    rgb = make_frames(1)[0]
    placed = GRID.place(rgb)
    tracker.add(placed)
    replenisher = Replenisher(len(placed), patience)
    frames = [Frame(i, 0, 0, rgb) for i in range(patience + 1)]
    renewed = [len(replenisher.renew(cast(Tracker, tracker), frame, tracker.step(frame)).ids) for frame in frames]
    assert renewed == [0] * patience + [6]


def test_a_point_with_a_name_is_not_replaced_however_long_it_is_hidden(make_frames: Callable[..., Pictures]) -> None:
    tracker = FakeTracker(lambda xy, named, now: (xy, False))
    rgb = make_frames(1)[0]
    placed = GRID.place(rgb)
    ids = tracker.add(placed)
    tracker.label(int(ids[2]), Label("tip"))
    replenisher = Replenisher(len(placed), 0)
    replenisher.renew(cast(Tracker, tracker), Frame(0, 0, 0, rgb), tracker.step(Frame(0, 0, 0, rgb)))
    assert np.intersect1d(tracker.ids, ids).tolist() == [2]
    assert len(tracker.ids) == len(placed)


def test_a_frame_under_way_may_have_points_that_are_gone(make_frames: Callable[..., Pictures]) -> None:
    tracker = FakeTracker()
    tracker.add(np.array([[10, 12], [80, 50]], np.float32))
    replenisher, frame = Replenisher(2, 0), Frame(0, 0, 0, make_frames(1)[0])
    tracks = replace(tracker.step(frame), visible=np.zeros(2, bool))
    replenisher.renew(tracker, frame, tracks)
    assert tracker.ids.tolist() == [2, 3]
    replenisher.renew(tracker, frame, tracks)  # submitted before that
    assert tracker.ids.tolist() == [2, 3]


def test_views_that_are_searched_for_are_no_points_to_keep_up(make_frames: Callable[..., Pictures]) -> None:
    tracker = FakeTracker(max_points=7)
    tracker.add(np.zeros((7, 2), np.float32))
    tracker.labels |= {id: Label(sought="cup") for id in range(2, 7)}
    frame = Frame(0, 0, 0, make_frames(1)[0])
    visible = np.array([True, False, *[False] * 5])
    tracks = tracker.step(frame)
    shown = replace(tracks, ids=tracks.ids[:2], xy=tracks.xy[:2], visible=visible[:2],
                    occlusion=tracks.occlusion[:2], uncertainty=tracks.uncertainty[:2])  # fmt: skip
    fresh = Replenisher(2, 0).renew(tracker, frame, shown)
    assert len(fresh.ids) == 1


class Refusing(FakeTracker):
    """A tracker whose model fails on the third frame."""

    def collect(self) -> Tracks:
        if len(self.frame_ids) == 3:
            self._submitted.clear()
            raise QueryError("the model cannot go on")
        return super().collect()


@pytest.mark.parametrize(("where", "said"), [("submit", "outside"), ("collect", "the model cannot go on")])
def test_what_fails_in_one_camera_does_not_end_the_others(
    where: str, said: str, make_frames: Callable[..., Pictures]
) -> None:
    notes: list[str] = []
    failed = threading.Event()

    def lasting() -> Iterator[NDArray[np.uint8]]:
        yield from make_frames(20)
        failed.wait(20)

    def note(line: str) -> None:
        notes.append(line)
        if "the other cameras go on" in line:
            failed.set()

    bad = (FakeTracker(), Listed(np.array([[1000, 1000]], np.float32))) if where == "submit" else (Refusing(), GRID)
    members = [
        Member(
            Stream(
                Capture(SyntheticCamera(frames, name=name), report=notes.append),
                tracker,  # type: ignore[arg-type]
                threading.Event(),
                points=points,
                report=note,
            )
        )
        for name, frames, (tracker, points) in (
            ("good", lasting(), (FakeTracker(), GRID)),
            ("bad", make_frames(20), bad),
        )
    ]
    sink, roster = ListSink(), Roster(report=notes.append)
    roster.begin(members)
    with roster:
        Run(members, [sink], threading.Event(), roster=roster).go()
    assert [tracks.camera for tracks in sink.tracks if tracks.camera == "good"] == ["good"] * 20
    assert said in roster.absent["bad"].reason
    assert failed.is_set()


def test_a_source_that_came_back_streams_from_its_first_frame_on(make_frames: Callable[..., Pictures]) -> None:
    stream = Stream(Capture(SyntheticCamera(make_frames(1))), FakeTracker(), threading.Event())  # type: ignore[arg-type]
    stream.capture._health = Health("lost", 0, reason="no signal")
    assert stream.state == "lost"
    stream.capture._health = Health("streaming", 5)
    assert (stream.state, stream.health.reason) == ("streaming", "")


def test_a_perfect_tracker_has_no_error_on_the_demo_and_knows_what_is_hidden() -> None:
    camera = DemoCamera(96, 64, fps=0)
    tracker = FakeTracker(camera.scene.truth)
    status = track(camera, tracker, frames=33, replenish=True)
    errors = np.concatenate(status.errors)
    assert np.nanmax(errors) < 1e-3
    assert status.summary().occlusion_accuracy == 1
    assert len(errors) == 33 * 6


def test_an_error_is_the_distance_from_the_truth_in_pixels_of_the_frame() -> None:
    scene = DemoScene(96, 64)
    named = np.array([[10, 12], [80, 50]], np.float32)
    truth = DemoTruth(scene, lambda tracks, error_px: None)
    truth.named("demo", [Queries(np.array([3, 5], np.int32), named, 2)])
    tracker = FakeTracker(scene.truth)
    tracker.add(named, 2)
    tracks = replace(tracker.step(Frame(4, 0, 0, scene.render(4))), ids=np.array([3, 5], np.int32))
    moved = replace(tracks, xy=tracks.xy + np.array([3, 4], np.float32))
    error = truth.error_px(moved)
    np.testing.assert_allclose(error[tracks.visible], 5, atol=1e-4)
    assert np.isnan(error[~tracks.visible]).all()


def test_points_that_were_never_named_are_left_out_of_the_error() -> None:
    camera = DemoCamera(96, 64, fps=0)
    tracker = FakeTracker(camera.scene.truth)
    tracker.add(np.array([[10, 12], [80, 50]], np.float32), 0)  # by a run before this one
    status = track(camera, tracker, frames=3)
    errors = status.errors
    assert {tuple(np.isinf(error).tolist()) for error in errors} == {(True, True, *6 * [False])}
    assert status.summary().occlusion_accuracy == 1
    assert status.summary().error_px is not None

    resumed = track(DemoCamera(96, 64, fps=0), tracker, NOWHERE, frames=3)
    assert (resumed.summary().error_px, resumed.summary().occlusion_accuracy) == (None, None)


def test_a_source_without_truth_has_no_error(tracker: Tracker, make_frames: Callable[..., Pictures]) -> None:
    assert track(SyntheticCamera(make_frames(2)), tracker).summary().error_px is None


def test_points_added_between_frames_are_on_the_next_and_their_truth_is_known() -> None:
    camera, sink = DemoCamera(96, 64, fps=0), ListSink()
    tracker = FakeTracker(camera.scene.truth)
    added = np.array([[20, 20], [40, 40]], np.float32)
    control = ScriptedControl(1, lambda stream: stream.add(added, 1))
    status = track(camera, tracker, sinks=[sink], frames=4, controls=[control])
    assert [len(tracks.ids) for tracks in sink.tracks] == [6, 6, 8, 8]
    errors = np.concatenate(status.errors)
    assert np.nanmax(errors) < 1e-3


def test_a_controller_stops_the_run(tracker: Tracker, make_frames: Callable[..., Pictures]) -> None:
    sink = ListSink()
    control = ScriptedControl(1, lambda stream: stream.stop.set())
    track(SyntheticCamera(make_frames(9)), tracker, sinks=[sink], controls=[control])
    assert [frame.id for frame in sink.frames] == [0, 1]


def test_a_recording_waits_while_the_run_is_paused_and_heartbeats_say_so(
    tracker: Tracker, make_frames: Callable[..., Pictures]
) -> None:
    sink = ListSink()

    def resume_after_two_beats(stream: Stream) -> None:
        if sum(beat.state == "paused" for beat in sink.heartbeats) >= 2:
            stream.resume()

    control = ScriptedControl(1, Stream.pause, resume_after_two_beats)
    track(SyntheticCamera(make_frames(7), name="desk"), tracker, sinks=[sink], controls=[control], heartbeat_s=0.01)
    assert [frame.id for frame in sink.frames] == list(range(7))
    paused = [beat for beat in sink.heartbeats if beat.state == "paused"]
    assert len(paused) >= 2
    assert {(beat.camera, beat.frame_id, beat.points) for beat in paused} == {("desk", 1, 6)}
    assert len({beat.since_unix_ns // 10**8 for beat in paused}) <= 2  # one moment, but for the clocks' drift


def test_a_live_source_goes_by_while_paused_and_what_was_skipped_counts_as_dropped(
    tracker: Tracker, make_frames: Callable[..., Pictures]
) -> None:
    sink, skipped = ListSink(), threading.Event()

    def waits_to_be_skipped() -> Iterator[NDArray[np.uint8]]:
        yield from make_frames(1)
        for picture in make_frames(9):
            read.wait()
            read.clear()
            yield picture

    def resume_after_three(stream: Stream) -> None:
        if stream.tracks is not None:
            read.set()
        if stream.skipped == 3:
            skipped.set()
            stream.resume()

    read = threading.Event()
    control = ScriptedControl(0, Stream.pause, resume_after_three)
    track(SyntheticCamera(waits_to_be_skipped(), live=True), tracker, sinks=[sink], controls=[control], frames=2)
    first, second = sink.tracks
    assert skipped.is_set()
    assert second.frame_id - first.frame_id - 1 == second.dropped >= 3


def test_a_source_that_falls_silent_is_told_by_heartbeats_with_its_last_frame(
    tracker: Tracker, make_frames: Callable[..., Pictures]
) -> None:
    silent, stop = threading.Event(), threading.Event()

    class StopAtThirdBeat(ListSink):
        def beat(self, heartbeat: Heartbeat) -> None:
            super().beat(heartbeat)
            if sum(beat.frame_id == 1 for beat in self.heartbeats) == 3:
                stop.set()

    def falls_silent() -> Iterator[NDArray[np.uint8]]:
        yield from make_frames(2)
        silent.wait()

    sink = StopAtThirdBeat()
    track(SyntheticCamera(falls_silent()), tracker, sinks=[sink, ListSink()], stop=stop, heartbeat_s=0.01)
    silent.set()
    assert [beat.frame_id for beat in sink.heartbeats][-1] == 1
    assert {beat.points for beat in sink.heartbeats} <= {0, 6}


def test_no_heartbeat_comes_between_frames_that_come_in_time(
    tracker: Tracker, make_frames: Callable[..., Pictures]
) -> None:
    sink = ListSink()
    track(SyntheticCamera(make_frames(7)), tracker, sinks=[sink], heartbeat_s=60)
    assert sink.heartbeats == []


def test_points_outlive_a_source_that_fails_and_comes_back(
    tracker: Tracker, make_frames: Callable[..., Pictures]
) -> None:
    seen, told = threading.Event(), threading.Event()

    class TellingSink(ListSink):
        def publish(self, frame: Frame, tracks: Tracks) -> None:
            super().publish(frame, tracks)
            seen.set()

        def beat(self, heartbeat: Heartbeat) -> None:
            super().beat(heartbeat)
            if heartbeat.state == "lost":
                told.set()

    def breaks() -> Iterator[NDArray[np.uint8]]:
        yield from make_frames(1)
        seen.wait()
        raise CameraError("the cable is out")

    def endless() -> Iterator[NDArray[np.uint8]]:
        while True:
            yield from make_frames(7)

    def reopen() -> Camera:
        assert told.wait(30)
        return SyntheticCamera(endless(), live=True)

    sink = TellingSink()
    status = track(
        SyntheticCamera(breaks(), live=True),
        tracker,
        sinks=[sink],
        frames=4,
        reopen=reopen,
        reconnect=Reconnect(first_wait_s=1e-3, longest_wait_s=1e-3, stall_timeout_s=30),
        heartbeat_s=0.01,
    )
    assert {tuple(tracks.ids) for tracks in sink.tracks} == {(0, 1, 2, 3, 4, 5)}
    ids = [frame.id for frame in sink.frames]
    assert ids == sorted(set(ids))
    assert told.is_set()
    assert any("the cable is out" in note for note in status.notes)


def test_the_latency_of_a_recording_is_without_the_readers_queue(make_frames: Callable[..., Pictures]) -> None:
    clock, sink = StepClock(5_000, 1_000_000), ListSink()

    class Slow(FakeTracker):
        def collect(self) -> Tracks:
            clock.sleep(0.1)
            return super().collect()

    run(SyntheticCamera(make_frames(5)), Slow(), sinks=[sink], clock=clock)
    assert [tracks.captured_ns for tracks in sink.tracks] == [5_000 + i * 100_000_000 for i in range(5)]
    assert [tracks.captured_unix_ns for tracks in sink.tracks] == [1_000_000 + i * 100_000_000 for i in range(5)]


def test_a_live_frame_keeps_the_moment_of_its_grab(make_frames: Callable[..., Pictures]) -> None:
    (picture,) = make_frames(1)
    tracker: Any = FakeTracker()
    capture = Capture(SyntheticCamera([picture], live=True))
    stream = Stream(capture, tracker, threading.Event(), clock=StepClock(9))
    frame = Frame(0, 3, 4, picture)
    stream.capture.mailbox.offer(frame)
    assert stream.take() is frame
