"""Heartbeats come when nothing else does, and what a silence cost is reported once frames are back."""

import threading
from typing import Any

import numpy as np
import pytest

from online_tapir.camera import Capture, Health, SyntheticCamera
from online_tapir.clock import StepClock
from online_tapir.live.recovery import Recovery
from online_tapir.live.stream import Stream
from online_tapir.records import Frame, Label, Tracks
from online_tapir.wire.messages import Heartbeat

SECOND = 1_000_000_000
PICTURE = np.zeros((17, 33, 3), np.uint8)


def tracks(at_s: float, visible: set[int], of: int = 7) -> Tracks:
    zeros, captured_ns = np.zeros(of, np.float32), round(at_s * SECOND)
    seen = np.isin(np.arange(of), list(visible))
    ids = np.arange(of, dtype=np.int32)
    return Tracks(3, captured_ns, captured_ns, 33, 17, ids, np.zeros((of, 2), np.float32), seen, zeros, zeros)


class Points:
    """In place of a tracker, with so many points from the run before."""

    def __init__(self, resumed: int) -> None:
        self.ids = np.arange(resumed, dtype=np.int32)
        self.labels: dict[int, Label] = {}


class Silence:
    """A stream, a clock, and the heartbeats that it sends."""

    def __init__(self, heartbeat_s: float, resumed: int = 0) -> None:
        self.clock, self.heartbeats, self.notes = StepClock(5 * SECOND, 1_000 * SECOND), list[Heartbeat](), list[str]()
        tracker: Any = Points(resumed)
        self.stream = Stream(
            Capture(SyntheticCamera([PICTURE], name="desk")),
            tracker,
            threading.Event(),
            heartbeat_s=heartbeat_s,
            report=self.notes.append,
            clock=self.clock,
        )

    def goes_on(self, seconds: float, health: Health) -> None:
        self.stream.capture._health = health
        for _ in range(round(seconds * 20)):
            self.clock.sleep(0.05)
            heartbeat = self.stream.heartbeat_due()
            if heartbeat is not None:
                self.heartbeats.append(heartbeat)

    def frame(self, of: Tracks) -> None:
        self.stream.published(Frame(of.frame_id, of.captured_ns, 0, PICTURE), of)


@pytest.mark.parametrize("every_s", [0.25, 1.0, 2.5])
def test_a_silence_is_broken_as_often_as_was_asked(every_s: float) -> None:
    run = Silence(every_s)
    run.goes_on(10, Health("streaming", 0))
    assert len(run.heartbeats) == 10 / every_s


def test_frames_put_heartbeats_off() -> None:
    run = Silence(1.0)
    for _ in range(9):
        run.goes_on(0.8, Health("streaming", 0))
        run.frame(tracks(0, set()))
    assert run.heartbeats == []


def test_a_heartbeat_tells_the_state_its_beginning_on_the_wall_clock_and_the_last_frame() -> None:
    run = Silence(1.0, resumed=7)
    run.goes_on(1, Health("stalled", since_ns=3 * SECOND))
    (beat,) = run.heartbeats
    assert (beat.camera, beat.state, beat.frame_id, beat.points) == ("desk", "stalled", -1, 7)
    assert beat.since_unix_ns == 998 * SECOND
    run.frame(tracks(6, {1}))
    run.stream.pause()
    run.goes_on(1, Health("lost", since_ns=0))
    beat = run.heartbeats[-1]
    assert (beat.state, beat.frame_id, beat.since_unix_ns) == ("paused", 3, 1_001 * SECOND)


def test_how_many_points_came_back_is_told_a_second_after_the_source() -> None:
    run = Silence(1.0)
    run.frame(tracks(5, {0, 1, 2, 3}))
    run.goes_on(3, Health("lost", 5 * SECOND))
    run.frame(tracks(8.5, {0, 5}))
    run.frame(tracks(9, {1, 6}))
    assert run.notes == []
    run.frame(tracks(9.5, {1}))
    run.frame(tracks(20, {2, 3}))
    assert run.notes == [
        "2 of the 4 points that were visible before a silence of 3.5 s were found again within 1 s of it"
    ]


def test_how_many_points_of_the_run_before_are_seen_again_is_told_a_second_after_the_first_frame() -> None:
    run = Silence(1.0, resumed=4)
    run.goes_on(3, Health("lost", 0))
    run.frame(tracks(8.5, {0, 5}))
    run.frame(tracks(9, {2, 6}))
    assert run.notes == []
    run.frame(tracks(9.5, {0}))
    run.frame(tracks(20, {1, 3}))
    assert run.notes == ["2 of the 4 points that were saved were found again within 1 s of the first frame"]


def test_a_run_that_begins_without_points_looks_for_none() -> None:
    run = Silence(1.0)
    run.frame(tracks(5, {0, 1}))
    run.frame(tracks(7, {0, 1}))
    assert run.notes == []


def test_frames_that_are_merely_late_cost_nothing() -> None:
    run = Silence(1.0)
    run.frame(tracks(5, {0, 1}))
    run.goes_on(3, Health("streaming", 0))
    run.frame(tracks(8, {0}))
    run.frame(tracks(10, {0}))
    assert run.notes == []


def test_a_source_that_is_lost_again_at_once_is_told_twice() -> None:
    notes: list[str] = []
    recovery = Recovery(notes.append)
    recovery.lost(tracks(1, {0, 1}))
    recovery.tracked(tracks(3, {0}))
    recovery.lost(tracks(3, {0}))
    recovery.lost(tracks(3, {0}))
    recovery.tracked(tracks(7, set()))
    recovery.tracked(tracks(9, set()))
    assert [note[:10] for note in notes] == ["1 of the 2", "0 of the 1"]


@pytest.mark.parametrize(
    ("resumed", "visible", "elsewhere"), [(True, 6, True), (True, 20, False), (False, 6, False)], ids=str
)
def test_few_points_at_a_time_after_a_restart_are_a_warning_of_another_scene(
    resumed: bool, visible: int, elsewhere: bool
) -> None:
    notes: list[str] = []
    recovery = Recovery(notes.append)
    if resumed:
        recovery.resumed(np.arange(40, dtype=np.int32))
    else:
        recovery.lost(tracks(0, set(range(40)), of=40))
    for tenth in range(11):  # others on every frame: in the end all were found
        recovery.tracked(tracks(1 + tenth / 10, {(4 * tenth + i) % 40 for i in range(visible)}, of=40))
    (note,) = notes
    assert note.endswith("if this is another scene, start without --resume") is elsewhere
