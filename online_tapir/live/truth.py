"""A sink that compares the demo's tracks with its ground truth and passes each point's error to the status."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from online_tapir.camera.demo import Anchors, DemoScene
from online_tapir.live.sink import Sink
from online_tapir.records import Frame, Queries, Tracks

LONGEST_HELD = 120  # frames

Judge = Callable[[Tracks, NDArray[np.float32]], None]


class DemoTruth(Sink):
    """Compares the tracks of a demo scene with the scene's own truth and passes the errors to `judge`.

    Errors [N] are distances in image pixels: NaN where a point is truly hidden, infinite for points
    restored from another run, whose true positions are unknown.

    At the end of each frame's own period, the newest tracks that were published by then are also compared with the
    truth of *that* frame, for `judge_held`: what a subscriber holds in time (Li, Wang, Ramanan: Towards Streaming
    Perception, ECCV 2020). This needs the scene's rate, `fps`.
    """

    def __init__(
        self,
        scene: DemoScene,
        judge: Judge,
        judge_held: Judge = lambda tracks, error_px: None,
        fps: float = 0.0,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._scene = scene
        self._judge = judge
        self._judge_held = judge_held
        self._period_ns = 1e9 / fps if fps else 0.0
        self._monotonic_ns = monotonic_ns
        self._last: Tracks | None = None
        self._held_until = -1  # the last frame whose period was seen to end
        self._ids: NDArray[np.int32] = np.empty(0, np.int32)  # [K] of the points that were named
        self._anchors = scene.anchor(np.empty((0, 2)), 0)  # of K points

    def named(self, camera: str, queries: Sequence[Queries]) -> None:
        for points in queries:
            self._ids = np.concatenate([self._ids, points.ids])
            self._anchors = self._anchors.joined(self._scene.anchor(points.xy, points.frame_id))

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        if self._period_ns:
            self._judge_what_was_held(self._last, tracks)
        self._last = tracks
        self._judge(tracks, self.error_px(tracks))

    def _judge_what_was_held(self, last: Tracks | None, tracks: Tracks) -> None:
        """Until now `last` was the newest (None: nothing was); `tracks` says when the frames were captured."""
        since_ns = self._monotonic_ns() - tracks.captured_ns
        ended = tracks.frame_id + int(since_ns // self._period_ns) - 1  # the last frame whose period is over
        if last is not None:
            first = max(self._held_until, ended - LONGEST_HELD) + 1  # a pause is not judged frame by frame
            for frame_id in range(first, ended + 1):
                self._judge_held(last, self.error_px(last, frame_id))
        self._held_until = max(self._held_until, ended)

    def error_px(self, tracks: Tracks, frame_id: int | None = None) -> NDArray[np.float32]:
        """The error of each point of `tracks` [N], in image pixels (see the class), on their frame or another."""
        there = np.isin(self._ids, tracks.ids)
        ids, anchors = self._ids[there], Anchors(self._anchors.layer[there], self._anchors.places[there])
        if frame_id is None:
            self._ids, self._anchors = ids, anchors  # forgets the points that are gone
        rows = np.searchsorted(tracks.ids, ids)
        xy, visible = self._scene.seen(anchors, tracks.frame_id if frame_id is None else frame_id)
        error = np.full(len(tracks.ids), np.inf, np.float32)
        error[rows] = np.where(visible, np.linalg.norm(tracks.xy[rows] - xy, axis=1), np.nan)
        return error
