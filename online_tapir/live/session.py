"""A live run between two frames: what its loop and its controllers share. One thread uses it."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from online_tapir.camera import Camera, Health
from online_tapir.points.replenish import PATIENCE_FRAMES, Queries, Replenisher
from online_tapir.records import Frame, Tracks
from online_tapir.tracking.tracker import Tracker
from online_tapir.wire.messages import Heartbeat, State

if TYPE_CHECKING:
    from online_tapir.live.state_keeper import StateKeeper


class Session:
    """The points of a run, its newest frame and tracks, and whether it goes on."""

    def __init__(
        self,
        camera: Camera,
        tracker: Tracker,
        stop: threading.Event,
        *,
        replenish: bool = False,
        heartbeat_s: float = 1.0,
        keeper: "StateKeeper | None" = None,
        inspect: int | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.camera = camera
        self.tracker = tracker
        self.stop = stop
        self.heartbeat_s = heartbeat_s
        self.keeper = keeper  # None: this run saves its points nowhere
        self.awaited = inspect  # a point that is not there yet: it is inspected as soon as it is
        self.patience_frames = PATIENCE_FRAMES
        self.frame: Frame | None = None  # the newest tracked
        self.tracks: Tracks | None = None
        self.skipped = 0  # frames that came while paused
        self.requests = 0  # that were answered or refused
        self._replenisher = Replenisher(0) if replenish else None
        self._named: list[Queries] = []
        self._monotonic_ns = monotonic_ns
        self._unix_ns = unix_ns
        self.health = Health("streaming", monotonic_ns())  # of the source, as last seen
        self._paused_ns: int | None = None

    def begin(self, frame: Frame, xy: NDArray[np.float32]) -> None:
        """Names the first points xy [P, 2] (image pixels) on the first frame, which is about to be tracked."""
        self._named.append(Queries(self.tracker.add(xy), xy, frame.id))
        self._hold()

    def take_named(self) -> list[Queries]:
        """The points that were named since the last call."""
        named, self._named = self._named, []
        return named

    def tracked(self, frame: Frame, tracks: Tracks) -> None:
        """A frame is done and published; lost points are replaced, where that is wanted."""
        self.frame, self.tracks = frame, tracks
        if self._replenisher is not None:
            self._named.append(self._replenisher.renew(self.tracker, frame, tracks))

    def add(self, xy: NDArray[np.float32], frame_id: int) -> NDArray[np.int32]:
        """Names points xy [P, 2] (image pixels) on a frame of the window; returns their ids [P]."""
        ids = self.tracker.add(xy, frame_id=frame_id)
        self._named.append(Queries(ids, xy, frame_id))
        self._hold()
        return ids

    def remove(self, ids: NDArray[np.int32]) -> None:
        self.tracker.remove(ids)
        self._hold()

    def clear(self) -> None:
        self.tracker.clear()
        self._hold()

    def inspect(self, id: int | None) -> None:
        """From the next frame on this point is inspected; None: no point is, and none is waited for."""
        self.tracker.inspect(id)
        self.awaited = None

    @property
    def replenishing(self) -> int | None:
        """How many points are held; None while lost ones are not replaced."""
        return None if self._replenisher is None else self._replenisher.want

    def replenish(self, points: int | None) -> None:
        """From now on holds so many points; None: replaces none."""
        self._replenisher = None if points is None else Replenisher(points, self.patience_frames)

    def wait_for_hidden(self, frames: int) -> None:
        """How long a point may be hidden before it is replaced."""
        self.patience_frames = frames
        self.replenish(self.replenishing)

    @property
    def paused(self) -> bool:
        return self._paused_ns is not None

    def pause(self) -> None:
        if not self.paused:
            self._paused_ns = self._monotonic_ns()

    def resume(self) -> None:
        self._paused_ns = None

    @property
    def state(self) -> State:
        """Of the run: paused, or else of its source."""
        if self.paused:
            return "paused"
        return self.health.state

    def heartbeat(self) -> Heartbeat:
        """A sign of life: the state now, and how long it has lasted."""
        now_ns, now_unix_ns = self._monotonic_ns(), self._unix_ns()
        since_ns = self.health.since_ns if self._paused_ns is None else self._paused_ns
        return Heartbeat(
            camera=self.camera.name,
            state=self.state,
            frame_id=-1 if self.tracks is None else self.tracks.frame_id,
            since_unix_ns=now_unix_ns - (now_ns - since_ns),
            points=len(self.tracker.ids),
        )

    def _hold(self) -> None:
        """As many points as there are now are held, where lost ones are replaced."""
        if self._replenisher is not None:
            self._replenisher.want = len(self.tracker.ids)
