# mypy: allow-untyped-calls
"""The step of a GPU: stages replayed as CUDA graphs, with uploads and downloads beside the computation."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from online_tapir.model.memory import ran_out
from online_tapir.model.taps import LaneTaps
from online_tapir.records import StageTimes
from online_tapir.tracking.static import StaticStages
from online_tapir.tracking.step import Picture, Reading, Wanted, taps_of

IN_FLIGHT = 2  # batches: one is computed while the next is uploaded
WARM_UPS = 3  # runs before a capture, to compile kernels and choose convolution algorithms
T = TypeVar("T")

logger = logging.getLogger(__name__)


class GraphedStep:
    """Runs every row of every lane as CUDA graphs; uploads and downloads have their own streams beside the computation.

    Each stage is a graph. They are launched one after another without host synchronisation, so together they form one
    queue. As separate graphs they let a point be initialised on a frame between its encoding and its matching, each
    stage be timed, and stateless stages be warmed up without touching the state. Only the resizing is launched outside
    the graphs, so a camera may change its frame size without another capture; and which lanes have a frame is in device
    memory, so lanes come and go without one.

    A graph returns nothing but its result. While a row is inspected, matching and refinement are therefore launched
    kernel by kernel, on the memory that the graphs use; a graph always reads and writes its captured addresses, no
    matter what was launched in between.

    Rows are written, when a point is initialised or changes its row, on the caller's stream: the one that computes.
    """

    def __init__(self, stages: StaticStages, device: torch.device) -> None:
        self._stages = stages
        self._device = device
        self._readings: deque[tuple[Flight, Sequence[Wanted], LaneTaps | None]] = deque()
        with torch.cuda.device(device), algorithms_by_trial():
            pool = torch.cuda.graph_pool_handle()
            self._encode, self._match = capture(stages.encode, pool), capture(stages.match, pool)
            self._refine = capture(stages.refine, pool)
            self._uploading, self._downloading = torch.cuda.Stream(), torch.cuda.Stream()
            self._flights = [Flight() for _ in range(IN_FLIGHT)]
            self._uploaded, self._resized, self._downloaded = (torch.cuda.Event() for _ in range(3))
        self._batches = 0
        self._pinned: dict[int, Tensor] = {}  # by lane, on the host
        self._pictures: dict[int, Tensor] = {}  # by lane, on the device

    def take(self, pictures: Sequence[Picture]) -> None:
        with torch.cuda.device(self._device):
            flight = self._flights[self._batches % IN_FLIGHT]
            self._batches += 1
            self._uploaded.synchronize()  # the last pictures have left the pinned memory
            for picture in pictures:
                self._fit(picture)
                np.copyto(self._pinned[picture.lane].numpy(), picture.rgb)
            with torch.cuda.stream(self._uploading):
                self._uploading.wait_event(self._resized)  # the last pictures have been resized
                flight.begun.record()
                for picture in pictures:
                    self._pictures[picture.lane].copy_(self._pinned[picture.lane], non_blocking=True)
                flight.uploaded.record()
                self._uploaded.record()
            computing = torch.cuda.current_stream()
            computing.wait_event(self._uploaded)
            computing.wait_event(self._downloaded)  # the last result has left the memory that the graphs share
            flight.started.record()
            self._stages.begin()
            for picture in pictures:
                slot, phase = picture.window.slot(picture.frame), picture.frame.number & 1
                self._stages.take(picture.lane, self._pictures[picture.lane], slot, phase)
            self._resized.record()
            self._encode()
            flight.encoded.record()
            for picture in pictures:
                picture.window.remember(picture.frame)
            self._flight = flight

    def track(self, wanted: Sequence[Wanted]) -> None:
        with torch.cuda.device(self._device):
            flight, taps = self._flight, self._match_and_see(taps_of(wanted))
            if taps is None:
                self._match()
            flight.matched.record()
            values = self._refine() if taps is None else self._stages.refine(taps)
            seen = None if taps is None else taps.flat()
            flight.refined.record()
            with torch.cuda.stream(self._downloading):
                self._downloading.wait_event(flight.refined)
                flight.fetch(values, seen)
                flight.downloaded.record()
                self._downloaded.record()
            self._readings.append((flight, wanted, taps))

    def read(self) -> list[Reading]:
        flight, wanted, taps = self._readings.popleft()
        flight.downloaded.synchronize()
        times = flight.times()
        sights = [None] * len(wanted) if taps is None else taps.sights(flight.seen.clone())
        return [
            Reading(flight.values[asked.rows].numpy().copy(), times, sight)
            for asked, sight in zip(wanted, sights, strict=True)
        ]

    def _match_and_see(self, taps: LaneTaps | None) -> LaneTaps | None:
        """Matches kernel by kernel; does nothing and returns None if the graphs leave too little memory for that."""
        if taps is None:
            return None
        try:
            with algorithms_by_trial():  # the same as were captured
                self._stages.match(taps)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            logger.warning("the CUDA graphs leave too little memory to inspect a point")
            return None
        return taps

    def _fit(self, picture: Picture) -> None:
        """Reallocates a lane's buffers for pictures if their size has changed."""
        shape, lane = picture.rgb.shape, picture.lane
        if lane not in self._pinned or shape != self._pinned[lane].shape:
            self._pinned[lane] = pinned(shape, torch.uint8)
            self._pictures[lane] = torch.empty(shape, dtype=torch.uint8, device=self._device)
            self._uploading.wait_stream(torch.cuda.current_stream())  # which may still use this memory's last contents


class Flight:
    """One batch's results on the host, and the events that time its stages."""

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
