"""Runs frames on a CPU by an engine other than torch. The state and the windows stay torch's.

Late queries and the numbers of an inspected point are computed by torch, on the same features.
"""

from dataclasses import replace

import torch

from online_tapir.engines.engine import Compiled
from online_tapir.model.config import Size
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import FeaturePyramid, Tapir
from online_tapir.model.taps import Sight, Taps
from online_tapir.records import StageTimes
from online_tapir.tracking.step import InTurn, Picture, Reading, Wanted, match_frugally, pixels_of, refine_all
from tapir_kernels import resize_rgb8


class EngineStep(InTurn):
    """A `Step` whose encoder and refinement are an engine's graphs; matching is part of the second."""

    def __init__(self, compiled: Compiled, model: Tapir, state: TrackState, size: Size) -> None:
        super().__init__(model, state)
        self._compiled = compiled
        self._size = size

    def _take(self, picture: Picture) -> tuple[FeaturePyramid, StageTimes]:
        image = resize_rgb8(pixels_of(picture.rgb), self._size, torch.float32)
        upload_ns = self._watch.lap()
        pyramid = self._compiled.encode(image)
        times = StageTimes(upload=upload_ns, encode=self._watch.lap())
        return picture.window.push(picture.frame, pyramid), times

    def _track(self, asked: Wanted, pyramid: FeaturePyramid, times: StageTimes) -> Reading:
        sight = None if asked.inspected is None else self._seen(asked.inspected, pyramid, asked.phase)
        values = self._compiled.step(pyramid, self._rows(asked), asked.phase).numpy()
        refine_ns = self._watch.lap()
        return Reading(values, replace(times, refine=refine_ns, download=self._watch.lap()), sight)

    def _seen(self, row: int, pyramid: FeaturePyramid, phase: int) -> Sight:
        """What torch computes for one row on this frame, on a copy of its state."""
        taps = Taps(0)
        state = TrackState.of({name: tensor.clone() for name, tensor in self._state.rows(row, row + 1).tensors.items()})
        refine_all(self._model, pyramid, match_frugally(self._model, pyramid, state, taps), state, phase, taps)
        return taps.sight.filled(taps.sight.flat())
