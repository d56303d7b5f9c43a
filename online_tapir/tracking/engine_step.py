"""Runs one frame on a CPU by an engine other than torch. The state and the window stay torch's.

Late queries and the numbers of an inspected point are computed by torch, on the same features.
"""

from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray

from online_tapir.clock import Stopwatch, SystemClock
from online_tapir.engines.engine import Compiled
from online_tapir.model.coordinates import Size
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import FeaturePyramid, Tapir
from online_tapir.model.taps import Sight, Taps
from online_tapir.records import StageTimes
from online_tapir.tracking.feature_window import FeatureWindow, RememberedFrame
from online_tapir.tracking.step import Reading, match_frugally, refine_all
from tapir_kernels import resize_rgb8


class EngineStep:
    """A `Step` whose encoder and refinement are an engine's graphs; matching is part of the second."""

    def __init__(self, compiled: Compiled, model: Tapir, state: TrackState, window: FeatureWindow, size: Size) -> None:
        self._compiled = compiled
        self._model = model
        self._state = state
        self._window = window
        self._size = size
        self._clock = SystemClock()
        self._readings: deque[Reading] = deque()
        self._pyramid: FeaturePyramid

    def take(self, rgb: NDArray[np.uint8], frame: RememberedFrame) -> None:
        self._watch = Stopwatch(self._clock)
        pixels = torch.from_numpy(rgb if rgb.flags.writeable else rgb.copy())
        image = resize_rgb8(pixels, self._size, torch.float32)
        self._upload_ns = self._watch.lap()
        pyramid = self._compiled.encode(image)
        self._encode_ns = self._watch.lap()
        self._pyramid = self._window.push(frame, pyramid)

    def track(self, rows: int, phase: int, inspected: int | None = None) -> None:
        state = self._state.rows(0, rows)
        sight = None if inspected is None else self._seen(inspected, phase)
        values = self._compiled.step(self._pyramid, state, phase).numpy()
        refine_ns = self._watch.lap()
        times = StageTimes(0, self._upload_ns, self._encode_ns, 0, refine_ns, self._watch.lap())
        self._readings.append(Reading(values, times, sight))

    def read(self) -> Reading:
        return self._readings.popleft()

    def _seen(self, row: int, phase: int) -> Sight:
        """What torch computes for one row on this frame, on a copy of its state."""
        taps = Taps(0)
        state = TrackState.of({name: tensor.clone() for name, tensor in self._state.rows(row, row + 1).tensors.items()})
        first = match_frugally(self._model, self._pyramid, state, taps)
        refine_all(self._model, self._pyramid, first, state, phase, taps)
        return taps.sight.filled(taps.sight.flat())
