"""What several streams share: a model, the state of their points, the rings of their windows, the step that runs."""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

import tapir_kernels
from online_tapir.clock import Stopwatch, SystemClock
from online_tapir.engines.choose import choose_for, make
from online_tapir.engines.engine import Engine
from online_tapir.errors import ConfigError
from online_tapir.limits import DEFAULT_MAX_POINTS, DEFAULT_WINDOW
from online_tapir.model import coordinates
from online_tapir.model.config import LOWRES_STRIDE, Size
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
from online_tapir.records import Frame
from online_tapir.tracking import state_file
from online_tapir.tracking.engine_step import EngineStep
from online_tapir.tracking.feature_window import FeatureRings
from online_tapir.tracking.graphed import IN_FLIGHT, GraphedStep
from online_tapir.tracking.lane import Lane
from online_tapir.tracking.ledger import Query
from online_tapir.tracking.looks import Looks
from online_tapir.tracking.persistence import Persistence
from online_tapir.tracking.state_file import SavedState
from online_tapir.tracking.static import StaticStages
from online_tapir.tracking.step import BatchStep, EagerStep, Step, match_frugally, refine_all
from online_tapir.tracking.window import RememberedFrame
from tapir_kernels import KernelsUnavailableError

Resolution = Size | str | None  # (height, width), "frame", or None


