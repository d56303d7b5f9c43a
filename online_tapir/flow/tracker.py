"""A tracker that answers every frame at once: flow in the caller's thread, the model in its own on the newest frame.

Its interface is that of `tracking.Tracker`. `submit` carries the points to the frame by flow and offers it to the
model; `collect` applies the model's answers that have arrived and returns the points on that frame. If the model keeps
up with the frames, `collect` waits for its answer, so that no answer is late.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from online_tapir.errors import FrameError, QueryError, StateError
from online_tapir.flow.fusion import REMEMBERED, Fusion
from online_tapir.flow.model_thread import CLOSE_SECONDS, ModelThread, Work
from online_tapir.points.placement import check_inside
from online_tapir.records import Frame, Label, Tracks
from online_tapir.tracking.ledger import Labelled, Ledger, Query, labels_of, points_of
from online_tapir.tracking.looks import Looks

if TYPE_CHECKING:
    from online_tapir.model.tapir import Tapir
    from online_tapir.tracking.exported import ExportedTracker
    from online_tapir.tracking.state_file import SavedState
    from online_tapir.tracking.tracker import Tracker

T = TypeVar("T")

KEEPS_UP = 0.8  # a model that needs less than this share of the frame interval is waited for
PATIENCE = 0.9  # share of the frame interval, from the capture on, at which a frame is answered at the latest
RECENT = 15  # frames and answers over which both times are measured


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Where new points are on a frame, by flow."""

    frame_id: int
    xy: NDArray[np.float32]  # [P, 2]
    sure: NDArray[np.bool_]  # [P] False: flow has lost the point between the frame that it was named on and this one

    def taken(self, keep: NDArray[np.bool_]) -> "_Places":
        return _Places(self.frame_id, self.xy[keep], self.sure[keep])


@dataclass(frozen=True, slots=True, eq=False)
class _Named:
    """New points that the model has not received yet."""

    ids: NDArray[np.int32]
    on: _Places  # the frame that they were named on
    now: _Places  # the newest frame
    near: tuple[_Places, ...] = ()  # frames that the model has seen, the last before they were named, the first after
    looks: Looks | None = None  # they are searched for by these, and have no position

    def moved(self, frame_id: int, found: tuple[NDArray[np.float32], NDArray[np.bool_]] | None) -> "_Named":
        return self if found is None or self.looks is not None else replace(self, now=_Places(frame_id, *found))

    def without(self, ids: NDArray[np.int32]) -> "_Named":
        keep = ~np.isin(self.ids, ids)
        looks = None if self.looks is None else self.looks.taken(keep)
        near = tuple(places.taken(keep) for places in self.near)
        return _Named(self.ids[keep], self.on.taken(keep), self.now.taken(keep), near, looks)

    def described(self, known: Sequence[int]) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32], int | None]]:
        """Where the model learns what the points look like: ids, positions and a `known` frame, None the newest one.

        That is the frame they were named on, or the nearest one to which flow follows them; they are in the order of
        their ids. A point that flow follows to none of them has to be taken where it was seen last.
        """
        if self.on.frame_id in known:
            yield self.ids, self.on.xy, self.on.frame_id
            return
        places = [*(near for near in self.near if near.frame_id in known), self.now]
        places.sort(key=lambda one: abs(one.frame_id - self.on.frame_id))
        chosen = [next((one for one in places if one.sure[row]), self.now) for row in range(len(self.ids))]
        for frame_id, several in groupby(range(len(self.ids)), key=lambda row: chosen[row].frame_id):
            rows = np.array(list(several))
            yield self.ids[rows], chosen[rows[0]].xy[rows], None if frame_id == self.now.frame_id else frame_id


@dataclass(frozen=True, slots=True, eq=False)
class _Offer:
    """A frame for the model, and the points that are new to it."""

    frame: Frame
    named: list[_Named]
    at_ns: int  # when it was offered; others may be served first


