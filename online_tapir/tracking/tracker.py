"""A tracker of many points on one stream: frames in, tracks out, points added and removed between frames.

It does not depend on cameras or sinks. Not thread-safe: call it from one thread.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from online_tapir.engines.engine import Engine
from online_tapir.errors import QueryError, StateError
from online_tapir.limits import DEFAULT_MAX_POINTS, DEFAULT_WINDOW
from online_tapir.model.config import Size
from online_tapir.model.memory import memory_errors
from online_tapir.model.tapir import Tapir
from online_tapir.picture import MIN_SIDE
from online_tapir.points.placement import check_inside
from online_tapir.records import Frame, Label, Tracks
from online_tapir.tracking import state_file
from online_tapir.tracking.graphed import IN_FLIGHT
from online_tapir.tracking.lane import Lane
from online_tapir.tracking.lanes import Lanes
from online_tapir.tracking.ledger import Labelled, labels_of, points_of
from online_tapir.tracking.looks import Looks
from online_tapir.tracking.state_file import SavedState

Resolution = Size | Literal["frame"] | None


class Tracker(Labelled):
    """Tracks points through the frames given to `step`.

    State for `max_points` points is allocated once, at the first frame; adding and removing points allocates nothing.
    The features of the last `window` frames are kept, so that points can be added on past frames. `resolution` is the
    resolution to refine points at: None, only the model's initial one; (height, width), only that one; "frame", the
    paper's geometric steps from the initial one to the first frame's own size.

    On a GPU the step is replayed as CUDA graphs over all `max_points` rows; with `graphs=False` each kernel is launched
    separately, for the live rows only. On a CPU this makes no difference. `require_kernels` raises ConfigError for a
    device that would run the ops' reference path.

    `input_size` (height, width; multiples of 8) is what frames are resized to and points are matched at, in place of
    the model's own: more pixels are more accurate and take more time. On a CPU `engine` (an Engine that trackers may
    share, or a name as for `engines.choose.choose`) runs the encoder and the refinement in place of torch, at one
    resolution only.
    """

    def __init__(
        self,
        model: Tapir,
        max_points: int = DEFAULT_MAX_POINTS,
        window: int = DEFAULT_WINDOW,
        resolution: Resolution = None,
        graphs: bool = True,
        require_kernels: bool = False,
        input_size: Size | None = None,
        engine: Engine | str | None = None,
    ) -> None:
        self._on(Lanes(model, 1, max_points, window, resolution, graphs, require_kernels, input_size, engine))

    @classmethod
    def of(cls, lanes: Lanes, index: int) -> Self:
        """A tracker on one of several lanes that share a model and its settings (see `Rig`)."""
        tracker = cls.__new__(cls)
        tracker._on(lanes, index)
        return tracker

    def _on(self, lanes: Lanes, index: int = 0) -> None:
        self.lanes = lanes
        self._lane: Lane = lanes.lanes[index]
        self._answer: Tracks | None = None
        self._points = self._lane.points

    @property
    def model(self) -> Tapir:
        return self.lanes.model

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.config.name

    @property
    def batch(self) -> object:
        """Trackers with the same one are best stepped `together`."""
        return self.lanes if self.lanes.batches else self

    @property
    def max_points(self) -> int:
        return self.lanes.max_points

    @property
    def ids(self) -> NDArray[np.int32]:
        """The points that live or wait for the next step, ascending."""
        return self._points.ids

    @property
    def frame_ids(self) -> list[int]:
        """The frames that a query may name, oldest first."""
        return self._lane.window.ids

    @property
    def window(self) -> int:
        """How many frames' features are kept."""
        return self._lane.window.capacity

    @property
    def device(self) -> torch.device:
        """Where the model's weights are, and the points' state."""
        return self.lanes.device

    @property
    def engine(self) -> Engine | None:
        """What runs the model in place of torch."""
        return self.lanes.engine

    @property
    def overlaps(self) -> bool:
        """Whether submitting a second frame before collecting the first saves time."""
        return self.lanes.overlaps

    @property
    def answer(self) -> Tracks | None:
        """The model's newest answer; None before the first."""
        return self._answer

    @property
    def bytes_per_point(self) -> int:
        """Bytes of state per point; 0 before the first frame."""
        return self.lanes.bytes_per_point

    def add(
        self, xy: ArrayLike, frame_id: int | None = None, *, names: Sequence[str] = (), group: str = ""
    ) -> NDArray[np.int32]:
        """Queues points xy [P, 2] (image pixels of frame `frame_id`, or of the next frame); returns their ids [P].

        The next `step` includes them; points on a past frame are first tracked through the window. `names` are one for
        each, "" for none, and a `group` is shared by them all. Raises QueryError if a point is outside the frame, there
        is no room, the frame has left the window, or a name is taken.
        """
        points = points_of(xy)
        where = self._lane.last_frame if frame_id is None else self._lane.window.find(frame_id)
        if where is not None:
            check_inside(points, where.size[1], where.size[0])
        return self._points.add(points, frame_id, labels_of(names, group, len(points)))

    def search(self, looks: Looks, labels: Sequence[Label] = ()) -> NDArray[np.int32]:
        """Queues points that may be anywhere, known by what they look like (see `looks`); returns their ids [P].

        From the next frame on each is hidden until the model finds it. Raises QueryError if the looks are another
        model's, there is no room, or a name is taken.
        """
        looks.check(self.model.config)
        return self._points.add(np.zeros((looks.points, 2), np.float32), None, labels, looks)

    def looks(self, xy: ArrayLike, frame_id: int | None = None) -> Looks:
        """What points xy [P, 2] (image pixels) look like on a frame of the window, by default the newest.

        Raises QueryError before the first frame, for a frame that has left the window, and for a point outside it.
        """
        newest = self._lane.last_frame
        if newest is None:
            raise QueryError("no frame has been tracked yet, so nothing is known of what points look like")
        frame = newest if frame_id is None else self._lane.window.find(frame_id)
        places = np.asarray(xy, np.float32).reshape(-1, 2)
        check_inside(places, frame.size[1], frame.size[0])
        return self.lanes.looks(self._lane, places, frame)

    def adopt(
        self,
        ids: NDArray[np.int32],
        xy: NDArray[np.float32],
        frame_id: int | None = None,
        looks: Looks | None = None,
    ) -> None:
        """Queues points under ids [P] that another ledger assigned; they must be above all earlier ids."""
        self._points.adopt(ids, np.asarray(xy, np.float32), frame_id, looks)

    @torch.inference_mode()
    def remove(self, ids: ArrayLike) -> None:
        """Removes points. Raises QueryError, and removes none, if one of them does not exist."""
        wanted = np.unique(np.asarray(ids, np.int32))
        self.lanes.move(self._lane, self._points.remove(wanted))

    @property
    def inspected(self) -> int | None:
        """The inspected point, which `tracks.inspection` describes; None if there is none."""
        return self._lane.inspected

    def check_inspects(self) -> None:
        """Raises QueryError where no point of this kind of tracker can be inspected: of this one, any can."""

    def inspect(self, id: int | None) -> None:
        """From the next frame on, `tracks.inspection` is what the model saw of this point; None inspects no point.

        The tracks stay bit-identical. Raises QueryError if there is no such point.
        """
        self._lane.inspect(id)

    def clear(self) -> None:
        """Removes every point; keeps the window of frames."""
        self._points.clear()

    def reset(self) -> None:
        """Forgets every point and every frame: what comes next is a new stream, whose ids and frames begin at 0."""
        while self.in_flight:
            self.collect()
        self._lane.reset()
        self._answer = None

    def step(self, rgb: NDArray[np.uint8] | Frame) -> Tracks:
        """Tracks every point on the next frame, uint8 RGB [H, W, 3] or a Frame; any size, any aspect.

        Raises FrameError if it is not such a picture or out of order, QueryError if a point waiting for this frame is
        outside it (all points of that `add` are dropped, the others wait), ConfigError if the device's memory is too
        small, RuntimeError if submitted frames have not been collected.
        """
        (tracks,) = self.together([(self, rgb)])
        return tracks

    @staticmethod
    def together(frames: "Sequence[tuple[Tracker, NDArray[np.uint8] | Frame]]") -> list[Tracks]:
        """Tracks the next frame of each of some trackers on lanes that share a model, as one batch on a GPU.

        Raises what `step` raises; if a frame is refused, none has been tracked.
        """
        for tracker, _ in frames:
            if tracker.in_flight:
                raise RuntimeError(f"{tracker.in_flight} submitted frames were not collected; collect them, then step")
        lanes = frames[0][0].lanes
        lanes.submit([(tracker._lane, tracker._lane.accept(rgb)) for tracker, rgb in frames])
        return [tracker.collect() for tracker, _ in frames]

    @property
    def in_flight(self) -> int:
        """Frames that were submitted and not collected, at most two."""
        return len(self._lane.submitted)

    @property
    def oldest_in_flight(self) -> Frame:
        """The frame that `collect` will give the tracks of. RuntimeError where none was submitted."""
        if not self._lane.submitted:
            raise RuntimeError("no frame is in flight; submit one first")
        return self._lane.submitted[0].frame

    def submit(self, rgb: NDArray[np.uint8] | Frame) -> None:
        """The first half of `step`, with the same errors. On a GPU, it returns while the frame is still being computed.

        A second frame may be submitted before the first is collected; it is uploaded while the first is computed.
        """
        if self.in_flight == IN_FLIGHT:
            raise RuntimeError(f"{IN_FLIGHT} submitted frames are under way; collect one before you submit another")
        self.lanes.submit([(self._lane, self._lane.accept(rgb))])

    def collect(self) -> Tracks:
        """The second half of `step`: the tracks of the oldest frame that was submitted and not collected.

        They are of the points that existed when it was submitted. Raises RuntimeError if there is no such frame.
        """
        if not self.in_flight:
            raise RuntimeError("no frame was submitted whose tracks could be collected; submit one first")
        self.lanes.fetch(self._lane)
        self._answer = self._lane.collect(self.model.config)
        return self._answer

    def save_state(self, path: str | Path) -> SavedState:
        """Writes the state of the points to a .safetensors file, for `load_state` of another tracker.

        Frames are not saved. The file is replaced atomically. Raises StateError if it cannot be written, and before
        the first frame.
        """
        saved = self.saved_state()
        state_file.write(Path(path), saved)
        return saved

    def saved_state(self) -> SavedState:
        """What `save_state` writes, copied to the host, so that another thread may write it (`state_file.write`).

        Points on past frames are first tracked up to the newest. Points whose state overflowed are left out.
        """
        if self.lanes.state is None or self._lane.last_frame is None:
            raise StateError("no frame has been tracked yet, so there is no state to save; save it after one")
        return replace(self.lanes.saved_state(self._lane), labels=self._points.labels)

    def load_state(self, path: str | Path) -> SavedState:
        """Restores the points that `save_state` wrote, with their ids; returns what was read.

        Call it on a new tracker of the same model, before anything else. The next frame, whatever its number, counts as
        the one right after the last; earlier frames can no longer be named. New ids begin where the old ones ended.
        Raises StateError if the file is missing, damaged or does not fit this tracker and its model, ConfigError if the
        device's memory is too small.
        """
        if self._lane.frames or self._points.next_id:
            raise StateError(
                "this tracker has had frames or points, and a state is loaded into a new one; make another"
            )
        with memory_errors(self.lanes.ran_out):
            saved, rows = self.lanes.persistence.read(
                Path(path), self._points, self.lanes.resolutions, self.lanes.device
            )
            self.lanes.load(self._lane, saved, rows)
        return saved


def warm_up(model: Tapir, points: int, engine: Engine | None = None) -> None:
    """Tracks `points` points on two blank frames, so that one-time work (compiling, caching) is done."""
    tracker = Tracker(model, max_points=points, window=1, engine=engine)
    tracker.add(np.full((points, 2), MIN_SIDE / 2))
    for _ in range(2):
        tracker.step(np.zeros((MIN_SIDE, MIN_SIDE, 3), np.uint8))
