"""A sink that compares the demo's tracks with its ground truth and passes each point's error to the status."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from online_tapir.camera.demo import Anchors, DemoScene
from online_tapir.live.sink import Sink
from online_tapir.records import Frame, Queries, Tracks

Judge = Callable[[Tracks, NDArray[np.float32]], None]


class DemoTruth(Sink):
    """Compares the tracks of a demo scene with the scene's own truth and passes the errors to `judge`.

    Errors [N] are distances in image pixels: NaN where a point is truly hidden, infinite for points
    restored from another run, whose true positions are unknown.
    """

    def __init__(self, scene: DemoScene, judge: Judge) -> None:
        self._scene = scene
        self._judge = judge
        self._ids: NDArray[np.int32] = np.empty(0, np.int32)  # [K] of the points that were named
        self._anchors = scene.anchor(np.empty((0, 2)), 0)  # of K points

    def named(self, camera: str, queries: Sequence[Queries]) -> None:
        for points in queries:
            self._ids = np.concatenate([self._ids, points.ids])
            self._anchors = self._anchors.joined(self._scene.anchor(points.xy, points.frame_id))

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        self._judge(tracks, self.error_px(tracks))

    def error_px(self, tracks: Tracks) -> NDArray[np.float32]:
        """The error of each point of `tracks` [N], in image pixels (see the class)."""
        there = np.isin(self._ids, tracks.ids)
        self._ids = self._ids[there]  # forgets the points that are gone
        self._anchors = Anchors(self._anchors.layer[there], self._anchors.places[there])
        rows = np.searchsorted(tracks.ids, self._ids)
        xy, visible = self._scene.seen(self._anchors, tracks.frame_id)
        error = np.full(len(tracks.ids), np.inf, np.float32)
        error[rows] = np.where(visible, np.linalg.norm(tracks.xy[rows] - xy, axis=1), np.nan)
        return error