class Lanes:
    """Runs one frame of each of some lanes at a time, as one batch on a GPU. See `Tracker` for the settings.

    With `batch` the lanes are one batch on any device; by default they are where that saves time: on a GPU.
    """

    def __init__(
        self,
        model: Tapir,
        lanes: int = 1,
        max_points: int = DEFAULT_MAX_POINTS,
        window: int = DEFAULT_WINDOW,
        resolution: Resolution = None,
        graphs: bool = True,
        require_kernels: bool = False,
        input_size: Size | None = None,
        engine: Engine | str | None = None,
        batch: bool | None = None,
    ) -> None:
        if lanes < 1:
            raise ConfigError(f"lanes={lanes} leaves no room for a stream; give at least 1")
        if max_points < 1:
            raise ConfigError(f"max_points={max_points} leaves no room for a point; give at least 1")
        if window < 1:
            raise ConfigError(f"window={window} frames is too short; give at least 1")
        self.model = model if input_size is None else model.at(input_size)
        self.max_points = max_points
        self.persistence = Persistence(model)
        first = next(model.parameters())
        self.device, self.dtype = first.device, first.dtype
        self._resolution = resolution
        self._graphs = graphs and self.device.type == "cuda"
        self.batches = self._graphs if batch is None else batch
        self._rings = FeatureRings(window, lanes)
        self.lanes = [Lane(index, max_points, self._rings) for index in range(lanes)]
        self.state: TrackState | None = None  # None before the first frame; row n of lane l is l * max_points + n
        self._step: Step | None = None
        self._refinement: list[Size] = []
        self._in_flight: deque[list[Lane]] = deque()  # the batches that were not read
        self._clock = SystemClock()
        self.engine = self._usable(engine)
        if require_kernels:
            try:
                tapir_kernels.require_kernels(self.device)
            except KernelsUnavailableError as error:
                raise ConfigError(str(error)) from error

    @property
    def overlaps(self) -> bool:
        """Whether submitting a second frame before collecting the first saves time."""
        return self._graphs

    @property
    def bytes_per_point(self) -> int:
        """Bytes of state per point; 0 before the first frame."""
        return self.state.bytes_per_point if self.state is not None else 0

    @torch.inference_mode()
    def submit(self, frames: Sequence[tuple[Lane, Frame]]) -> None:
        """Takes the next frame of some lanes, each accepted by its lane; returns while a GPU still computes.

        At most two batches are under way; results of an older one are fetched first. Raises ConfigError if the device's
        memory is too small.
        """
        ages = [self._clock.monotonic_ns() - frame.captured_ns for _, frame in frames]
        while len(self._in_flight) >= IN_FLIGHT:
            self._read()
        pictures = [lane.picture(frame) for lane, frame in frames]
        with memory_errors(self.ran_out):
            step = self._prepared(pictures[0].frame.size)
            watch = Stopwatch(self._clock)
            late = []
            for lane, _ in frames:
                self._catch_up(lane)
                late.append(watch.lap())
            step.take(pictures)
            for (lane, _), picture in zip(frames, pictures, strict=True):
                lane.took(picture.frame)
                self._begin(lane, lane.points.waiting(), picture.frame)
            step.track(
                [
                    lane.submit(frame, max(0, age_ns), late_ns)
                    for (lane, frame), age_ns, late_ns in zip(frames, ages, late, strict=True)
                ]
            )
        self._in_flight.append([lane for lane, _ in frames])

    def fetch(self, lane: Lane) -> None:
        """Waits for the results of the lane's oldest frame in flight."""
        while not lane.results:
            self._read()

    def move(self, lane: Lane, moves: Sequence[tuple[int, int]]) -> None:
        """Copies points of a lane from row to row, counted within the lane."""
        if lane.loaded is not None:
            state, base = lane.loaded[1], 0
        elif self.state is not None:
            state, base = self.state, lane.index * self.max_points
        for source, target in moves:
            state.move(base + source, base + target)

    @torch.inference_mode()
    def looks(self, lane: Lane, xy: NDArray[np.float32], frame: RememberedFrame) -> Looks:
        """What points xy [P, 2] (image pixels) of a frame in a lane's window look like."""
        with memory_errors(self.ran_out):
            places = torch.from_numpy(xy).to(self.device)
            match, refine, _ = self.model.describe(lane.window.pyramid(frame), places, frame.size)
            return Looks(match.float().cpu().numpy(), refine.float().cpu().numpy())

    @torch.inference_mode()
    def saved_state(self, lane: Lane) -> SavedState:
        """The points of a lane that has had a frame, copied to the host."""
        assert self.state is not None
        assert lane.last_frame is not None
        with memory_errors(self.ran_out):
            self._catch_up(lane)
            rows = self.state.rows(lane.rows.start, lane.rows.stop)
            last = lane.last_frame
            return self.persistence.pack(lane.points, rows, self._refinement, last.id, lane.frames, last.size)

    @torch.inference_mode()
    def load(self, lane: Lane, saved: SavedState, rows: TrackState) -> None:
        """Takes over the points that were saved, for a lane that has had no frame."""
        assert saved.origin.resolutions is not None
        lane.frames = saved.frames
        lane.loaded = saved.origin.resolutions, rows
        if self.state is not None:
            self._seat_loaded(lane)

    @property
    def resolutions(self) -> tuple[Size, ...] | None:
        """What points are refined at; None where the first frame decides."""
        if self._step is not None:
            return tuple(self._refinement)
        return None if self._resolution == "frame" else tuple(self._resolutions((0, 0)))

    def _read(self) -> None:
        assert self._step is not None
        for lane, reading in zip(self._in_flight.popleft(), self._step.read(), strict=True):
            lane.results.append(reading)

    def _usable(self, engine: Engine | str | None) -> Engine | None:
        if isinstance(engine, str):
            engine = make(choose_for(self.model, engine), torch.get_num_threads())
        if engine is not None and (self.device.type != "cpu" or self.dtype != torch.float32):
            raise ConfigError(f"engine {engine.name} runs a float32 model on a CPU, not {self.dtype} on {self.device}")
        if engine is not None and self._resolution is not None:
            raise ConfigError(f"engine {engine.name} refines at the input size only; leave out resolution or engine")
        if engine is not None and self.batches:
            raise ConfigError(f"engine {engine.name} runs lanes in turn; leave out batch or engine")
        return engine

    def _prepared(self, size: Size) -> Step:
        """The step that runs frames; made with the state at the first frame, which determines the resolutions."""
        if self._step is None:
            self._refinement = self._resolutions(size)
            for lane in self.lanes:
                if lane.loaded is not None:
                    state_file.check_resolutions(tuple(lane.loaded[0]), tuple(self._refinement))
            rows = self.max_points * len(self.lanes)
            self.state = TrackState.empty(self.model.config, len(self._refinement), rows, self.device, self.dtype)
            self._step = self._make_step(self.state)
            for lane in self.lanes:
                self._seat_loaded(lane)
        return self._step

    def _make_step(self, state: TrackState) -> Step:
        if self.batches:
            stages = StaticStages(self.model, state, self._rings, self._refinement)
            return GraphedStep(stages, self.device) if self._graphs else BatchStep(stages, self.device)
        if self.engine is not None:
            initial = self.model.config.initial_resolution
            return EngineStep(self.engine.compiled(self.model, initial), self.model, state, initial)
        return EagerStep(self.model, state, self._refinement)

    def _seat_loaded(self, lane: Lane) -> None:
        """Copies the rows of a file into the state."""
        assert self.state is not None
        if lane.loaded is not None:
            self.state.rows(lane.rows.start, lane.rows.stop).copy_(lane.loaded[1].rows(0, lane.points.live))
            lane.loaded = None

    def _resolutions(self, size: Size) -> list[Size]:
        initial = self.model.config.initial_resolution
        if self._resolution is None:
            return [initial]
        if isinstance(self._resolution, str):
            return coordinates.refinement_resolutions(initial, size, LOWRES_STRIDE)
        height, width = self._resolution
        if height % LOWRES_STRIDE or width % LOWRES_STRIDE or min(height, width) < 2 * LOWRES_STRIDE:
            raise ConfigError(f"resolution {height}x{width} is not a multiple of {LOWRES_STRIDE} of at least 16x16")
        return [(height, width)]

    def ran_out(self) -> str:
        """Frees the state, with every point and every frame in flight, and returns the out-of-memory message."""
        when = "making room" if self._step is None else "on a frame"
        points = self.max_points * len(self.lanes)
        held = points * self.bytes_per_point + self._rings.nbytes
        self._step = self.state = None
        self._in_flight.clear()  # their results are lost with the step
        for lane in self.lanes:
            lane.lose()
        config, sizes = self.model.config, self.model.sizes(self._refinement)
        meta = TrackState.empty(config, max(1, len(self._refinement)), 1, torch.device("meta"), self.dtype)
        need = Need(
            points=points,
            a_point=meta.bytes_per_point + WORK_PER_POINT,
            frames=self._rings.capacity * len(self.lanes),
            a_pixel=bytes_a_pixel(config, self.dtype),
            pixels=sum(map(math.prod, sizes)),
            fixed=math.prod(config.initial_resolution),
        )
        model = sum(tensor.nbytes for tensor in self.model.parameters())
        return out_of_memory(need, self.device, when, memory_of(self.device, model, held), sizes)

    def _catch_up(self, lane: Lane) -> None:
        """Starts the points on past frames and tracks them through the window up to its newest frame."""
        for frame_id, queries in lane.points.late():
            frame = lane.window.find(frame_id)
            start = lane.points.live
            self._begin(lane, queries, frame)
            self._carry(lane, lane.rows_from(start), lane.window.since(frame))

    def _begin(self, lane: Lane, queries: Sequence[Query], frame: RememberedFrame) -> None:
        """Starts the points of `queries`, which lie on `frame` of the window, in the rows after the live ones."""
        placed = [query for query in queries if query.looks is None]
        if placed:
            assert self.state is not None
            xy = torch.from_numpy(np.concatenate([query.xy for query in placed])).to(self.device)
            self.state.begin(lane.rows.stop, *self.model.describe(lane.window.pyramid(frame), xy, frame.size))
            lane.points.seat(placed)
        for query in queries:
            if query.looks is not None:
                self._seek(lane, query, query.looks)

    def _seek(self, lane: Lane, query: Query, looks: Looks) -> None:
        """Starts points that are somewhere, or nowhere yet: known by their looks, as if hidden for long."""
        assert self.state is not None
        match, refine = (torch.from_numpy(part).to(self.device, self.dtype) for part in (looks.match, looks.refine))
        height, width = self.model.config.initial_resolution
        middle = torch.tensor([[width / 2, height / 2]], device=self.device).expand(looks.points, 2)
        start = lane.rows.stop
        self.state.begin(start, match, refine, middle)
        self.state.rows(start, start + looks.points).forget_place()
        lane.points.seat([query])

    def _carry(self, lane: Lane, rows: slice, frames: Sequence[RememberedFrame]) -> None:
        """Tracks only these rows through frames of the window, without running the backbone again."""
        assert self.state is not None
        state = self.state.rows(rows.start, rows.stop)
        for frame in frames:
            pyramid = lane.window.pyramid(frame)
            refine_all(self.model, pyramid, match_frugally(self.model, pyramid, state), state, frame.number & 1)
