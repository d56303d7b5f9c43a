"""A frame's stages over every row of a state, reading and writing at fixed addresses, for capture in CUDA graphs.

What changes between frames (the picture, its slot in the window, which point is in which row) is in device memory, not
in Python. Rows without a point are computed like the others, and ignored. No host synchronisation, no host-to-device
copies; only `take`, which is not captured, depends on the frame's size. With taps a stage differs from frame to frame,
so it is launched eagerly instead of replayed, on the same memory and with the same kernels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from online_tapir.model.coordinates import Size
from online_tapir.model.estimate import Estimate, packed
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import FeaturePyramid, Tapir
from online_tapir.model.taps import Taps
from online_tapir.tracking.feature_window import FeatureWindow
from tapir_kernels import resize_rgb8


class StaticStages:
    """Call `take`, `encode`, `match` and `refine` in this order; each works on the results of the one before."""

    def __init__(self, model: Tapir, state: TrackState, window: FeatureWindow, refinement: Sequence[Size]) -> None:
        weight = next(model.parameters())
        self._model = model
        self._state = state
        self._window = window
        self._refinement = refinement
        self._images = [
            torch.zeros(1, 3, *size, dtype=weight.dtype, device=weight.device).to(memory_format=torch.channels_last)
            for size in model.sizes(refinement)
        ]
        self._slot = torch.zeros(1, dtype=torch.long, device=weight.device)
        window.make_room(model.encode_resized(self._images, refinement))
        self._pyramid: FeaturePyramid
        self._first: Estimate

    def take(self, rgb: Tensor, slot: int) -> None:
        """Sets the next frame, uint8 RGB [H, W, 3] of any size on the device, and the window slot for its features."""
        for image in self._images:
            image.copy_(resize_rgb8(rgb, (image.shape[2], image.shape[3]), image.dtype))
        self._slot.fill_(slot)

    def encode(self) -> None:
        """Computes the frame's features and stores them in the window."""
        self._pyramid = self._model.encode_resized(self._images, self._refinement)
        self._window.store(self._slot, self._pyramid)

    def match(self, taps: Taps | None = None) -> None:
        """Computes the first guess for every row."""
        self._first = self._model.match(self._pyramid, self._state, taps).estimate

    def refine(self, phase: int, taps: Taps | None = None) -> Tensor:
        """Every row's best estimate, `packed`; the state advances by one frame. `phase` is that frame's parity."""
        return packed(self._model.refine(self._pyramid, self._first, self._state, phase, taps)[-1])
