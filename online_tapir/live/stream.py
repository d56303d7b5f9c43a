"""One camera's stream in a run: its capture, its points and its newest frame. Not thread-safe."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from online_tapir.camera import Camera, Capture, Health
from online_tapir.clock import Clock, SystemClock
from online_tapir.errors import QueryError, TemplateError
from online_tapir.flow.tracker import FlowTracker
from online_tapir.live.recovery import Recovery
from online_tapir.live.saves import Keeper, Records
from online_tapir.points.objects import Objects, with_objects
from online_tapir.points.placement import NOWHERE, PointSource
from online_tapir.points.replenish import PATIENCE_FRAMES, Replenisher
from online_tapir.points.returning import Returns
from online_tapir.records import Frame, Queries, Tracks
from online_tapir.tracking.finder import Finder
from online_tapir.tracking.templates import Templates, patches_of
from online_tapir.wire.messages import Heartbeat, State

if TYPE_CHECKING:
    from online_tapir.tracking.exported import ExportedTracker
    from online_tapir.tracking.tracker import Tracker


class Stream:
    """A camera and a tracker of its points.

    `points` are placed on the first frame. Point `inspect` is inspected as soon as it exists. While the source is away
    the points are kept. `report` gets lines for people.
    """

    def __init__(
        self,
        capture: Capture,
        tracker: "Tracker | FlowTracker | ExportedTracker",
        stop: threading.Event,
        *,
        points: PointSource = NOWHERE,
        finder: Finder | None = None,
        objects: Objects | None = None,
        replenish: bool = False,
        heartbeat_s: float = 1.0,
        keeper: Keeper | None = None,
        recorder: Records | None = None,
        inspect: int | None = None,
        epoch: int = 0,
        shows_inspection: Callable[[], bool] = lambda: True,
        report: Callable[[str], None] = print,
        clock: Clock | None = None,
    ) -> None:
        self.capture = capture
        self.tracker = tracker
        self.stop = stop  # ends the run
        self.heartbeat_s = heartbeat_s
        self.epoch = epoch  # of its placement in a fleet; 0 outside of one
        self.keeper = keeper  # None: this run does not save its points
        self.recorder = recorder  # None: recordings are not begun on request
        self.shows_inspection = shows_inspection  # whether any sink would show an inspected point now
        self.patience_frames = PATIENCE_FRAMES
        self.frame: Frame | None = None  # the newest published one
        self.tracks: Tracks | None = None
        self.skipped = 0  # frames that came while paused
        self.requests = 0  # answered or refused
        self._points = points
        self._finder = finder or Finder()
        self._objects = objects  # None: groups of points are no objects
        self._returns = Returns()
        self._told = ""  # of what is wrong with them
        self._replenisher = Replenisher(0) if replenish else None
        self._report = report
        self._clock = clock or SystemClock()
        self._submitted = 0  # frames
        self._collected = 0
        self._named: list[tuple[int, Queries]] = []  # with the number of the first frame that has their tracks
        self._awaited = inspect  # a point to inspect once it exists
        self._announced = False  # whether that was reported
        self._inspected: int | None = None  # on the previous frame
        self._publish_ns = 0  # time that the sinks took for the previous frame
        self._paused_ns: int | None = None
        self._spoke_ns = self._clock.monotonic_ns()  # when a frame or a heartbeat was last sent
        self._recovery = Recovery(report)
        if len(tracker.ids):
            self._recovery.resumed(tracker.ids)

    @property
    def camera(self) -> Camera:
        return self.capture.camera

    @property
    def name(self) -> str:
        return self.camera.name

    @property
    def health(self) -> Health:
        """Of the source, now."""
        return self.capture.health

    def tell(self, text: str) -> None:
        """Reports a line for people."""
        self._report(text)

    @contextmanager
    def capturing(self, arrived: threading.Event) -> Iterator[None]:
        """Reads the camera within a `with`, and closes it at the end; `arrived` is set whenever `take` has news."""
        self.capture.mailbox.notify(arrived)
        with self.capture:
            yield

    @property
    def frame_waits(self) -> bool:
        """Whether `take` has a frame to give."""
        return self.capture.mailbox.full

    def take(self) -> Frame | None:
        """The next frame to track, None while there is none. Raises Closed at the end, or the camera's error.

        While the stream is paused, a live source's frames are skipped and a recording waits. A recording's frames are
        stamped when they are taken, not when the reader decoded them ahead.
        """
        if self.paused and not self.camera.live:
            return None
        frame = self.capture.mailbox.poll()
        if frame is not None and not self.camera.live:  # waiting for the tracker is not latency
            frame = replace(frame, captured_ns=self._clock.monotonic_ns(), captured_unix_ns=self._clock.unix_ns())
        if frame is None or not self.paused:
            return frame
        self.skipped += 1
        return None

    @property
    def in_flight(self) -> int:
        """Frames that were submitted and not collected."""
        return self.tracker.in_flight

    def submit(self, frame: Frame) -> None:
        """Starts tracking `frame`; places the stream's points on the first one."""
        if not self._submitted:
            xy = self._points.place(frame.rgb)
            ids = self.tracker.add(xy)
            for id, label in zip(ids.tolist(), self._points.labels, strict=False):
                self.tracker.label(id, label)
            self._name(self._queries(ids, xy, frame.id))
            self._finder.begin(self.tracker)
            self._hold()
        self._follow_inspected()
        self.tracker.submit(frame)
        self._submitted += 1

    def collect(self) -> tuple[Frame, list[Queries], Tracks]:
        """The oldest frame in flight, the points whose tracks begin on it, and its tracks."""
        frame = self.tracker.oldest_in_flight
        tracks = self.tracker.collect()
        named = [queries for number, queries in self._named if number <= self._collected]
        self._named = [(number, queries) for number, queries in self._named if number > self._collected]
        dropped = frame.id - self._collected  # as frames are numbered when they are grabbed
        self._collected += 1
        times = replace(tracks.times, publish=self._publish_ns)
        labels = tracks.labels
        tracks = self._finder.sift(tracks, self.tracker)
        if self._objects is not None:
            sought = {id: label for id, label in labels.items() if label.sought in tracks.searching}
            tracks = with_objects(tracks, self._objects.follow(tracks, sought))
            if self._objects.trouble not in ("", self._told):
                self._told = self._objects.trouble
                self.tell(self._told)
        tracks = self._returns.sift(tracks, tracks.objects)
        return frame, named, replace(tracks, camera=self.name, dropped=dropped, times=times, epoch=self.epoch)

    def published(self, frame: Frame, tracks: Tracks, took_ns: int = 0) -> None:
        """Records that the sinks published a frame in `took_ns`; replaces lost points if this stream replenishes."""
        self.frame, self.tracks, self._publish_ns = frame, tracks, took_ns
        self._spoke_ns = self._clock.monotonic_ns()
        self._recovery.tracked(tracks)
        if self._replenisher is not None:
            self._name(self._replenisher.renew(self.tracker, frame, tracks))

    def add(
        self, xy: NDArray[np.float32], frame_id: int, names: Sequence[str] = (), group: str = ""
    ) -> NDArray[np.int32]:
        """Adds points xy [P, 2] (image pixels) on a frame of the window; returns their ids [P]."""
        ids = self.tracker.add(xy, frame_id=frame_id, names=names, group=group)
        self._name(self._queries(ids, xy, frame_id))
        self._hold()
        return ids

    def _queries(self, ids: NDArray[np.int32], xy: NDArray[np.float32], frame_id: int) -> Queries:
        labels = self.tracker.labels
        return Queries(ids, xy, frame_id, {id: labels[id] for id in ids.tolist() if id in labels})

    @property
    def points(self) -> int:
        """How many points there are, without those that have yet to be found."""
        return len(self.tracker.ids) - len(self.sought)

    @property
    def sought(self) -> set[int]:
        """The views of templates that have not been found."""
        return {id for id, label in self.tracker.labels.items() if label.sought}

    def templates(self) -> Templates:
        """What the visible points that have a name look like now, on the newest frame that the model has seen.

        Raises TemplateError where there are none.
        """
        answer, now = self.tracker.answer, self.tracks
        if self.frame is None or answer is None or now is None:
            raise TemplateError("the model has seen no frame yet; ask again in a moment")
        named = [id for id, label in now.labels.items() if label.name]
        ids = np.intersect1d(answer.ids[answer.visible], now.ids[now.visible])
        ids = ids[np.isin(ids, named)]
        if not len(ids):
            raise TemplateError(
                "no point that has a name is visible; name points first, by `control label` or the page"
            )
        try:
            seen = answer.xy[np.searchsorted(answer.ids, ids)].clip(0, (answer.width, answer.height))
            looks = self.tracker.looks(seen, answer.frame_id)
        except QueryError as error:
            raise TemplateError(str(error)) from error
        patches = patches_of(self.frame.rgb, now.xy[np.searchsorted(now.ids, ids)])
        return Templates.made(self.tracker.model, [now.labels[id] for id in ids.tolist()], looks, patches)

    def remove(self, ids: NDArray[np.int32]) -> None:
        self.tracker.remove(ids)
        self._hold()

    def clear(self) -> None:
        self.tracker.clear()
        self._hold()

    def inspect(self, id: int | None) -> None:
        """Inspects this point from the next frame on; None: no point, and none is awaited."""
        self.tracker.inspect(id)
        self._awaited = None

    @property
    def replenishing(self) -> int | None:
        """How many points to maintain; None if lost ones are not replaced."""
        return None if self._replenisher is None else self._replenisher.want

    def replenish(self, points: int | None) -> None:
        """Maintains this many points from now on; None: lost points are not replaced."""
        self._replenisher = None if points is None else Replenisher(points, self.patience_frames)

    def wait_for_hidden(self, frames: int) -> None:
        """Sets how long a point may be hidden before it is replaced."""
        self.patience_frames = frames
        self.replenish(self.replenishing)

    @property
    def paused(self) -> bool:
        return self._paused_ns is not None

    def pause(self) -> None:
        if not self.paused:
            self._paused_ns = self._clock.monotonic_ns()

    def resume(self) -> None:
        self._paused_ns = None

    @property
    def state(self) -> State:
        """`paused`, or the state of the source."""
        return "paused" if self.paused else self.health.state

    def heartbeat(self) -> Heartbeat:
        """The state now, and how long it has lasted."""
        now_ns, now_unix_ns = self._clock.monotonic_ns(), self._clock.unix_ns()
        since_ns = self.health.since_ns if self._paused_ns is None else self._paused_ns
        return Heartbeat(
            camera=self.name,
            state=self.state,
            frame_id=-1 if self.tracks is None else self.tracks.frame_id,
            since_unix_ns=now_unix_ns - (now_ns - since_ns),
            points=self.points,
            epoch=self.epoch,
        )

    def heartbeat_due(self) -> Heartbeat | None:
        """A heartbeat if nothing was sent for `heartbeat_s`, otherwise None. Called repeatedly while no frame comes."""
        if self.state != "streaming" and self.tracks is not None:
            self._recovery.lost(self.tracks)
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._spoke_ns < self.heartbeat_s * 1e9:
            return None
        self._spoke_ns = now_ns
        return self.heartbeat()

    def _name(self, queries: Queries) -> None:
        self._named.append((self._submitted, queries))

    def _hold(self) -> None:
        """If this stream replenishes, the current number of points becomes the number to maintain."""
        if self._replenisher is not None:
            self._replenisher.want = self.points

    def _follow_inspected(self) -> None:
        """Before each frame: inspects the awaited point once it exists, and reports when an inspected one is gone."""
        if self._awaited is not None:
            self._inspect_awaited(self._awaited)
        inspected, before = self.tracker.inspected, self._inspected
        if inspected is None and before is not None and before not in self.tracker.ids:
            self._report(f"point {before} is gone and no longer inspected")
        self._inspected = inspected

    def _inspect_awaited(self, id: int) -> None:
        ids = self.tracker.ids
        newest = max(ids.tolist(), default=-1)  # ids are given out in order and never reused
        if id in ids:
            self.inspect(id)
        elif id < newest:
            self.inspect(None)
            self._report(f"point {id} is gone and cannot be inspected; `online-tapir control list` names the others")
        elif not self._announced:
            self._announced = True
            so_far = f"the newest is {newest}" if len(ids) else "there are none"
            self._report(f"point {id} will be inspected once it exists; so far {so_far}")
