"""Runs frames on a device: uploads pictures, stores their features in the windows, computes every point's numbers.

Works on rows of the state; which point is in which row is the lanes' business.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from online_tapir.clock import Stopwatch, SystemClock
from online_tapir.model.config import Size
from online_tapir.model.estimate import Estimate, packed
from online_tapir.model.memory import ran_out
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import FeaturePyramid, Tapir, phase_of
from online_tapir.model.taps import LaneTaps, Sight, Taps
from online_tapir.records import StageTimes
from online_tapir.tracking.feature_window import FeatureWindow
from online_tapir.tracking.static import StaticStages
from online_tapir.tracking.window import RememberedFrame
from tapir_kernels import resize_rgb8

# Limits on the output of a stage's widest layer on a CPU, in bytes. Larger ones fall out of the cache, and malloc maps
# them anew each time. The mixer reads its weights again for every batch, so it prefers larger batches.
MATCH_BYTES, REFINE_BYTES = 4 * 2**20, 16 * 2**20
BATCHES = 8  # to match points in, once matching ran out of memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A lane's next frame."""

    lane: int
    rgb: NDArray[np.uint8]  # [H, W, 3]
    frame: RememberedFrame
    window: FeatureWindow  # the lane's


class Wanted(NamedTuple):
    """What to track of a lane on the frame taken last."""

    lane: int
    rows: slice  # of the state: the lane's points
    phase: int  # the parity of the frame's number
    inspected: int | None = None  # a row of the state, whose intermediate results are kept


class Reading(NamedTuple):
    """The results of a lane's frame, and how long the stages took."""

    values: NDArray[np.float32]  # [N, 4] as `packed`
    times: StageTimes
    sight: Sight | None  # of the inspected row, on the host; None without one


class Step(Protocol):
    """Takes frames and tracks their points, in turn; `read` returns results in that order, at most two behind.

    Each call is for one frame of each of some lanes.
    """

    def take(self, pictures: Sequence[Picture]) -> None:
        """Uploads and encodes the pictures; from now on the windows hold their frames."""

    def track(self, wanted: Sequence[Wanted]) -> None:
        """Matches and refines the rows of the lanes on the frames taken last."""

    def read(self) -> list[Reading]:
        """The results of the oldest frames that were tracked and not read, in the order of `track`; waits for them."""


class InTurn:
    """Runs the lanes one after another, and only the requested rows. What runs a lane is the subclass's."""

    def __init__(self, model: Tapir, state: TrackState) -> None:
        self._model = model
        self._state = state
        self._clock = SystemClock()
        self._watch = Stopwatch(self._clock)
        self._readings: deque[list[Reading]] = deque()
        self._taken: dict[int, tuple[FeaturePyramid, StageTimes]] = {}  # by lane

    def take(self, pictures: Sequence[Picture]) -> None:
        self._watch.lap()
        self._taken = {picture.lane: self._take(picture) for picture in pictures}

    def track(self, wanted: Sequence[Wanted]) -> None:
        self._watch.lap()
        self._readings.append([self._track(asked, *self._taken[asked.lane]) for asked in wanted])

    def read(self) -> list[Reading]:
        return self._readings.popleft()

    def _take(self, picture: Picture) -> tuple[FeaturePyramid, StageTimes]:
        """Puts the picture's features into the window; returns them and the times to upload and to encode."""
        raise NotImplementedError

    def _track(self, asked: Wanted, pyramid: FeaturePyramid, times: StageTimes) -> Reading:
        """Advances the lane's rows by the frame with these features."""
        raise NotImplementedError

    def _rows(self, asked: Wanted) -> TrackState:
        return self._state.rows(asked.rows.start, asked.rows.stop)


class EagerStep(InTurn):
    """By torch: on a CPU, or on a GPU with graphs=False."""

    def __init__(self, model: Tapir, state: TrackState, refinement: Sequence[Size]) -> None:
        super().__init__(model, state)
        self._refinement = refinement
        weight = next(model.parameters())
        self._device, self._dtype = weight.device, weight.dtype

    def _take(self, picture: Picture) -> tuple[FeaturePyramid, StageTimes]:
        pixels = pixels_of(picture.rgb).to(self._device)
        images = [resize_rgb8(pixels, size, self._dtype) for size in self._model.sizes(self._refinement)]
        upload_ns = self._watch.lap()
        pyramid = self._model.encode_resized(images, self._refinement)
        times = StageTimes(upload=upload_ns, encode=self._watch.lap())
        return picture.window.push(picture.frame, pyramid), times

    def _track(self, asked: Wanted, pyramid: FeaturePyramid, times: StageTimes) -> Reading:
        state = self._rows(asked)
        taps = None if asked.inspected is None else Taps(asked.inspected - asked.rows.start)
        first = match_frugally(self._model, pyramid, state, taps)
        match_ns = self._watch.lap()
        best = refine_all(self._model, pyramid, first, state, asked.phase, taps)
        refine_ns = self._watch.lap()
        values = packed(best).cpu().numpy()
        sight = None if taps is None else taps.sight.filled(taps.sight.flat().cpu())
        return Reading(values, replace(times, match=match_ns, refine=refine_ns, download=self._watch.lap()), sight)


class BatchStep:
    """Runs the stages of all lanes as one batch over all rows, as a GPU's graphs do, but without graphs."""

    def __init__(self, stages: StaticStages, device: torch.device) -> None:
        self._stages = stages
        self._device = device
        self._clock = SystemClock()
        self._readings: deque[list[Reading]] = deque()

    def take(self, pictures: Sequence[Picture]) -> None:
        self._watch = Stopwatch(self._clock)
        self._stages.begin()
        for picture in pictures:
            pixels, slot = pixels_of(picture.rgb).to(self._device), picture.window.slot(picture.frame)
            self._stages.take(picture.lane, pixels, slot, picture.frame.number & 1)
        self._upload_ns = self._watch.lap()
        self._stages.encode()
        for picture in pictures:
            picture.window.remember(picture.frame)
        self._encode_ns = self._watch.lap()

    def track(self, wanted: Sequence[Wanted]) -> None:
        self._watch.lap()
        taps = taps_of(wanted)
        self._stages.match(taps)
        match_ns = self._watch.lap()
        values = self._stages.refine(taps).cpu().numpy()
        times = StageTimes(0, self._upload_ns, self._encode_ns, match_ns, self._watch.lap(), 0)
        sights = [None] * len(wanted) if taps is None else taps.sights(taps.flat().cpu())
        self._readings.append(
            [Reading(values[asked.rows].copy(), times, sight) for asked, sight in zip(wanted, sights, strict=True)]
        )

    def read(self) -> list[Reading]:
        return self._readings.popleft()


def pixels_of(rgb: NDArray[np.uint8]) -> Tensor:
    """A picture as a tensor, which shares its memory if that may be written."""
    return torch.from_numpy(rgb if rgb.flags.writeable else rgb.copy())


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
    """Refines `first`, the first guess, to the best estimate for every row; advances `state` by one frame.

    The rows are of one lane, and `phase` is the parity of its frame's number.
    """
    on = phase_of(phase, state.match_queries.device)

    def refine(rows: slice, state: TrackState, taps: Taps | None) -> Estimate:
        return model.refine(pyramid, first.rows(rows), state, on, taps)[-1]

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


def taps_of(wanted: Sequence[Wanted]) -> LaneTaps | None:
    """Taps for the inspected rows, one for each lane at most; None if no row is inspected."""
    rows = [asked.inspected for asked in wanted]
    return None if all(row is None for row in rows) else LaneTaps(rows)
