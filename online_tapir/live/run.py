"""The straight line of a frame: from the camera's mailbox through the tracker to the sinks, for as long as it lasts."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from online_tapir.camera import Camera, Capture, Reconnect
from online_tapir.camera.demo import Anchors, DemoCamera, DemoScene
from online_tapir.live.session import Session
from online_tapir.live.silence import Silence
from online_tapir.live.status import Status
from online_tapir.mailbox import Closed
from online_tapir.points.placement import PointSource
from online_tapir.points.replenish import Queries
from online_tapir.records import Frame, Sink, Tracks
from online_tapir.tracking.tracker import Tracker

if TYPE_CHECKING:
    from online_tapir.live.state_keeper import StateKeeper
    from online_tapir.sinks.metrics import Metrics

POLL_SECONDS = 0.05  # how soon a stop or a request is noticed while no frame comes


@runtime_checkable
class Informed(Protocol):
    """A sink that is told more than tracks: what is filmed, and before `publish` the points that the frame brings."""

    def begin(self, camera: Camera) -> None: ...

    def named(self, queries: Sequence[Queries]) -> None: ...


class Control(Protocol):
    """Holds a run: `serve` does to its session what was asked since the last call."""

    def serve(self, session: Session) -> object: ...


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
    heartbeat_s: float = 1.0,
    pipeline: bool = False,
    control: Control | None = None,
    window: Control | None = None,
    metrics: "Metrics | None" = None,
    keeper: "StateKeeper | None" = None,
    inspect: int | None = None,
    reopen: Callable[[], Camera] | None = None,
    reconnect: Reconnect | None = None,
) -> None:
    """Tracks `camera` until it ends, `stop` is set or `frames` have been tracked; closes it, and no sink.

    Points are placed on the first frame. Between frames `control`, `window` and `keeper` are served; where none comes
    for `heartbeat_s`, sinks that `beat` are told so. With `pipeline` a frame that is there already is on its way to the
    device before the one that is computed there is waited for. Point `inspect` is inspected as soon as there is such a
    point. Raises the camera's own error if it fails, and cannot be had again by `reopen`, tried as `reconnect` says;
    points wait for it.
    """
    truth = DemoTruth(camera.scene) if isinstance(camera, DemoCamera) else None
    session = Session(
        camera, tracker, stop, replenish=replenish, heartbeat_s=heartbeat_s, keeper=keeper, inspect=inspect
    )
    inspecting = Inspecting(session, status.note)
    silence = Silence(session, sinks, status.note)
    informed = [sink for sink in sinks if isinstance(sink, Informed)]
    for listener in informed:
        listener.begin(camera)
    published_ns = 0
    controls = [one for one in (control, window, keeper) if one is not None]
    under_way: deque[tuple[Frame, list[Queries]]] = deque()

    def publish() -> None:
        """Sends out the tracks of the oldest frame under way."""
        nonlocal published_ns
        frame, named = under_way.popleft()
        tracks = tracker.collect()
        times = replace(tracks.times, publish=published_ns)
        tracks = replace(tracks, camera=camera.name, dropped=capture.dropped + session.skipped, times=times)
        started_ns = time.monotonic_ns()
        for listener in informed:
            listener.named(named)
        for sink in sinks:
            sink.publish(frame, tracks)
        published_ns = time.monotonic_ns() - started_ns
        silence.is_over(tracks)
        status.update(tracks, truth.error_px(tracks, named) if truth else None)
        session.tracked(frame, tracks)

    with Capture(camera, reopen=reopen, reconnect=reconnect, report=status.note) as capture:
        if metrics is not None:
            metrics.watch(capture, session)
        for frame in _frames(capture, session, silence, controls, frames):
            if session.frame is None and not under_way:
                session.begin(frame, points.place(frame.rgb))
            inspecting.follow()
            under_way.append((frame, session.take_named()))
            tracker.submit(frame)
            while under_way and not (pipeline and len(under_way) == 1 and capture.mailbox.full):
                publish()
        while under_way:
            publish()


def _frames(
    capture: Capture, session: Session, silence: Silence, controls: Sequence[Control], limit: int | None
) -> Iterator[Frame]:
    """The frames as they come, newest first from a live source, until there are no more or none are wanted.

    While the run is paused a live source's frames are taken and skipped; a recording waits.
    """
    taken = 0
    while taken != limit:
        for control in controls:
            control.serve(session)
        if session.stop.is_set():
            return
        if session.paused and not capture.camera.live:
            silence.goes_on(capture.health)
            session.stop.wait(POLL_SECONDS)
            continue
        try:
            frame = capture.mailbox.take(POLL_SECONDS)
        except TimeoutError:
            silence.goes_on(capture.health)
            continue
        except Closed:
            return
        if session.paused:
            session.skipped += 1
            silence.goes_on(capture.health)
            continue
        taken += 1
        yield frame


class Inspecting:
    """Has the point inspected that a session waits for, once it is there, and says when an inspected one is gone."""

    def __init__(self, session: Session, note: Callable[[str], None]) -> None:
        self._session = session
        self._note = note
        self._waits = False
        self._inspected: int | None = None  # on the frame before

    def follow(self) -> None:
        """Goes before every frame."""
        if self._session.awaited is not None:
            self._wait_for(self._session.awaited)
        tracker = self._session.tracker
        inspected, before = tracker.inspected, self._inspected
        if inspected is None and before is not None and before not in tracker.ids:
            self._note(f"point {before} is gone, and is inspected no more")
        self._inspected = inspected

    def _wait_for(self, id: int) -> None:
        ids = self._session.tracker.ids
        newest = max(ids.tolist(), default=-1)  # ids are given out in order, and never twice
        if id in ids:
            self._session.inspect(id)
        elif id < newest:
            self._session.inspect(None)
            self._note(f"point {id} is gone, and cannot be inspected; `online-tapir control list` names the others")
        elif not self._waits:
            self._waits = True
            so_far = f"the newest is {newest}" if len(ids) else "there are none"
            self._note(f"point {id} is inspected as soon as it is there; so far {so_far}")


class DemoTruth:
    """Compares tracks with the demo scene's own truth."""

    def __init__(self, scene: DemoScene) -> None:
        self._scene = scene
        self._ids: NDArray[np.int32] = np.empty(0, np.int32)  # [K] of the points that were named
        self._anchors = scene.anchor(np.empty((0, 2)), 0)  # of K points

    def error_px(self, tracks: Tracks, named: Sequence[Queries]) -> NDArray[np.float32]:
        """How far each point of `tracks` is from its truth [N], image pixels; NaN where it is truly hidden.

        `named` are the points that came in since the frame before. Infinite for points that were never named: they go
        on from another run, and of where they belong nothing is known.
        """
        for queries in named:
            anchors = self._scene.anchor(queries.xy, queries.frame_id)
            self._ids = np.concatenate([self._ids, queries.ids])
            self._anchors = self._anchors.joined(anchors)
        there = np.isin(self._ids, tracks.ids)
        self._ids = self._ids[there]  # forget the points that are gone
        self._anchors = Anchors(self._anchors.layer[there], self._anchors.places[there])
        rows = np.searchsorted(tracks.ids, self._ids)
        xy, visible = self._scene.seen(self._anchors, tracks.frame_id)
        error = np.full(len(tracks.ids), np.inf, np.float32)
        error[rows] = np.where(visible, np.linalg.norm(tracks.xy[rows] - xy, axis=1), np.nan)
        return error
