"""The stages of a frame of every lane over every row of a state, at fixed addresses, for capture in CUDA graphs.

What changes between frames (the pictures, their slots in the windows, which lanes have a frame, which point is in which
row) is in device memory, not in Python. Lanes without a frame and rows without a point are computed like the others
and ignored. No host synchronisation, no host-to-device copies; only `begin` and `take`, which are not captured, depend
on the frames. With taps a stage differs from frame to frame, so it is launched eagerly instead of replayed, on the same
memory and with the same kernels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from online_tapir.model.config import Size
from online_tapir.model.estimate import Estimate, packed
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import FeaturePyramid, Tapir
from online_tapir.model.taps import Tapping
from online_tapir.tracking.feature_window import FeatureRings
from tapir_kernels import IDLE, resize_rgb8


class StaticStages:
    """Call `begin`, `take` for each lane with a frame, `encode`, `match` and `refine` in this order."""

    def __init__(self, model: Tapir, state: TrackState, rings: FeatureRings, refinement: Sequence[Size]) -> None:
        weight = next(model.parameters())
        self._model = model
        self._state = state
        self._rings = rings
        self._refinement = refinement
        self._images = [
            torch.zeros(rings.lanes, 3, *size, dtype=weight.dtype, device=weight.device).to(
                memory_format=torch.channels_last
            )
            for size in model.sizes(refinement)
        ]
        self._slots = torch.full((rings.lanes,), rings.idle_slot, dtype=torch.long, device=weight.device)
        self._phase = torch.full((rings.lanes,), IDLE, dtype=torch.int32, device=weight.device)
        rings.make_room(model.encode_resized(self._images, refinement), idle=True)
        self._pyramid: FeaturePyramid
        self._first: Estimate

    def begin(self) -> None:
        """A new batch, in which no lane has a frame yet."""
        self._slots.fill_(self._rings.idle_slot)
        self._phase.fill_(IDLE)

    def take(self, lane: int, rgb: Tensor, slot: int, phase: int) -> None:
        """Sets a lane's frame, uint8 RGB [H, W, 3] of any size on the device, its slot and its number's parity."""
        for image in self._images:
            image[lane].copy_(resize_rgb8(rgb, (image.shape[2], image.shape[3]), image.dtype)[0])
        self._slots[lane].fill_(slot)
        self._phase[lane].fill_(phase)

    def encode(self) -> None:
        """Computes the frames' features and stores them in the windows."""
        self._pyramid = self._model.encode_resized(self._images, self._refinement)
        self._rings.store(self._slots, self._pyramid)

    def match(self, taps: Tapping | None = None) -> None:
        """Computes the first guess for every row."""
        self._first = self._model.match(self._pyramid, self._state, taps).estimate

    def refine(self, taps: Tapping | None = None) -> Tensor:
        """Every row's best estimate, `packed`; the rows of lanes with a frame advance by it."""
        return packed(self._model.refine(self._pyramid, self._first, self._state, self._phase, taps)[-1])
