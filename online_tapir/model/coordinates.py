"""The only place that converts positions between coordinate systems.

All are raster coordinates, x before y: (0, 0) is the top-left corner of the first cell, whose centre is (0.5, 0.5). So
converting from one grid to another over the same picture only scales each axis by the ratio of their sizes.
"""

import math

import torch
from torch import Tensor

from online_tapir.model.config import Size


def rescale(xy: Tensor, source: Size, target: Size) -> Tensor:
    """Converts xy [..., 2] from a grid of size `source` to one of size `target` over the same picture."""
    across, down = target[1] / source[1], target[0] / source[0]
    if across == down:
        return xy * across
    return torch.stack([xy[..., 0] * across, xy[..., 1] * down], dim=-1)  # no host tensors: CUDA graphs capture this


def refinement_resolutions(initial: Size, frame: Size, multiple: int) -> list[Size]:
    """The sizes at which TAPIR refines a frame by default: geometric steps from `initial` to the frame's own size.

    Each is rounded down to a `multiple`; a frame no larger than `initial` is refined at `initial` alone.
    """
    octaves = max(math.log2(frame[axis] / initial[axis]) for axis in (0, 1))
    count = math.ceil(octaves) + 1
    if count <= 1:
        return [initial]
    steps = [step / (count - 1) for step in range(count)]
    return [(_between(initial[0], frame[0], s, multiple), _between(initial[1], frame[1], s, multiple)) for s in steps]


def _between(low: int, high: int, share: float, multiple: int) -> int:
    return int(low * (high / low) ** share + 1e-6) // multiple * multiple