class FlowTracker(Labelled):
    """Tracks points at the camera's frame rate, even if the model is slower.

    `step` waits for the model on every frame, for recordings and when latency does not matter; `submit` and `collect`
    do not. Use it from one thread; `close` ends the model's part. The next call raises an error of the model.
    """

    overlaps = False

    def __init__(
        self,
        tracker: "Tracker | ExportedTracker",
        fusion: Fusion | None = None,
        *,
        waits: bool = False,
        clock: Callable[[], int] = time.monotonic_ns,
        thread: ModelThread | None = None,
    ) -> None:
        """With `waits`, every `collect` waits for the model's answer: for recordings.

        Several trackers may share a `thread`, which runs their models in turn and which its owner closes.
        """
        self._tracker = tracker
        self._fusion = fusion or Fusion(remembered=max(REMEMBERED, tracker.window + 1))  # one more: the next frame
        self._waits = waits
        self._clock = clock
        self._points = Ledger(tracker.max_points)
        self._inspected: int | None = None
        self._named: list[_Named] = []  # new points that the model has not received yet
        self._submitted: deque[Frame] = deque()
        self._age_ns = 0  # of the newest frame when it was submitted
        self._last: Frame | None = None
        self._seen: deque[int] = deque(maxlen=tracker.window)  # ids of recent frames, which a query may name
        self._intervals: deque[int] = deque(maxlen=RECENT)  # between frames, nanoseconds
        self._model_ns: deque[int] = deque(maxlen=RECENT)  # time that the model took per frame
        self._template: Tracks | None = None  # the model's newest answer
        self._answered: deque[int] = deque(maxlen=tracker.window)  # ids of the frames that it has answered
        self._own = thread is None
        self._model_thread = thread or ModelThread()
        self._changed = self._model_thread.changed
        self._tasks: deque[Callable[[], None]] = deque()  # run by the model's thread between two frames
        self._asking = 0  # callers that wait for one of them
        self._offered: _Offer | None = None  # the newest frame, for the model to take
        self._answers: deque[Tracks] = deque()
        self._error: BaseException | None = None
        self._closing = False
        self._working = False
        self._model_thread.join(self)

    @property
    def model(self) -> "Tapir":
        return self._tracker.model

    @property
    def device(self) -> object:
        return self._tracker.device

    @property
    def max_points(self) -> int:
        return self._tracker.max_points

    @property
    def ids(self) -> NDArray[np.int32]:
        """The points that are tracked or wait for the next frame, ascending."""
        return self._points.ids

    @property
    def frame_ids(self) -> list[int]:
        """The frames that a query may name, oldest first."""
        return list(self._seen)

    @property
    def answer(self) -> Tracks | None:
        """The model's newest answer that came in, for a frame that may have passed; None before the first."""
        return self._template

    @property
    def in_flight(self) -> int:
        return len(self._submitted)

    @property
    def oldest_in_flight(self) -> Frame:
        if not self._submitted:
            raise RuntimeError("no frame is in flight; submit one first")
        return self._submitted[0]

    def add(
        self, xy: ArrayLike, frame_id: int | None = None, *, names: Sequence[str] = (), group: str = ""
    ) -> NDArray[np.int32]:
        """As `Tracker.add`: the next `collect` includes the points; flow carries them from a past frame to now."""
        points = points_of(xy)
        if frame_id is not None and frame_id not in self._seen:
            known = f"{self._seen[0]} to {self._seen[-1]}" if self._seen else "none yet"
            raise QueryError(f"frame {frame_id} has left the window; name one of those that came: {known}")
        if self._last is not None:
            check_inside(points, self._last.rgb.shape[1], self._last.rgb.shape[0])
        return self._points.add(points, frame_id, labels_of(names, group, len(points)))

    def search(self, looks: Looks, labels: Sequence[Label] = ()) -> NDArray[np.int32]:
        """As `Tracker.search`; the points appear with the model's first answer."""
        looks.check(self.model.config)
        return self._points.add(np.zeros((looks.points, 2), np.float32), None, labels, looks)

    def looks(self, xy: ArrayLike, frame_id: int | None = None) -> Looks:
        """As `Tracker.looks`, on a frame that the model has seen; waits for the model."""
        return self._ask(lambda: self._tracker.looks(xy, frame_id))

    def remove(self, ids: ArrayLike) -> None:
        """As `Tracker.remove`."""
        wanted = np.unique(np.asarray(ids, np.int32))
        self._points.remove(wanted)
        self._fusion.keep(self._points.ids)
        with self._changed:
            self._named = [named.without(wanted) for named in self._named]
            if self._offered is not None:
                self._offered = replace(self._offered, named=list(self._named))
        self._tell(lambda: self._tracker.remove(np.intersect1d(wanted, self._tracker.ids)))

    def clear(self) -> None:
        """As `Tracker.clear`."""
        self._points.clear()
        self._fusion.keep(self._points.ids)
        with self._changed:
            self._named = []
            if self._offered is not None:
                self._offered = replace(self._offered, named=[])
        self._tell(self._tracker.clear)

    @property
    def inspected(self) -> int | None:
        there = self._inspected is not None and self._inspected in self._points.ids
        return self._inspected if there else None

    def inspect(self, id: int | None) -> None:
        """As `Tracker.inspect`; the inspection comes with the model's answers, so it may be of an earlier frame."""
        if id is not None:
            self._tracker.check_inspects()
            self._points.check(np.array([id], np.int64))
        self._inspected = id

    def step(self, frame: Frame) -> Tracks:
        """Tracks every point on the next frame, and waits for the model's answer for that very frame."""
        self.submit(frame)
        self._wait_for_answer(frame.id, None)
        return self.collect()

    def submit(self, frame: Frame) -> None:
        """Carries the points to `frame` and offers it to the model."""
        self._raise_error()
        self._age_ns = max(0, self._clock() - frame.captured_ns)
        if self._last is not None and frame.id <= self._last.id:
            raise FrameError(
                f"frame {frame.id} came after frame {self._last.id}; give frames in the order of their ids"
            )
        self._points.refuse_outside(frame.rgb.shape[1], frame.rgb.shape[0])
        if self._last is not None:
            self._intervals.append(frame.captured_ns - self._last.captured_ns)
        self._take_in_answers()
        self._fusion.carry(frame)
        self._seen.append(frame.id)
        self._last = frame
        for query in self._points.waiting():  # in the order of their ids, whichever frames they are on
            self._begin(query, frame.id if query.frame_id is None else query.frame_id)
        self._submitted.append(frame)
        self._offer(frame)

    def _offer(self, frame: Frame) -> None:
        with self._changed:
            self._named = [named.moved(frame.id, self._fusion.where(named.ids, frame.id)) for named in self._named]
            self._offered = _Offer(frame, list(self._named), self._clock())
            self._changed.notify_all()

    def collect(self) -> Tracks:
        """The points on the frame in flight. Collect each frame before the next `submit`, which moves the points on."""
        frame = self._submitted.popleft()
        if self._waits:
            self._wait_for_answer(frame.id, None)
        elif (patience_ns := self._patience_ns(frame)) > 0:
            self._wait_for_answer(frame.id, patience_ns / 1e9)
        self._raise_error()
        self._take_in_answers()
        height, width = frame.rgb.shape[:2]
        blank = self._template or _blank(self._tracker.name)
        inspection = blank.inspection if blank.inspection and blank.inspection.id == self.inspected else None
        tracks = replace(
            blank,
            frame_id=frame.id,
            captured_ns=frame.captured_ns,
            captured_unix_ns=frame.captured_unix_ns,
            width=width,
            height=height,
            times=replace(blank.times, capture=self._age_ns),
            inspection=inspection,
            labels=self._points.labels,
        )
        return self._fusion.now(tracks)

    def saved_state(self) -> "SavedState":
        """As `Tracker.saved_state`; waits for one step of the model. Points that are new to it wait in the state."""
        self._raise_error()
        if self._template is None:
            with self._changed:  # the model has yet to see its first frame
                self._changed.wait_for(lambda: self._offered is None or self._error is not None)
        saved, known = self._ask(lambda: (self._tracker.saved_state(), self._tracker.ids))
        # A point whose state overflowed is known to the model, and is not saved.
        fresh = np.setdiff1d(self._fusion.ids, known).astype(np.int32)
        where = None if self._last is None else self._fusion.where(fresh, self._last.id)
        waiting = [(saved.waiting_ids, saved.waiting_xy)]
        waiting += [] if where is None else [(fresh, where[0])]
        waiting += [
            (query.ids, self._fusion.brought(query.xy, query.frame_id))
            for query in self._points.queries
            if query.looks is None
        ]
        return replace(
            saved,
            next_id=self._points.next_id,
            labels=self._points.labels,
            waiting_ids=np.concatenate([ids for ids, _ in waiting]),
            waiting_xy=np.concatenate([xy for _, xy in waiting]),
            waiting_size=None if self._last is None else self._last.rgb.shape[:2],
        )

    def load_state(self, path: str | Path) -> "SavedState":
        """As `Tracker.load_state`. The points appear with the model's first answer."""
        if self._last is not None or self._points.next_id:
            raise StateError(
                "this tracker has had frames or points, and a state is loaded into a new one; make another"
            )
        saved = self._ask(lambda: self._tracker.load_state(path))
        nothing = Query(np.empty(0, np.int32), np.empty((0, 2), np.float32), None)
        self._points.restore(self._tracker.ids, saved.next_id, nothing, saved.labels)
        return saved

    def close(self) -> None:
        """Ends the model's part after its current frame. May be called twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._model_thread.leave(self)
        if self._own:
            self._model_thread.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._working, CLOSE_SECONDS)

    def _begin(self, query: Query, frame_id: int) -> None:
        self._points.seat([query])
        if query.looks is None:  # the others appear with the model's answer
            self._fusion.add(query.ids, query.xy, frame_id)
        on = _Places(frame_id, query.xy, np.ones(len(query.ids), np.bool_))
        near = () if query.looks is not None else self._near(on)
        with self._changed:
            self._named.append(_Named(query.ids, on, on, near, query.looks))

    def _near(self, on: _Places) -> tuple[_Places, ...]:
        """The points on the frames nearest to theirs that the model has answered, one before and one after.

        None where it takes the newest frame next, and theirs is that one.
        """
        with self._changed:
            idle = not self._working and self._offered is None and self._model_thread.turns == 1
        if idle and on.frame_id == self._seen[-1]:
            return ()
        before = max((id for id in self._answered if id < on.frame_id), default=None)
        after = min((id for id in self._answered if id > on.frame_id), default=None)
        found = [(id, self._fusion.carried(on.xy, on.frame_id, id)) for id in (before, after) if id is not None]
        return tuple(_Places(id, *places) for id, places in found if places is not None)

    def _take_in_answers(self) -> None:
        with self._changed:
            answers, self._answers = self._answers, deque()
        for answer in answers:
            self._template = answer
            self._answered.append(answer.frame_id)
            restored = np.setdiff1d(np.intersect1d(answer.ids, self._points.rows), self._fusion.ids)
            if len(restored):  # points of a loaded state first appear in an answer
                places = answer.xy[np.searchsorted(answer.ids, restored)]
                self._fusion.add(restored.astype(np.int32), places, answer.frame_id, named=False)
            self._fusion.correct(answer)

    def _patience_ns(self, frame: Frame) -> int:
        """How long `collect` may still wait for the model's answer; 0 unless the model keeps up with the frames.

        Trackers that take turns in the model's thread also share the time to wait: their frames are collected in turn.
        """
        if len(self._intervals) < 2 or not self._model_ns:
            return 0
        interval = int(np.median(self._intervals)) // max(1, self._model_thread.turns)
        if np.median(self._model_ns) > KEEPS_UP * interval:
            return 0
        return round(PATIENCE * interval) - (self._clock() - frame.captured_ns)

    def _wait_for_answer(self, frame_id: int, seconds: float | None) -> None:
        def has_come() -> bool:
            return (
                self._error is not None
                or self._closing
                or self._fusion.model_frame_id >= frame_id
                or any(answer.frame_id >= frame_id for answer in self._answers)
            )

        with self._changed:
            self._changed.wait_for(has_come, seconds)

    def _tell(self, task: Callable[[], None]) -> None:
        with self._changed:
            self._tasks.append(task)
            self._changed.notify_all()

    def _ask(self, question: Callable[[], T]) -> T:
        """Calls `question` in the model's thread; returns or raises what it does."""
        self._raise_error()
        answer: list[T] = []
        errors: list[BaseException] = []
        done = threading.Event()

        def ask() -> None:
            try:
                answer.append(question())
            except BaseException as error:
                errors.append(error)
            done.set()

        with self._changed:
            self._asking += 1
        try:
            self._tell(ask)
            while not done.wait(0.05):
                self._raise_error()
        finally:
            with self._changed:
                self._asking -= 1
        if errors:
            raise errors[0]
        return answer[0]

    def raise_error(self) -> None:
        """Raises the error that ended the model's thread, if one did."""
        if self._error is not None:
            raise self._error

    def _raise_error(self) -> None:
        self.raise_error()
        if self._closing:
            raise RuntimeError("this tracker is closed")

    @property
    def batch(self) -> object:
        """For the model's thread: trackers of one rig that runs its lanes as a batch are served together."""
        return self._tracker.batch

    @property
    def is_asked(self) -> bool:
        """For the model's thread: whether a caller waits for it."""
        return self._asking > 0 and bool(self._tasks) and not self._closing

    def next_work(self) -> Work | None:
        """For the model's thread: the queued tasks, in order, and then the newest frame unless a caller waits."""
        if self._closing or not (self._tasks or self._offered):
            return None
        offer = None
        if not self.is_asked:  # otherwise it is served out of turn: its frame waits
            offer, self._offered = self._offered, None
        tasks, self._tasks = self._tasks, deque()
        if offer is not None:
            self._named = [named for named in self._named if named not in offer.named]
        self._working = True
        self._changed.notify_all()

        def first() -> None:
            for task in tasks:
                task()
            if offer is not None:
                self._adopt(offer)

        def then(answer: Tracks | None) -> None:
            with self._changed:
                if answer is not None and offer is not None:
                    self._answers.append(answer)
                    self._model_ns.append(self._clock() - offer.at_ns)
                self._working = False
                self._changed.notify_all()

        return Work(first, None if offer is None else (self._tracker, offer.frame), then)

    def failed(self, error: BaseException) -> None:
        """For the model's thread: the next call of this tracker raises this error."""
        self._error, self._working = error, False

    def _adopt(self, offer: _Offer) -> None:
        """Hands the model's tracker what is new with a frame."""
        frame = offer.frame
        for named in offer.named:
            if named.looks is not None:
                self._tracker.adopt(named.ids, named.on.xy, None, named.looks)
                continue
            for ids, xy, frame_id in named.described(self._tracker.frame_ids):
                inside = xy if frame_id is not None else xy.clip(0, (frame.rgb.shape[1], frame.rgb.shape[0]))
                self._tracker.adopt(ids, inside.astype(np.float32), frame_id)
        wanted = self._inspected
        self._tracker.inspect(wanted if wanted is not None and wanted in self._tracker.ids else None)


def _blank(model: str) -> Tracks:
    """Tracks before the model's first answer."""
    none = np.empty(0, np.float32)
    ids, xy, visible = np.empty(0, np.int32), none.reshape(0, 2), none > 0
    return Tracks(-1, 0, 0, 0, 0, ids, xy, visible, none, none, model=model)
