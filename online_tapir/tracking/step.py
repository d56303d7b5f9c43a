# mypy: allow-untyped-calls
"""Runs one frame on a device: uploads the picture, stores its features in the window, computes every point's numbers.

Works on rows of the state; which point is in which row is the tracker's business.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from online_tapir.clock import Stopwatch, SystemClock
from online_tapir.model.coordinates import Size
from online_tapir.model.estimate import Estimate, packed
from online_tapir.model.memory import ran_out
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import FeaturePyramid, Tapir
from online_tapir.model.taps import Sight, Taps
from online_tapir.records import StageTimes
from online_tapir.tracking.feature_window import FeatureWindow, RememberedFrame
from online_tapir.tracking.static import StaticStages
from tapir_kernels import resize_rgb8

LANES = 2  # frames in flight: one is computed while the next is uploaded
WARM_UPS = 3  # runs before a capture, to compile kernels and choose convolution algorithms
# Limits on the output of a stage's widest layer on a CPU, in bytes. Larger ones fall out of the cache, and malloc maps
# them anew each time. The mixer reads its weights again for every batch, so it prefers larger batches.
MATCH_BYTES, REFINE_BYTES = 4 * 2**20, 16 * 2**20
BATCHES = 8  # to match points in, once matching ran out of memory
T = TypeVar("T")

logger = logging.getLogger(__name__)


class Reading(NamedTuple):
    """The results of a frame, and how long its stages took."""

    values: NDArray[np.float32]  # [N, 4] as `packed`
    times: StageTimes
    sight: Sight | None  # of the inspected row, on the host; None without one


class Step(Protocol):
    """Takes frames and tracks their points, in turn; `read` returns results in frame order, at most two behind."""

    def take(self, rgb: NDArray[np.uint8], frame: RememberedFrame) -> None:
        """Uploads and encodes rgb [H, W, 3]; from now on the window holds `frame`."""

    def track(self, rows: int, phase: int, inspected: int | None = None) -> None:
        """Matches and refines the first `rows` of the state on the frame taken last; `phase` is that frame's parity.

        Keeps the stages' intermediate results for row `inspected`.
        """

    def read(self) -> Reading:
        """The results of the oldest frame that was tracked and not read; waits for them."""


class EagerStep:
    """Runs only the requested rows, without CUDA graphs: on a CPU, or on a GPU with graphs=False."""

    def __init__(self, model: Tapir, state: TrackState, window: FeatureWindow, refinement: Sequence[Size]) -> None:
        self._model = model
        self._state = state
        self._window = window
        self._refinement = refinement
        self._clock = SystemClock()
        self._readings: deque[Reading] = deque()
        weight = next(model.parameters())
        self._device, self._dtype = weight.device, weight.dtype
        self._pyramid: FeaturePyramid

    def take(self, rgb: NDArray[np.uint8], frame: RememberedFrame) -> None:
        self._watch = Stopwatch(self._clock)
        pixels = torch.from_numpy(rgb if rgb.flags.writeable else rgb.copy()).to(self._device)
        images = [resize_rgb8(pixels, size, self._dtype) for size in self._model.sizes(self._refinement)]
        self._upload_ns = self._watch.lap()
        pyramid = self._model.encode_resized(images, self._refinement)
        self._encode_ns = self._watch.lap()
        self._pyramid = self._window.push(frame, pyramid)

    def track(self, rows: int, phase: int, inspected: int | None = None) -> None:
        state, taps = self._state.rows(0, rows), None if inspected is None else Taps(inspected)
        first = match_frugally(self._model, self._pyramid, state, taps)
        match_ns = self._watch.lap()
        best = refine_all(self._model, self._pyramid, first, state, phase, taps)
        refine_ns = self._watch.lap()
        values = packed(best).cpu().numpy()
        sight = None if taps is None else taps.sight.filled(taps.sight.flat().cpu())
        times = StageTimes(0, self._upload_ns, self._encode_ns, match_ns, refine_ns, self._watch.lap())
        self._readings.append(Reading(values, times, sight))

    def read(self) -> Reading:
        return self._readings.popleft()


class GraphedStep:
    """Runs every row as CUDA graphs; uploads and downloads have their own streams and overlap the computation.

    Each stage is a graph; the refinement is two, one per parity. They are launched one after another without host
    synchronisation, so together they form one queue. As separate graphs they let a point be initialised on a frame
    between its encoding and its matching, each stage be timed, and stateless stages be warmed up without touching the
    state. Only the resizing is launched outside the graphs, so the camera may change its frame size without another
    capture.

    A graph returns nothing but its result. While a row is inspected, matching and refinement are therefore launched
    kernel by kernel, on the memory that the graphs use; a graph always reads and writes its captured addresses, no
    matter what was launched in between.

    Rows are written, when a point is initialised or changes its row, on the caller's stream: the one that computes.
    """

    def __init__(self, stages: StaticStages, window: FeatureWindow, device: torch.device) -> None:
        self._stages = stages
        self._window = window
        self._device = device
        self._readings: deque[tuple[Lane, int, Taps | None]] = deque()
        with torch.cuda.device(device), algorithms_by_trial():
            pool = torch.cuda.graph_pool_handle()
            self._encode = capture(stages.encode, pool)
            self._match = capture(stages.match, pool)
            self._refine = [capture(partial(stages.refine, phase), pool) for phase in (0, 1)]
            self._uploading, self._downloading = torch.cuda.Stream(), torch.cuda.Stream()
            self._lanes = [Lane() for _ in range(LANES)]
            self._uploaded, self._resized, self._downloaded = (torch.cuda.Event() for _ in range(3))
        self._pinned = torch.empty(0, 0, 3, dtype=torch.uint8)  # on the host
        self._picture = self._pinned  # on the device

    def take(self, rgb: NDArray[np.uint8], frame: RememberedFrame) -> None:
        with torch.cuda.device(self._device):
            lane = self._lanes[frame.number % LANES]
            self._uploaded.synchronize()  # the last picture has left the pinned memory
            self._fit(rgb)
            np.copyto(self._pinned.numpy(), rgb)
            with torch.cuda.stream(self._uploading):
                self._uploading.wait_event(self._resized)  # the last picture has been resized
                lane.begun.record()
                self._picture.copy_(self._pinned, non_blocking=True)
                lane.uploaded.record()
                self._uploaded.record()
            computing = torch.cuda.current_stream()
            computing.wait_event(self._uploaded)
            computing.wait_event(self._downloaded)  # the last result has left the memory that the graphs share
            lane.started.record()
            self._stages.take(self._picture, self._window.slot(frame))
            self._resized.record()
            self._encode()
            lane.encoded.record()
            self._window.remember(frame)
            self._lane = lane

    def track(self, rows: int, phase: int, inspected: int | None = None) -> None:
        with torch.cuda.device(self._device):
            lane, taps = self._lane, None if inspected is None else self._match_and_see(inspected)
            if taps is None:
                self._match()
            lane.matched.record()
            values = self._refine[phase]() if taps is None else self._stages.refine(phase, taps)
            seen = None if taps is None else taps.sight.flat()
            lane.refined.record()
            with torch.cuda.stream(self._downloading):
                self._downloading.wait_event(lane.refined)
                lane.fetch(values, seen)
                lane.downloaded.record()
                self._downloaded.record()
            self._readings.append((lane, rows, taps))

    def read(self) -> Reading:
        lane, rows, taps = self._readings.popleft()
        lane.downloaded.synchronize()
        sight = None if taps is None else taps.sight.filled(lane.seen.clone())
        return Reading(lane.values[:rows].numpy().copy(), lane.times(), sight)

    def _match_and_see(self, row: int) -> Taps | None:
        """Matches kernel by kernel; does nothing and returns None if the graphs leave too little memory for that."""
        taps = Taps(row)
        try:
            with algorithms_by_trial():  # the same as were captured
                self._stages.match(taps)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            logger.warning("the CUDA graphs leave too little memory to inspect a point")
            return None
        return taps

    def _fit(self, rgb: NDArray[np.uint8]) -> None:
        """Reallocates the picture's buffers if its size has changed."""
        if rgb.shape != self._pinned.shape:
            self._pinned = pinned(rgb.shape, torch.uint8)
            self._picture = torch.empty(rgb.shape, dtype=torch.uint8, device=self._device)
            self._uploading.wait_stream(torch.cuda.current_stream())  # which may still use this memory's last contents


