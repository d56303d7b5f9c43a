"""The arithmetic of a causal TAPIR that is worth a kernel, each op under one name and one signature.

`reference` is the truth in plain torch, and what runs on a CPU. Grids are channels-last, `[G, H, W, C]`: axis G is
whatever is independent (the frames of a clip, the cameras of a rig). Positions are in cells of the grid in raster
coordinates: the centre of the first cell is (0.5, 0.5).
"""

from tapir_kernels.reference import (
    PATCH_RADIUS,
    PATCH_SAMPLES,
    TEMPORAL_TAPS,
    cost_volume,
    dense,
    instance_norm_relu,
    l2_normalize,
    local_correlation,
    mixer_step,
    soft_argmax,
)

__all__ = [
    "PATCH_RADIUS",
    "PATCH_SAMPLES",
    "TEMPORAL_TAPS",
    "cost_volume",
    "dense",
    "instance_norm_relu",
    "l2_normalize",
    "local_correlation",
    "mixer_step",
    "soft_argmax",
]
