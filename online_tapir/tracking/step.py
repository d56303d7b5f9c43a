# mypy: allow-untyped-calls
"""One frame on its way through a device: the picture in, its features into the window, every point's numbers out.

Knows rows, not points: whose they are, and what is asked, is the tracker's business.
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
from online_tapir.model.estimate import Estimate
from online_tapir.model.memory import ran_out
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import FeaturePyramid, Tapir
from online_tapir.model.taps import Sight, Taps
from online_tapir.records import StageTimes
from online_tapir.tracking.feature_window import FeatureWindow, RememberedFrame
from online_tapir.tracking.static import StaticStages, packed
from tapir_kernels import resize_rgb8

LANES = 2  # frames that may be under way: one is computed while the next is brought
WARM_UPS = 3  # runs before a capture, in which kernels are compiled and convolutions choose their algorithms
# What the widest layer of a stage may make on a CPU, in bytes; more of it falls out of the cache, and is mapped anew by
# malloc each time. The mixer has weights that are read again for every batch, and so prefers larger ones.
MATCH_BYTES, REFINE_BYTES = 4 * 2**20, 16 * 2**20
BATCHES = 8  # that points are matched in, where they are too many for what is left of the memory
T = TypeVar("T")

logger = logging.getLogger(__name__)


class Reading(NamedTuple):
    """What was found on a frame, and how long its stages took."""

    values: NDArray[np.float32]  # [N, 4] as `packed`
    times: StageTimes
    sight: Sight | None  # of the row that was inspected, on the host


class Step(Protocol):
    """Takes frames and tracks their points, in turn; `read` answers in the order of the frames, at most two behind."""

    def take(self, rgb: NDArray[np.uint8], frame: RememberedFrame) -> None:
        """Uploads and encodes rgb [H, W, 3]; from now on the window holds `frame`."""

    def track(self, rows: int, phase: int, inspected: int | None = None) -> None:
        """Matches and refines the first rows of the state on the frame taken last; `phase` is that frame's parity.

        Of the row `inspected` all is kept that the stages saw.
        """

    def read(self) -> Reading:
        """Of the oldest frame that was tracked and not read; waits until it is there."""


class EagerStep:
    """The rows that are asked for, each stage as it comes: on a CPU, and on a GPU that is to do without graphs."""

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
    """Every row, as CUDA graphs; pictures and answers travel on streams of their own, beside the computing.

    A stage is a graph, the refinement two, one a parity. They are launched one after another without a word from the
    device, so together they are one queue; apart, points can be begun on a frame between its encoding and its matching,
    each stage can be timed, and what remembers nothing can be warmed up without disturbing what does. Only the resizing
    is launched by itself, so a camera may change its size without another capture.

    A graph gives nothing but its result. While a row is inspected, matching and refining are therefore launched kernel
    by kernel, on the memory that the graphs use, too; graphs read and write where they were captured to, whatever has
    been launched in between.

    Where a row is written, when a point is begun or moves, is the stream of the caller: the one that computes.
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
                self._uploading.wait_event(self._resized)  # the last picture has been looked at
                lane.begun.record()
                self._picture.copy_(self._pinned, non_blocking=True)
                lane.uploaded.record()
                self._uploaded.record()
            computing = torch.cuda.current_stream()
            computing.wait_event(self._uploaded)
            computing.wait_event(self._downloaded)  # the last answer has left memory that the graphs share
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
        """Matches kernel by kernel; None, and nothing is done, where the graphs leave too little memory for that."""
        taps = Taps(row)
        try:
            with algorithms_by_trial():  # those that were captured
                self._stages.match(taps)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            logger.warning("there is too little memory beside the graphs to see what the model sees of a point")
            return None
        return taps

    def _fit(self, rgb: NDArray[np.uint8]) -> None:
        """Makes room for a picture of another size than the last."""
        if rgb.shape != self._pinned.shape:
            self._pinned = pinned(rgb.shape, torch.uint8)
            self._picture = torch.empty(rgb.shape, dtype=torch.uint8, device=self._device)
            self._uploading.wait_stream(torch.cuda.current_stream())  # which may still use what this memory was


class Lane:
    """One frame's answer on the host, and the moments that it passed on its way."""

    def __init__(self) -> None:
        self.values = torch.empty(0)
        self.seen = torch.empty(0)  # of an inspected row
        self._leaving: tuple[Tensor, Tensor | None]
        self.begun, self.uploaded, self.started, self.encoded, self.matched, self.refined, self.downloaded = (
            torch.cuda.Event(enable_timing=True) for _ in range(7)
        )

    def fetch(self, values: Tensor, seen: Tensor | None) -> None:
        """Begins their way to the host; their memory is kept until the next call, by when they have arrived."""
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
    """`stage` as a CUDA graph: what replays it, and gives what the stage gave, at the same addresses every time.

    It is run a few times first, and recorded once without being run.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            stage()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Only this thread is watched for what must not happen in a capture; others, a viewer's, may use the GPU.
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        result = stage()

    def replay() -> T:
        graph.replay()
        return result

    return replay


@contextmanager
def algorithms_by_trial() -> Iterator[None]:
    """Convolutions try every algorithm on their first run and keep the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def match_frugally(model: Tapir, pyramid: FeaturePyramid, state: TrackState, taps: Taps | None = None) -> Estimate:
    """The first guess for every row; if that takes more memory than there is, once more in smaller batches.

    Matching changes no state, and it takes the most; where memory runs out later, a frame cannot be begun again.
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
            "out of memory while matching %d points; they are matched %d at a time", len(state.match_queries), at_once
        )
    torch.cuda.empty_cache()
    return _in_batches(match, state, taps, at_once)


def refine_all(
    model: Tapir, pyramid: FeaturePyramid, first: Estimate, state: TrackState, phase: int, taps: Taps | None = None
) -> Estimate:
    """The best estimate for every row, of which `first` is the first guess; `state` advances by one frame."""

    def refine(rows: slice, state: TrackState, taps: Taps | None) -> Estimate:
        return model.refine(pyramid, first.rows(rows), state, phase, taps)[-1]

    widest = model.config.mixer_expansion * model.config.mixer_width
    return _in_batches(refine, state, taps, _rows_at_once(state, widest, REFINE_BYTES))


def _rows_at_once(state: TrackState, widest: int, most_bytes: int) -> int:
    """How many rows a stage is given, whose widest layer makes so many numbers of a row."""
    queries = state.match_queries
    rows = len(queries)
    return rows if queries.device.type != "cpu" else min(rows, max(1, most_bytes // (widest * queries.element_size())))


def _in_batches(
    stage: Callable[[slice, TrackState, Taps | None], Estimate], state: TrackState, taps: Taps | None, at_once: int
) -> Estimate:
    """What a stage makes of every row, given so many of them at a time, and the taps where their row is among them."""
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
    """Memory of the host that a GPU reads and writes by itself."""
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)


def _fetched(tensor: Tensor, buffer: Tensor) -> Tensor:
    """The host's `buffer`, to which `tensor` is on its way; a new one where that is of another shape."""
    if buffer.shape != tensor.shape:
        buffer = pinned(tensor.shape, tensor.dtype)
    return buffer.copy_(tensor, non_blocking=True)


def _between_ns(first: torch.cuda.Event, last: torch.cuda.Event) -> int:
    milliseconds: float = first.elapsed_time(last)
    return round(milliseconds * 1e6)