class Lane:
    """One frame's results on the host, and the events that time its stages."""

    def __init__(self) -> None:
        self.values = torch.empty(0)
        self.seen = torch.empty(0)  # of an inspected row
        self._leaving: tuple[Tensor, Tensor | None]
        self.begun, self.uploaded, self.started, self.encoded, self.matched, self.refined, self.downloaded = (
            torch.cuda.Event(enable_timing=True) for _ in range(7)
        )

    def fetch(self, values: Tensor, seen: Tensor | None) -> None:
        """Starts copying them to the host; keeps them alive until the next call, when the copies are done."""
        self._leaving = values, seen
        self.values = _fetched(values, self.values)
        if seen is not None:
            self.seen = _fetched(seen, self.seen)

    def times(self) -> StageTimes:
        return StageTimes(
            upload=_between_ns(self.begun, self.uploaded),
            encode=_between_ns(self.started, self.encoded),
            match=_between_ns(self.encoded, self.matched),
            refine=_between_ns(self.matched, self.refined),
            download=_between_ns(self.refined, self.downloaded),
        )


def capture(stage: Callable[[], T], pool: Any) -> Callable[[], T]:
    """Captures `stage` as a CUDA graph; returns a function that replays it and returns its result, at fixed addresses.

    Runs it a few times first; the capture itself does not run it.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            stage()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # thread_local: only this thread's forbidden calls break the capture; other threads (a viewer's) may use the GPU.
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        result = stage()

    def replay() -> T:
        graph.replay()
        return result

    return replay


@contextmanager
def algorithms_by_trial() -> Iterator[None]:
    """cuDNN benchmark mode: convolutions try every algorithm on their first run and keep the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def match_frugally(model: Tapir, pyramid: FeaturePyramid, state: TrackState, taps: Taps | None = None) -> Estimate:
    """The first guess for every row; if memory runs out, tries again in smaller batches.

    Matching needs the most memory and changes no state, so it can be repeated. The later stages cannot.
    """

    def match(rows: slice, state: TrackState, taps: Taps | None) -> Estimate:
        return model.match(pyramid, state, taps).estimate

    cells = math.prod(pyramid.match.coarse.shape[1:3])
    at_once = _rows_at_once(state, model.config.match_width * cells, MATCH_BYTES)
    try:
        return _in_batches(match, state, taps, at_once)
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        at_once = math.ceil(at_once / BATCHES)
        logger.warning(
            "out of memory while matching %d points; matching them %d at a time", len(state.match_queries), at_once
        )
    torch.cuda.empty_cache()
    return _in_batches(match, state, taps, at_once)


