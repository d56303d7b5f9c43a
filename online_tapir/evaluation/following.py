"""Runs a streaming point tracker over a video with known truth: frame by frame, or as fast as this machine lets it.

`follow` gives every frame to the tracker, once and in order. `follow_live` plays the video at a camera's rate: while
the tracker works on a frame the world goes on, and what it answers is late (Li, Wang, Ramanan: Towards Streaming
Perception, ECCV 2020).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from online_tapir.evaluation.baselines import PointTracker
from online_tapir.evaluation.videos import Video
from online_tapir.records import Tracks

MakeTracker = Callable[[], PointTracker]

WARM_UP_STEPS = 2  # of each run, excluded from the times
NS = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """What a tracker answered on every frame of a video, and how long its steps took."""

    xy: NDArray[np.float32]  # [N, T, 2] image pixels
    visible: NDArray[np.bool_]  # [N, T]
    step_ns: list[int]


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What is known at the end of every frame's own period: the newest answer by then."""

    xy: NDArray[np.float32]  # [N, T, 2] image pixels
    visible: NDArray[np.bool_]  # [N, T]
    answered: int  # frames with points whose own answer came within their period
    frames: int  # from the first query on, of all groups of points


def follow(make_tracker: MakeTracker, video: Video, points_at_once: int = 256) -> Followed:
    """Runs a tracker over a video, frame by frame.

    Each point is queried on its query frame, at its true position. On earlier frames it is hidden at that position.
    A video with more than `points_at_once` points is run several times.
    """
    if not len(video.xy):
        return Followed(*_nothing(video), [])
    runs = [_follow_group(make_tracker(), video, group) for group in _groups(video, points_at_once)]
    return Followed(
        np.concatenate([run.xy for run in runs]),
        np.concatenate([run.visible for run in runs]),
        [ns for run in runs for ns in run.step_ns],
    )


def follow_live(make_tracker: MakeTracker, video: Video, fps: float, points_at_once: int = 256) -> Held:
    """Plays a video at `fps` to a tracker that takes the newest frame whenever it is free.

    The clock is simulated: it advances by the time that each step really took, so that nothing waits. Each point is
    queried on the first frame taken, from its query frame on, on which it is visible, at its true position; until an
    answer is there it is held hidden, at its first position. A video with more than `points_at_once` points is played
    several times.
    """
    if not len(video.xy):
        return Held(*_nothing(video), 0, 0)
    _warm(make_tracker(), video)
    runs = [_play_group(make_tracker(), video, group, fps) for group in _groups(video, points_at_once)]
    return Held(
        np.concatenate([run.xy for run in runs]),
        np.concatenate([run.visible for run in runs]),
        sum(run.answered for run in runs),
        sum(run.frames for run in runs),
    )


class _Run:
    """A fresh tracker that gets some of a video's points [n], its rows, one after the other."""

    def __init__(self, tracker: PointTracker, video: Video, points: NDArray[np.int64]) -> None:
        self.video, self.points = video, points
        self.query_frame = video.query_frame[points]  # [n]
        self._tracker = tracker
        self._row_of: dict[int, int] = {}  # by the tracker's id

    def first_xy(self) -> NDArray[np.float32]:
        """Where the points are on their query frames, on every frame: [n, T, 2]."""
        first = _onto_the_frame(self.video.xy[self.points, self.query_frame], self.video.frames)
        return np.repeat(first[:, None], len(self.video.frames), axis=1)

    def add(self, rows: NDArray[np.int64], frame: int) -> None:
        """Queries `rows` where they truly are on the frame that the next step gets."""
        if len(rows):
            xy = _onto_the_frame(self.video.xy[self.points[rows], frame], self.video.frames)
            self._row_of.update(zip(self._tracker.add(xy).tolist(), rows.tolist(), strict=True))

    def step(self, frame: int) -> tuple[list[int], Tracks, int]:
        """Tracks onto a frame: the rows that there are by now, what is told of them, and nanoseconds."""
        started = time.perf_counter_ns()
        tracks = self._tracker.step(self.video.frames[frame])
        took = time.perf_counter_ns() - started
        return [self._row_of[point] for point in tracks.ids.tolist()], tracks, took


def _follow_group(tracker: PointTracker, video: Video, points: NDArray[np.int64]) -> Followed:
    """Like `follow`, for some of the points [n] in one tracker."""
    run = _Run(tracker, video, points)
    xy = run.first_xy()  # [n, T, 2]
    visible = np.zeros(xy.shape[:2], bool)  # [n, T]
    step_ns = []
    for frame in range(len(video.frames)):
        run.add(np.flatnonzero(run.query_frame == frame), frame)
        rows, tracks, took = run.step(frame)
        if rows:
            step_ns.append(took)
        xy[rows, frame], visible[rows, frame] = tracks.xy, tracks.visible
    return Followed(xy, visible, step_ns[WARM_UP_STEPS:])


def _play_group(tracker: PointTracker, video: Video, points: NDArray[np.int64], fps: float) -> Held:
    """Like `follow_live`, for some of the points [n] in one tracker."""
    tracker.step(
        video.frames[0]
    )  # without points: what a tracker allocates or captures at first is not the camera's time
    run = _Run(tracker, video, points)
    xy = run.first_xy()  # [n, T, 2]
    visible = np.zeros(xy.shape[:2], bool)  # [n, T]
    waiting = np.ones(len(points), bool)  # [n]
    answered, clock, frame = 0, 0.0, 0  # the clock counts periods of the camera; frame k arrives at k
    while frame < len(video.frames):
        due = np.flatnonzero(waiting & (run.query_frame <= frame) & video.visible[points, frame])
        waiting[due] = False
        run.add(due, frame)
        rows, tracks, took = run.step(frame)
        clock = max(clock, frame) + took * fps / NS
        told = max(frame, math.ceil(clock) - 1)  # the first frame whose period ends after the answer is there
        xy[rows, told:], visible[rows, told:] = tracks.xy[:, None], tracks.visible[:, None]
        answered += bool(rows) and told == frame
        frame = max(frame + 1, math.floor(clock))
    return Held(xy, visible, answered, len(video.frames) - int(run.query_frame.min()))


def _warm(tracker: PointTracker, video: Video) -> None:
    """Takes the first steps, which are slow, with a tracker of their own: what trackers share is ready afterwards."""
    named = video.query_frame[0]
    tracker.add(_onto_the_frame(video.xy[:1, named], video.frames))
    for _ in range(WARM_UP_STEPS):
        tracker.step(video.frames[named])


def _groups(video: Video, points_at_once: int) -> list[NDArray[np.int64]]:
    return np.array_split(np.arange(len(video.xy)), math.ceil(len(video.xy) / points_at_once))


def _nothing(video: Video) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The xy and visible of a video without points."""
    return np.zeros((0, len(video.frames), 2), np.float32), np.zeros((0, len(video.frames)), bool)


def _onto_the_frame(xy: NDArray[np.float32], frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Clips positions [n, 2] into the frame: annotations may lie exactly on its far border, which is outside."""
    far = np.nextafter(np.array(frames.shape[2:0:-1], np.float32), np.float32(0))
    return np.clip(xy, np.float32(0), far)
