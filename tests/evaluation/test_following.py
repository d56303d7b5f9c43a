"""What is held in time follows from how long a tracker takes: its answers are right, but of an earlier frame."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from online_tapir.evaluation import following
from online_tapir.evaluation.following import follow_live
from online_tapir.evaluation.videos import Video
from online_tapir.records import Tracks
from online_tapir.testing import make_tracks

FPS = 50
PERIOD_NS = 1_000_000_000 // FPS
FRAMES = 12


def video(query_frame: ArrayLike = (0, 0, 0)) -> Video:
    """Three points that move by two pixels a frame; the frame's number is in its first pixel."""
    frames = np.zeros((FRAMES, 32, 64, 3), np.uint8)
    frames[:, 0, 0] = np.arange(FRAMES)[:, None]
    start = np.array([[1, 5], [9, 15], [20, 25]], np.float32)
    xy = start[:, None] + np.arange(FRAMES)[:, None] * np.array([2, 0])  # [N, T, 2]
    return Video("moving", frames, xy.astype(np.float32), np.ones((3, FRAMES), bool), np.asarray(query_frame))


class Slow:
    """Knows the truth, and takes `periods` of the camera for every frame on the clock of `follow_live`."""

    def __init__(self, truth: Video, clock: list[int], periods: Callable[[], float], seen: list[int]) -> None:
        self.truth, self.clock, self.periods, self.seen = truth, clock, periods, seen
        self.points: list[int] = []
        self.queued: list[NDArray[np.float32]] = []

    def add(self, xy: ArrayLike, frame_id: int | None = None) -> NDArray[np.int32]:
        self.queued.extend(np.asarray(xy, np.float32))
        count = len(self.points) + len(self.queued)
        return np.arange(count - len(self.queued), count, dtype=np.int32)

    def step(self, rgb: NDArray[np.uint8]) -> Tracks:
        frame = int(rgb[0, 0, 0])
        self.seen.append(frame)
        self.clock[0] += round(self.periods() * PERIOD_NS)
        for query in self.queued:
            distance = np.abs(self.truth.xy[:, frame] - query).sum(axis=1)
            assert distance.min() < 1e-3, "points are asked for where they truly are"
            self.points.append(int(distance.argmin()))
        self.queued.clear()
        ids = np.arange(len(self.points), dtype=np.int32)
        return make_tracks(frame, self.truth.xy[self.points, frame], ids=ids, size=(64, 32))


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[following.Held, list[int]]]:
    clock = [0]
    monkeypatch.setattr(following.time, "perf_counter_ns", lambda: clock[0])

    def played(truth: Video, periods: float, **how: int) -> tuple[following.Held, list[int]]:
        seen: list[list[int]] = []

        def make() -> Slow:
            seen.append([])
            return Slow(truth, clock, lambda: periods, seen[-1])

        held = follow_live(make, truth, FPS, **how)
        first, *rest = seen[-1]
        assert first == 0, "a tracker is made ready on the first frame, before points"
        return held, rest

    return played


@pytest.mark.parametrize("periods", [0.0, 0.3, 1.0])
def test_a_tracker_within_the_period_answers_every_frame_in_time(periods: float, play: Callable) -> None:
    truth = video()
    held, seen = play(truth, periods)
    assert seen == list(range(FRAMES))
    assert np.array_equal(held.xy, truth.xy)
    assert held.visible.all()
    assert (held.answered, held.frames) == (FRAMES, FRAMES)


def test_a_slow_tracker_drops_frames_and_what_is_held_is_of_an_earlier_one(play: Callable) -> None:
    truth = video()
    held, seen = play(truth, 2.5)
    assert seen == [0, 2, 5, 7, 10]  # the newest whenever it is free: at 0, 2.5, 5, 7.5, 10
    of_frame = [None, None, 0, 0, 2, 2, 2, 5, 5, 7, 7, 7]  # the answers came at 2.5, 5, 7.5, 10, 12.5
    for frame, of in enumerate(of_frame):
        assert held.visible[:, frame].all() == (of is not None)
        assert np.array_equal(held.xy[:, frame], truth.xy[:, of or 0])
    assert held.answered == 0


def test_a_query_on_a_frame_that_was_dropped_waits_for_the_next_on_which_it_is_seen(play: Callable) -> None:
    truth = video(query_frame=[0, 1, 3])
    hidden = truth.visible.copy()
    hidden[1, 2] = False
    held, seen = play(replace(truth, visible=hidden), 2.0)
    assert seen == [0, 2, 4, 6, 8, 10]
    assert np.argmax(held.visible, axis=1).tolist() == [1, 5, 5]  # asked on frames 0, 4 and 4
    assert np.array_equal(held.xy[1, :5], np.repeat(truth.xy[1, 1][None], 5, axis=0))  # until then, its first place
    assert held.frames == FRAMES


def test_points_that_do_not_fit_at_once_are_played_one_group_after_the_other(play: Callable) -> None:
    truth = video()
    held, _ = play(truth, 0.5, points_at_once=2)
    assert np.array_equal(held.xy, truth.xy)
    assert (held.answered, held.frames) == (2 * FRAMES, 2 * FRAMES)


def test_what_a_tracker_makes_ready_on_its_first_frame_is_not_the_cameras_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, truth = [0], video()
    monkeypatch.setattr(following.time, "perf_counter_ns", lambda: clock[0])

    def make() -> Slow:
        periods = iter([50.0])  # as long as graphs are captured, say
        return Slow(truth, clock, lambda: next(periods, 0.5), [])

    assert follow_live(make, truth, FPS).answered == FRAMES


def test_places_that_are_unknown_while_hidden_are_asked_for_by_no_one(play: Callable) -> None:
    truth = video(query_frame=[3, 1, 3])
    xy, hidden = truth.xy.copy(), truth.visible.copy()
    xy[:, 0], hidden[:, 0] = np.nan, False
    held, _ = play(replace(truth, xy=xy, visible=hidden), 0.5)
    assert held.visible[:, -1].all()


def test_a_video_without_points_holds_nothing(play: Callable) -> None:
    truth = video()
    empty = replace(truth, xy=truth.xy[:0], visible=truth.visible[:0], query_frame=truth.query_frame[:0])
    held = follow_live(lambda: pytest.fail("no tracker is needed"), empty, FPS)
    assert (held.xy.shape, held.visible.shape, held.frames) == ((0, FRAMES, 2), (0, FRAMES), 0)