def refine_all(
    model: Tapir, pyramid: FeaturePyramid, first: Estimate, state: TrackState, phase: int, taps: Taps | None = None
) -> Estimate:
    """Refines `first`, the first guess, to the best estimate for every row; advances `state` by one frame."""

    def refine(rows: slice, state: TrackState, taps: Taps | None) -> Estimate:
        return model.refine(pyramid, first.rows(rows), state, phase, taps)[-1]

    widest = model.config.mixer_expansion * model.config.mixer_width
    return _in_batches(refine, state, taps, _rows_at_once(state, widest, REFINE_BYTES))


def _rows_at_once(state: TrackState, widest: int, most_bytes: int) -> int:
    """How many rows to give at once to a stage whose widest layer makes `widest` numbers per row."""
    queries = state.match_queries
    rows = len(queries)
    return rows if queries.device.type != "cpu" else min(rows, max(1, most_bytes // (widest * queries.element_size())))


def _in_batches(
    stage: Callable[[slice, TrackState, Taps | None], Estimate], state: TrackState, taps: Taps | None, at_once: int
) -> Estimate:
    """Runs a stage on every row, `at_once` at a time; the batch that has the row of the taps gets them."""
    rows = len(state.match_queries)
    if rows <= at_once:
        return stage(slice(0, rows), state, taps)
    parts = []
    for start in range(0, rows, at_once):
        stop = min(start + at_once, rows)
        taps_there = None if taps is None else taps.within(start, stop)
        parts.append(stage(slice(start, stop), state.rows(start, stop), taps_there))
    return Estimate.joined(parts)


def pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Pinned host memory, which a GPU reads and writes directly."""
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)


def _fetched(tensor: Tensor, buffer: Tensor) -> Tensor:
    """Starts copying `tensor` to the host's `buffer`, or to a new one if its shape differs; returns the buffer."""
    if buffer.shape != tensor.shape:
        buffer = pinned(tensor.shape, tensor.dtype)
    return buffer.copy_(tensor, non_blocking=True)


def _between_ns(first: torch.cuda.Event, last: torch.cuda.Event) -> int:
    milliseconds: float = first.elapsed_time(last)
    return round(milliseconds * 1e6)
