"""The straight line of a frame: from the camera's mailbox through the tracker to the sinks, for as long as it lasts."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from online_tapir.camera import Camera, Capture
from online_tapir.demo import DemoCamera, DemoScene
from online_tapir.mailbox import Closed
from online_tapir.points import PointSource
from online_tapir.records import Frame, Sink, Tracks
from online_tapir.replenish import NOTHING, Queries, Replenisher
from online_tapir.status import Status
from online_tapir.tracker import Tracker

POLL_SECONDS = 0.2  # how soon a stop is noticed while no frame comes


def track_live(
    camera: Camera,
    tracker: Tracker,
    points: PointSource,
    sinks: Sequence[Sink],
    status: Status,
    stop: threading.Event,
    *,
    frames: int | None = None,
    replenish: bool = False,
) -> None:
    """Tracks `camera` until it ends, `stop` is set or `frames` have been tracked; closes it, and no sink.

    Points are placed on the first frame. Raises the camera's own error if it fails.
    """
    truth = DemoTruth(camera.scene) if isinstance(camera, DemoCamera) else None
    replenisher: Replenisher | None = None
    published_ns = 0
    with Capture(camera, report=status.note) as capture:
        for index, frame in enumerate(_frames(capture, stop, frames)):
            if index == 0:
                placed = points.place(frame.rgb)
                queries = Queries(tracker.add(placed), placed, frame.id)
                replenisher = Replenisher(len(placed)) if replenish else None
            if truth:
                truth.begin(queries)
            tracks = tracker.step(frame)
            times = replace(tracks.times, publish=published_ns)
            tracks = replace(tracks, camera=camera.name, dropped=capture.dropped, times=times)
            started_ns = time.monotonic_ns()
            for sink in sinks:
                sink.publish(frame, tracks)
            published_ns = time.monotonic_ns() - started_ns
            status.update(tracks, truth.error_px(tracks) if truth else None)
            queries = replenisher.renew(tracker, frame, tracks) if replenisher else NOTHING


def _frames(capture: Capture, stop: threading.Event, limit: int | None) -> Iterator[Frame]:
    """The frames as they come, newest first from a live source, until there are no more or none are wanted."""
    taken = 0
    while not stop.is_set() and taken != limit:
        try:
            frame = capture.mailbox.take(POLL_SECONDS)
        except TimeoutError:
            continue
        except Closed:
            return
        taken += 1
        yield frame


class DemoTruth:
    """Compares tracks with the demo scene's own truth."""

    def __init__(self, scene: DemoScene) -> None:
        self._scene = scene
        self._queries: dict[int, tuple[int, NDArray[np.float32]]] = {}  # by point id: a frame, and where on it

    def begin(self, queries: Queries) -> None:
        """Says where points were named."""
        pairs = zip(queries.ids.tolist(), queries.xy, strict=True)
        self._queries.update((id, (queries.frame_id, place)) for id, place in pairs)

    def error_px(self, tracks: Tracks) -> NDArray[np.float32]:
        """How far each point of `tracks` is from its truth [N], image pixels; NaN where it is truly hidden."""
        ids = tracks.ids.tolist()
        self._queries = {id: self._queries[id] for id in ids}  # forget the points that are gone
        named_on = np.array([self._queries[id][0] for id in ids], np.int64)
        error = np.full(len(ids), np.nan, np.float32)
        for frame_id in np.unique(named_on).tolist():
            rows = np.flatnonzero(named_on == frame_id)
            named_at = np.stack([self._queries[ids[row]][1] for row in rows])
            xy, visible = self._scene.truth(named_at, frame_id, tracks.frame_id)
            error[rows] = np.where(visible, np.linalg.norm(tracks.xy[rows] - xy, axis=1), np.nan)
        return error
