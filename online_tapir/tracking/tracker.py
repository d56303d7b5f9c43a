"""A tracker of many points on one stream: frames in, tracks out, points added and removed between frames.

It does not depend on cameras or sinks. Not thread-safe: call it from one thread.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

import tapir_kernels
from online_tapir.clock import Stopwatch, SystemClock
from online_tapir.engines.choose import choose, make
from online_tapir.engines.engine import Engine
from online_tapir.errors import ConfigError, FrameError, QueryError, StateError
from online_tapir.limits import DEFAULT_MAX_POINTS, DEFAULT_WINDOW
from online_tapir.model import coordinates
from online_tapir.model.config import LOWRES_STRIDE
from online_tapir.model.coordinates import Size
from online_tapir.model.memory import (
    WORK_PER_POINT,
    Need,
    bytes_a_pixel,
    memory_errors,
    memory_of,
    out_of_memory,
)
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import Tapir
from online_tapir.picture import MIN_SIDE, rgb_to_rgb8
from online_tapir.points.placement import check_inside
from online_tapir.records import Frame, Tracks
from online_tapir.tracking import state_file
from online_tapir.tracking.answers import answers, inspection
from online_tapir.tracking.engine_step import EngineStep
from online_tapir.tracking.feature_window import FeatureWindow, RememberedFrame
from online_tapir.tracking.ledger import Labelled, Ledger, Query, labels_of
from online_tapir.tracking.persistence import Persistence
from online_tapir.tracking.state_file import SavedState
from online_tapir.tracking.static import StaticStages
from online_tapir.tracking.step import LANES, EagerStep, GraphedStep, Step, match_frugally, refine_all
from tapir_kernels import KernelsUnavailableError

Resolution = Size | Literal["frame"] | None


@dataclass(frozen=True, slots=True, eq=False)
class Submitted:
    """A frame whose tracks have not been collected yet."""

    frame: Frame
    size: Size
    ids: NDArray[np.int32]  # [N] of the rows that were tracked on it
    inspected: int | None  # one of them
    age_ns: int  # when it was submitted
    late_ns: int  # time spent on queries on past frames


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
        if max_points < 1:
            raise ConfigError(f"max_points={max_points} leaves no room for a point; give at least 1")
        if window < 1:
            raise ConfigError(f"window={window} frames is too short; give at least 1")
        self.model = model if input_size is None else model.at(input_size)
        self.max_points = max_points
        self._resolution = resolution
        self._window = FeatureWindow(window)
        self._graphs = graphs
        self._step: Step | None = None
        self._submitted: deque[Submitted] = deque()
        self._state: TrackState | None = None  # before the first frame: only the rows that were loaded
        self._refinement: list[Size] = []
        self._inspected: int | None = None  # may have been removed since
        self._points = Ledger(max_points)
        self._persistence = Persistence(model)
        self._frames = 0
        self._last_frame: RememberedFrame | None = None
        self._clock = SystemClock()
        first = next(model.parameters())
        self._device, self._dtype = first.device, first.dtype
        if isinstance(engine, str):
            choice = choose(engine, model.config.name, str(self._device), str(self._dtype).removeprefix("torch."))
            engine = make(choice, torch.get_num_threads())
        self._engine = engine
        if engine is not None and (self._device.type != "cpu" or self._dtype != torch.float32):
            raise ConfigError(
                f"engine {engine.name} runs a float32 model on a CPU, not {self._dtype} on {self._device}"
            )
        if engine is not None and self._resolution is not None:
            raise ConfigError(f"engine {engine.name} refines at the input size only; leave out resolution or engine")
        if require_kernels:
            try:
                tapir_kernels.require_kernels(self._device)
            except KernelsUnavailableError as error:
                raise ConfigError(str(error)) from error

    @property
    def ids(self) -> NDArray[np.int32]:
        """The points that live or wait for the next step, ascending."""
        return self._points.ids

    @property
    def frame_ids(self) -> list[int]:
        """The frames that a query may name, oldest first."""
        return self._window.ids

    @property
    def window(self) -> int:
        """How many frames' features are kept."""
        return self._window.capacity

    @property
    def device(self) -> torch.device:
        """Where the model's weights are, and the points' state."""
        return self._device

    @property
    def engine(self) -> Engine | None:
        """What runs the model in place of torch."""
        return self._engine

    @property
    def overlaps(self) -> bool:
        """Whether submitting a second frame before collecting the first saves time."""
        return self._graphs and self._device.type == "cuda"

    @property
    def bytes_per_point(self) -> int:
        """Bytes of state per point; 0 before the first frame."""
        return self._state.bytes_per_point if self._state is not None else 0

    def add(
        self, xy: ArrayLike, frame_id: int | None = None, *, names: Sequence[str] = (), group: str = ""
    ) -> NDArray[np.int32]:
        """Queues points xy [P, 2] (image pixels of frame `frame_id`, or of the next frame); returns their ids [P].

        The next `step` includes them; points on a past frame are first tracked through the window. `names` are one for
        each, "" for none, and a `group` is shared by them all. Raises QueryError if a point is outside the frame, there
        is no room, the frame has left the window, or a name is taken.
        """
        points = np.asarray(xy, np.float32)
        if points.ndim != 2 or points.shape[1] != 2:
            raise QueryError(f"points come as [P, 2], x before y; these are {list(points.shape)}")
        where = self._last_frame if frame_id is None else self._window.find(frame_id)
        if where is not None:
            check_inside(points, where.size[1], where.size[0])
        return self._points.add(points, frame_id, labels_of(names, group, len(points)))

    def adopt(self, ids: NDArray[np.int32], xy: NDArray[np.float32], frame_id: int | None = None) -> None:
        """Queues points under ids [P] that another ledger assigned; they must be above all earlier ids."""
        self._points.adopt(ids, np.asarray(xy, np.float32), frame_id)

    @torch.inference_mode()
    def remove(self, ids: ArrayLike) -> None:
        """Removes points. Raises QueryError, and removes none, if one of them does not exist."""
        wanted = np.unique(np.asarray(ids, np.int32))
        for source, target in self._points.remove(wanted):
            assert self._state is not None
            self._state.move(source, target)

    @property
    def inspected(self) -> int | None:
        """The inspected point, which `tracks.inspection` describes; None if there is none."""
        there = self._inspected is not None and self._inspected in self.ids
        return self._inspected if there else None

    def inspect(self, id: int | None) -> None:
        """From the next frame on, `tracks.inspection` is what the model saw of this point; None inspects no point.

        The tracks stay bit-identical. Raises QueryError if there is no such point.
        """
        if id is not None:
            self._points.check(np.array([id], np.int64))
        self._inspected = id

    def clear(self) -> None:
        """Removes every point; keeps the window of frames."""
        self._points.clear()

    def step(self, rgb: NDArray[np.uint8] | Frame) -> Tracks:
        """Tracks every point on the next frame, uint8 RGB [H, W, 3] or a Frame; any size, any aspect.

        Raises FrameError if it is not such a picture or out of order, QueryError if a point waiting for this frame is
        outside it (all points of that `add` are dropped, the others wait), ConfigError if the device's memory is too
        small, RuntimeError if submitted frames have not been collected.
        """
        if self._submitted:
            raise RuntimeError(f"{len(self._submitted)} submitted frames were not collected; collect them, then step")
        self.submit(rgb)
        return self.collect()

    @property
    def in_flight(self) -> int:
        """Frames that were submitted and not collected, at most two."""
        return len(self._submitted)

    @property
    def oldest_in_flight(self) -> Frame:
        """The frame that `collect` will give the tracks of. RuntimeError where none was submitted."""
        if not self._submitted:
            raise RuntimeError("no frame is in flight; submit one first")
        return self._submitted[0].frame

    @torch.inference_mode()
    def submit(self, rgb: NDArray[np.uint8] | Frame) -> None:
        """The first half of `step`, with the same errors. On a GPU, it returns while the frame is still being computed.

        A second frame may be submitted before the first is collected; it is uploaded while the first is computed.
        """
        if len(self._submitted) == LANES:
            raise RuntimeError(f"{LANES} submitted frames are under way; collect one before you submit another")
        frame = self._frame_of(rgb)
        current = RememberedFrame(frame.id, self._frames, (frame.rgb.shape[0], frame.rgb.shape[1]))
        age_ns = self._clock.monotonic_ns() - frame.captured_ns
        self._refuse_outside(current)
        with memory_errors(self._ran_out):
            step = self._prepared(current)
            watch = Stopwatch(self._clock)
            self._answer_late_queries()
            late_ns = watch.lap()
            step.take(frame.rgb, current)
            self._frames, self._last_frame = current.number + 1, current
            self._answer_queries(current)
            inspected = self.inspected
            row = None if inspected is None else self._points.row_of(inspected)
            step.track(self._points.live, current.number & 1, row)
        rows = self._points.rows.copy()
        self._submitted.append(Submitted(frame, current.size, rows, inspected, max(0, age_ns), late_ns))

    def collect(self) -> Tracks:
        """The second half of `step`: the tracks of the oldest frame that was submitted and not collected.

        They are of the points that existed when it was submitted. Raises RuntimeError if there is no such frame.
        """
        if not self._submitted:
            raise RuntimeError("no frame was submitted whose tracks could be collected; submit one first")
        assert self._step is not None
        asked = self._submitted.popleft()
        values, times, sight = self._step.read()
        order = np.argsort(asked.ids)
        config = self.model.config
        seen = None
        if sight is not None and asked.inspected is not None:
            seen = inspection(asked.inspected, sight, config, asked.size)
        return Tracks(
            frame_id=asked.frame.id,
            model_frame_id=asked.frame.id,
            captured_ns=asked.frame.captured_ns,
            captured_unix_ns=asked.frame.captured_unix_ns,
            width=asked.size[1],
            height=asked.size[0],
            ids=asked.ids[order],
            **answers(values[order], config, asked.size)._asdict(),
            model=config.name,
            input="{1}x{0}".format(*config.initial_resolution),
            times=replace(times, capture=asked.age_ns, match=times.match + asked.late_ns),
            inspection=seen,
            labels=self._points.labels,
        )

    def save_state(self, path: str | Path) -> SavedState:
        """Writes the state of the points to a .safetensors file, for `load_state` of another tracker.

        Frames are not saved. The file is replaced atomically. Raises StateError if it cannot be written, and before
        the first frame.
        """
        saved = self.saved_state()
        state_file.write(Path(path), saved)
        return saved

    @torch.inference_mode()
    def saved_state(self) -> SavedState:
        """What `save_state` writes, copied to the host, so that another thread may write it (`state_file.write`).

        Points on past frames are first tracked up to the newest. Points whose state overflowed are left out.
        """
        if self._state is None or self._last_frame is None:
            raise StateError("no frame has been tracked yet, so there is no state to save; save it after one")
        with memory_errors(self._ran_out):
            self._answer_late_queries()
            saved = self._persistence.pack(
                self._points, self._state, self._refinement, self._last_frame.id, self._frames
            )
            return replace(saved, labels=self._points.labels)

    def load_state(self, path: str | Path) -> SavedState:
        """Restores the points that `save_state` wrote, with their ids; returns what was read.

        Call it on a new tracker of the same model, before anything else. The next frame, whatever its number, counts as
        the one right after the last; earlier frames can no longer be named. New ids begin where the old ones ended.
        Raises StateError if the file is missing, damaged or does not fit this tracker and its model, ConfigError if the
        device's memory is too small.
        """
        if self._frames or self._points.next_id:
            raise StateError(
                "this tracker has had frames or points, and a state is loaded into a new one; make another"
            )
        fixed = None if self._resolution == "frame" else tuple(self._resolutions((0, 0)))  # whatever the frame's size
        with memory_errors(self._ran_out):
            saved, self._state = self._persistence.read(Path(path), self._points, fixed, self._device)
        assert saved.origin.resolutions is not None
        self._refinement, self._frames = list(saved.origin.resolutions), saved.frames
        return saved

    def _frame_of(self, rgb: NDArray[np.uint8] | Frame) -> Frame:
        """The next frame; a bare array is stamped now and numbered after the last."""
        last = self._last_frame.id if self._last_frame is not None else -1
        if not isinstance(rgb, Frame):
            return Frame(last + 1, self._clock.monotonic_ns(), self._clock.unix_ns(), rgb_to_rgb8(rgb))
        if rgb.id <= last:
            raise FrameError(f"frame {rgb.id} came after frame {last}; give frames in the order of their ids")
        return Frame(rgb.id, rgb.captured_ns, rgb.captured_unix_ns, rgb_to_rgb8(rgb.rgb))

    def _prepared(self, frame: RememberedFrame) -> Step:
        """The step that runs a frame; made with the state at the first frame, which determines the resolutions."""
        if self._step is None:
            refinement, loaded = self._resolutions(frame.size), self._state
            if loaded is not None:
                state_file.check_resolutions(tuple(self._refinement), tuple(refinement))
            self._refinement = refinement
            self._state = TrackState.empty(
                self.model.config, len(self._refinement), self.max_points, self._device, self._dtype
            )
            self._step = self._make_step(self._state)
            if loaded is not None:  # only now: on a GPU, making the step ran it on these rows
                count = self._points.live
                self._state.rows(0, count).copy_(loaded.rows(0, count))
        return self._step

    def _make_step(self, state: TrackState) -> Step:
        if self._graphs and self._device.type == "cuda":
            stages = StaticStages(self.model, state, self._window, self._refinement)
            return GraphedStep(stages, self._window, self._device)
        initial = self.model.config.initial_resolution
        if self._engine is not None:
            compiled = self._engine.compiled(self.model, initial)
            return EngineStep(compiled, self.model, state, self._window, initial)
        return EagerStep(self.model, state, self._window, self._refinement)

    def _resolutions(self, size: Size) -> list[Size]:
        initial = self.model.config.initial_resolution
        if self._resolution is None:
            return [initial]
        if self._resolution == "frame":
            return coordinates.refinement_resolutions(initial, size, LOWRES_STRIDE)
        height, width = self._resolution
        if height % LOWRES_STRIDE or width % LOWRES_STRIDE or min(height, width) < 2 * LOWRES_STRIDE:
            raise ConfigError(f"resolution {height}x{width} is not a multiple of {LOWRES_STRIDE} of at least 16x16")
        return [(height, width)]

    def _ran_out(self) -> str:
        """Frees the state, with every point and every frame in flight, and returns the out-of-memory message."""
        when = "making room" if self._step is None else "on a frame"
        held = (self.max_points * self.bytes_per_point) + self._window.nbytes
        self._step = self._state = None
        self._submitted.clear()  # their results are lost with the step
        self.clear()
        config, sizes = self.model.config, self.model.sizes(self._refinement)
        meta = TrackState.empty(config, max(1, len(self._refinement)), 1, torch.device("meta"), self._dtype)
        need = Need(
            points=self.max_points,
            a_point=meta.bytes_per_point + WORK_PER_POINT,
            frames=self._window.capacity,
            a_pixel=bytes_a_pixel(config, self._dtype),
            pixels=sum(map(math.prod, sizes)),
            fixed=math.prod(config.initial_resolution),
        )
        model = sum(tensor.nbytes for tensor in self.model.parameters())
        return out_of_memory(need, self._device, when, memory_of(self._device, model, held), sizes)

    def _refuse_outside(self, frame: RememberedFrame) -> None:
        """Raises QueryError if a query for the next frame lies outside it, and drops that query."""
        for query in [query for query in self._points.queries if query.frame_id is None]:
            try:
                check_inside(query.xy, frame.size[1], frame.size[0])
            except QueryError:
                self._points.queries.remove(query)
                raise

    def _answer_late_queries(self) -> None:
        """Starts the points on past frames and tracks them through the window up to its newest frame."""
        for frame_id, queries in self._points.late():
            frame = self._window.find(frame_id)
            start = self._points.live
            self._begin(queries, frame)
            self._carry(start, self._points.live, self._window.since(frame))

    def _answer_queries(self, frame: RememberedFrame) -> None:
        self._begin(self._points.waiting(), frame)

    def _begin(self, queries: Sequence[Query], frame: RememberedFrame) -> None:
        """Starts the points of `queries`, which lie on `frame` of the window, in the rows after the live ones."""
        if not queries:
            return
        assert self._state is not None
        xy = torch.from_numpy(np.concatenate([query.xy for query in queries])).to(self._device)
        self._state.begin(self._points.live, *self.model.describe(self._window.pyramid(frame), xy, frame.size))
        self._points.seat(queries)

    def _carry(self, start: int, stop: int, frames: Sequence[RememberedFrame]) -> None:
        """Tracks only rows start..stop through frames of the window, without running the backbone again."""
        assert self._state is not None
        state = self._state.rows(start, stop)
        for frame in frames:
            pyramid = self._window.pyramid(frame)
            refine_all(self.model, pyramid, match_frugally(self.model, pyramid, state), state, frame.number & 1)


def warm_up(model: Tapir, points: int, engine: Engine | None = None) -> None:
    """Tracks `points` points on two blank frames, so that one-time work (compiling, caching) is done."""
    tracker = Tracker(model, max_points=points, window=1, engine=engine)
    tracker.add(np.full((points, 2), MIN_SIDE / 2))
    for _ in range(2):
        tracker.step(np.zeros((MIN_SIDE, MIN_SIDE, 3), np.uint8))
