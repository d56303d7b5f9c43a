"""A frame's stages over every row of a state, all that they read and write at fixed addresses, for a GPU to replay.

What changes between frames - the picture, its slot in the window, who lives in which row - lies in memory, none of it
in Python. A row without a point is computed like the others, and nobody reads it. Nothing here waits for the device or
brings anything from the host; a frame's own size is met outside, in `take`. With taps a stage is no longer the same for
every frame, so it is launched as it comes and not replayed: on the same memory, by the same kernels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from online_tapir.model.coordinates import Size
from online_tapir.model.estimate import Estimate
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import FeaturePyramid, Tapir
from online_tapir.model.taps import Taps
from online_tapir.tracking.feature_window import FeatureWindow
from tapir_kernels import resize_rgb8


class StaticStages:
    """`take`, then `encode`, `match` and `refine`, in that order, each on what the one before has left."""

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
        """The frame to go on with, uint8 RGB [H, W, 3] of any size on the device, and where its features shall go."""
        for image in self._images:
            image.copy_(resize_rgb8(rgb, (image.shape[2], image.shape[3]), image.dtype))
        self._slot.fill_(slot)

    def encode(self) -> None:
        """Features of the frame, into the window too."""
        self._pyramid = self._model.encode_resized(self._images, self._refinement)
        self._window.store(self._slot, self._pyramid)

    def match(self, taps: Taps | None = None) -> None:
        """The first guess for every row."""
        self._first = self._model.match(self._pyramid, self._state, taps).estimate

    def refine(self, phase: int, taps: Taps | None = None) -> Tensor:
        """What `packed` makes of every row's best estimate; the state advances by one frame, of that parity."""
        return packed(self._model.refine(self._pyramid, self._first, self._state, phase, taps)[-1])


def packed(estimate: Estimate) -> Tensor:
    """All that leaves the device: float32 [N, 4], positions in pixels of the initial resolution, then both logits."""
    logits = torch.stack([estimate.occlusion[0], estimate.expected_distance[0]], dim=1)
    return torch.cat([estimate.xy[0].float(), logits.float()], dim=1)
