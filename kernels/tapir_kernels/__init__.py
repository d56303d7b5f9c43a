"""The ops of causal TAPIR that are worth a kernel, each with one name and one signature.

`reference` defines them in plain torch and runs on a CPU; `gpu` has the Triton kernels, which `backend` chooses on
devices where they work. Grids are channels-last, `[G, H, W, C]`; items along G are independent (the frames of a clip,
the cameras of a rig). Positions are in cells of the grid, in raster coordinates: the centre of the first cell is
(0.5, 0.5).
"""

from tapir_kernels.backend import Backend, KernelsUnavailableError, backend, require_kernels
from tapir_kernels.dispatch import (
    cost_volume,
    cost_volume_head,
    instance_norm_relu,
    l2_normalize,
    local_correlations,
    mixer_step,
    resize_rgb8,
)
from tapir_kernels.reference import (
    IDLE,
    PATCH_RADIUS,
    PATCH_SAMPLES,
    TEMPORAL_TAPS,
    CostReading,
    dense,
    dense_gelu,
    local_correlation,
    mixer_advance,
    soft_argmax,
)

__all__ = [
    "IDLE",
    "PATCH_RADIUS",
    "PATCH_SAMPLES",
    "TEMPORAL_TAPS",
    "Backend",
    "CostReading",
    "KernelsUnavailableError",
    "backend",
    "cost_volume",
    "cost_volume_head",
    "dense",
    "dense_gelu",
    "instance_norm_relu",
    "l2_normalize",
    "local_correlation",
    "local_correlations",
    "mixer_advance",
    "mixer_step",
    "require_kernels",
    "resize_rgb8",
    "soft_argmax",
]
