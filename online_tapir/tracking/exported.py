"""A tracker of an exported model, without torch: for machines that do not have gigabytes for it.

`online-tapir export` writes the graphs on another machine. They are run by ONNX Runtime or OpenVINO; the state of the
points is held in numpy.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from online_tapir.clock import Stopwatch, SystemClock
from online_tapir.engines.manifest import Exported
from online_tapir.engines.runtimes import Array
from online_tapir.errors import ConfigError, QueryError, StateError
from online_tapir.limits import DEFAULT_WINDOW
from online_tapir.points.placement import check_inside
from online_tapir.records import Frame, Label, StageTimes, Tracks
from online_tapir.tracking.answers import answers
from online_tapir.tracking.frames import accepted
from online_tapir.tracking.ledger import Labelled, Ledger, Query, labels_of, points_of
from online_tapir.tracking.looks import Looks
from online_tapir.tracking.window import RememberedFrame, Window

IN_FLIGHT = 2


class ExportedTracker(Labelled):
    """Tracks points through the frames given to `step`, like `Tracker`, with what `online-tapir export` wrote.

    There is room for as many points as the folder has slots, and the input has the folder's size. Points are added on
    the next frame or on one of the last `window`, named and removed at any time. Points cannot be searched for or
    inspected, and their state is not saved: that takes the whole model. `threads` are the runtime's; `visible_above`
    replaces the folder's threshold. Not thread-safe. Raises ConfigError for a folder that is no exported model, and
    where its runtime is not installed.
    """

    overlaps = False
    device = "cpu"

    def __init__(
        self,
        folder: "str | Path | Exported",
        window: int = DEFAULT_WINDOW,
        threads: int = 2,
        visible_above: float | None = None,
    ) -> None:
        if window < 1:
            raise ConfigError(f"window={window} frames is too short; give at least 1")
        exported = folder if isinstance(folder, Exported) else Exported.read(Path(folder))
        self._exported = exported if visible_above is None else replace(exported, visible_above=visible_above)
        self._encoder, self._query, self._step = (
            self._exported.open(stage, threads) for stage in ("encoder", "query", "step")
        )
        self._state = {name: np.zeros(shape, np.float32) for name, shape in self._exported.state.items()}
        self._points = Ledger(self._exported.points)
        self._window = Window(window)
        self._grids: deque[list[Array]] = deque(maxlen=window)  # of the frames of the window
        self._last: RememberedFrame | None = None
        self._done: deque[Tracks] = deque()  # submitted and not collected
        self._frames: deque[Frame] = deque()
        self._answer: Tracks | None = None
        self._clock = SystemClock()

    @property
    def name(self) -> str:
        """The model's."""
        return self._exported.model

    @property
    def max_points(self) -> int:
        return self._points.capacity

    @property
    def window(self) -> int:
        """How many frames' features are kept."""
        return self._window.capacity

    @property
    def ids(self) -> NDArray[np.int32]:
        """The points that live or wait for the next step, ascending."""
        return self._points.ids

    @property
    def frame_ids(self) -> list[int]:
        """The frames that a query may name, oldest first."""
        return self._window.ids

    @property
    def answer(self) -> Tracks | None:
        """The newest answer; None before the first."""
        return self._answer

    @property
    def inspected(self) -> int | None:
        return None

    def add(
        self, xy: ArrayLike, frame_id: int | None = None, *, names: Sequence[str] = (), group: str = ""
    ) -> NDArray[np.int32]:
        """As `Tracker.add`, with the same errors."""
        points = points_of(xy)
        where = self._last if frame_id is None else self._window.find(frame_id)
        if where is not None:
            check_inside(points, where.size[1], where.size[0])
        return self._points.add(points, frame_id, labels_of(names, group, len(points)))

    def adopt(
        self, ids: NDArray[np.int32], xy: NDArray[np.float32], frame_id: int | None = None, looks: Looks | None = None
    ) -> None:
        """Queues points under ids [P] that another ledger assigned; they must be above all earlier ids."""
        if looks is not None:
            raise QueryError("an exported model cannot search for points; use the model itself")
        self._points.adopt(ids, np.asarray(xy, np.float32), frame_id)

    @property
    def batch(self) -> object:
        """It runs alone."""
        return self

    @staticmethod
    def together(frames: "Sequence[tuple[ExportedTracker, NDArray[np.uint8] | Frame]]") -> list[Tracks]:
        """Tracks the next frame of each of some trackers, in turn."""
        return [tracker.step(rgb) for tracker, rgb in frames]

    @property
    def model(self) -> NoReturn:
        """Raises QueryError: the model itself is not here, and nothing that needs it."""
        raise QueryError("an exported model has no weights to compare; use the model itself")

    def search(self, looks: Looks, labels: Sequence[Label] = ()) -> NoReturn:
        """Raises QueryError: an exported model cannot search."""
        raise QueryError("an exported model cannot search for points; use the model itself")

    def looks(self, xy: ArrayLike, frame_id: int | None = None) -> NoReturn:
        """Raises QueryError: the looks of points belong to the model itself."""
        raise QueryError("an exported model does not tell what points look like; use the model itself")

    def saved_state(self) -> NoReturn:
        """Raises StateError: states belong to the model itself."""
        raise StateError("the points of an exported model are not saved; use the model itself")

    def load_state(self, path: str | Path) -> NoReturn:
        """Raises StateError: states belong to the model itself."""
        raise StateError("an exported model continues no saved points; use the model itself")

    def check_inspects(self) -> None:
        """Raises QueryError: the graphs do not tell what the model saw."""
        raise QueryError("points of an exported model cannot be inspected; use the model itself")

    def inspect(self, id: int | None) -> None:
        """Raises QueryError unless `id` is None."""
        if id is not None:
            self.check_inspects()

    def remove(self, ids: ArrayLike) -> None:
        """Removes points. Raises QueryError, and removes none, if one of them does not exist."""
        for source, target in self._points.remove(np.unique(np.asarray(ids, np.int32))):
            for name, tensor in self._state.items():
                _rows(name, tensor, slice(target, target + 1))[...] = _rows(name, tensor, slice(source, source + 1))

    def clear(self) -> None:
        """Removes every point; keeps the window of frames."""
        self._points.clear()

    def step(self, rgb: NDArray[np.uint8] | Frame) -> Tracks:
        """As `Tracker.step`: the points on the next frame, uint8 RGB [H, W, 3] or a Frame. The same errors."""
        if self.in_flight:
            raise RuntimeError(f"{self.in_flight} submitted frames were not collected; collect them, then step")
        self.submit(rgb)
        return self.collect()

    @property
    def in_flight(self) -> int:
        """Frames that were submitted and not collected."""
        return len(self._done)

    @property
    def oldest_in_flight(self) -> Frame:
        """The frame that `collect` will give the tracks of. RuntimeError where none was submitted."""
        if not self._frames:
            raise RuntimeError("no frame is in flight; submit one first")
        return self._frames[0]

    def submit(self, rgb: NDArray[np.uint8] | Frame) -> None:
        """The first half of `step`, with the same errors; the frame is tracked at once."""
        if self.in_flight == IN_FLIGHT:
            raise RuntimeError(f"{IN_FLIGHT} submitted frames are under way; collect one before you submit another")
        frame = accepted(rgb, self._last, self._clock)
        self._points.refuse_outside(frame.rgb.shape[1], frame.rgb.shape[0])
        self._done.append(self._tracked(frame))
        self._frames.append(frame)

    def collect(self) -> Tracks:
        """The second half of `step`. Raises RuntimeError if no frame was submitted."""
        if not self._done:
            raise RuntimeError("no frame was submitted whose tracks could be collected; submit one first")
        self._frames.popleft()
        self._answer = replace(self._done.popleft(), labels=self._points.labels)
        return self._answer

    def _tracked(self, frame: Frame) -> Tracks:
        age_ns = max(0, self._clock.monotonic_ns() - frame.captured_ns)
        watch = Stopwatch(self._clock)
        self._catch_up()
        late_ns = watch.lap()
        size = (frame.rgb.shape[0], frame.rgb.shape[1])
        image = self._resized(frame.rgb)
        upload_ns = watch.lap()
        grids = [np.array(level) for level in self._encoder([image])]  # a runtime may reuse its outputs
        number = 0 if self._last is None else self._last.number + 1
        self._last = RememberedFrame(frame.id, number, size)
        self._window.remember(self._last)
        self._grids.append(grids)
        encode_ns = watch.lap()
        self._begin(self._points.waiting(), self._last)
        match_ns = watch.lap()
        values = self._advance(grids, slice(0, self._points.live))
        rows = self._points.rows
        order = np.argsort(rows)
        return Tracks(
            frame_id=frame.id,
            model_frame_id=frame.id,
            captured_ns=frame.captured_ns,
            captured_unix_ns=frame.captured_unix_ns,
            width=size[1],
            height=size[0],
            ids=rows[order],
            **answers(values[order], self._exported.size, self._exported.visible_above, size)._asdict(),
            model=self.name,
            input="{1}x{0}".format(*self._exported.size),
            times=StageTimes(age_ns, upload_ns, encode_ns, match_ns + late_ns, watch.lap()),
        )

    def _resized(self, rgb: NDArray[np.uint8]) -> Array:
        """[1, 3, H, W] in [-1, 1]: bilinear, without antialiasing, as the model was trained."""
        height, width = self._exported.size
        image = rgb.astype(np.float32) * np.float32(2 / 255) - 1
        if image.shape[:2] != (height, width):
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
        return np.ascontiguousarray(image.transpose(2, 0, 1)[None])

    def _catch_up(self) -> None:
        """Starts the points on past frames and tracks them through the window up to its newest frame."""
        for frame_id, queries in self._points.late():
            frame = self._window.find(frame_id)
            start = self._points.live
            self._begin(queries, frame)
            for since in self._window.since(frame):
                self._advance(self._grids_of(since), slice(start, self._points.live))

    def _grids_of(self, frame: RememberedFrame) -> list[Array]:
        assert self._last is not None
        return self._grids[frame.number - self._last.number - 1]

    def _begin(self, queries: Sequence[Query], frame: RememberedFrame) -> None:
        """Starts points on a frame of the window, in the rows after the live ones."""
        if not queries:
            return
        xy = np.concatenate([query.xy for query in queries])
        height, width = self._exported.size
        scaled = xy * np.array([width / frame.size[1], height / frame.size[0]], np.float32)
        slots = np.full((self.max_points, 2), 8, np.float32)
        slots[: len(xy)] = scaled
        found = self._query([slots, *self._grids_of(frame)])
        values: dict[str, Any] = {
            **{
                f"query.{name}": part[..., : len(xy), :] for name, part in zip(self._exported.found, found, strict=True)
            },
            "its position": scaled,
            "0": 0.0,
            "NaN": np.nan,
        }
        rows = slice(self._points.live, self._points.live + len(xy))
        for name, tensor in self._state.items():
            _rows(name, tensor, rows)[...] = values[self._exported.begin[name]]
        self._points.seat(queries)

    def _advance(self, grids: Sequence[Array], rows: slice) -> NDArray[np.float32]:
        """Tracks these rows on one frame; returns their estimates [N, 4]."""
        estimates, *changed = self._step([*grids, *self._state.values()])
        for name, tensor in zip(self._exported.following, changed, strict=True):
            _rows(name, self._state[name], rows)[...] = _rows(name, tensor, rows)
        return np.array(estimates[rows])


def _rows(name: str, tensor: Array, rows: slice) -> Array:
    """A view of some points of one of the state's tensors."""
    return tensor[..., rows] if name == "recent.age" else tensor[..., rows, :]
