# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# ruff: noqa: N803
"""Local correlations over a whole pyramid, one program for each point and level.

Bilinear sampling is linear, so a program takes the dot products of its point's features with the surrounding 8x8
cells and blends neighbours into the 7x7 samples. Cells outside the grid are zero. All arithmetic is in float32.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from tapir_kernels.gpu.launch import DTYPES, OPTIONS, CompileCase, KernelInputError, Operand, check, on, pointer
from tapir_kernels.reference import FAR_CELLS, PATCH_RADIUS, PATCH_SAMPLES

MOST_LEVELS = 4
FAR = tl.constexpr(FAR_CELLS)
RADIUS = tl.constexpr(PATCH_RADIUS)
SAMPLES = tl.constexpr(PATCH_SAMPLES)
SIDE = tl.constexpr(2 * PATCH_RADIUS + 1)  # of the patch; the square of cells around a point is one larger
CELLS = tl.constexpr((2 * PATCH_RADIUS + 2) ** 2)
BLOCK_C = tl.constexpr(64)  # at most; 8x8 cells make 32 elements a thread, so nothing spills; 128-byte loads
WARPS = 4
SIZES = [f"{axis}_{level}" for axis in ("height", "width") for level in range(MOST_LEVELS)]
SIZES += ["picture_height", "picture_width", "points"]  # one binary serves all values


@triton.jit(do_not_specialize=SIZES)
def local_correlations_kernel(
    p_features,
    p_xy,
    p_out,
    p_grid_0,
    p_grid_1,
    p_grid_2,
    p_grid_3,
    height_0,
    height_1,
    height_2,
    height_3,
    width_0,
    width_1,
    width_2,
    width_3,
    picture_height,
    picture_width,
    points,
    LEVELS: tl.constexpr,
    FEATURES: tl.constexpr,
    CHANNELS_0: tl.constexpr,
    CHANNELS_1: tl.constexpr,
    CHANNELS_2: tl.constexpr,
    CHANNELS_3: tl.constexpr,
    FIRST_1: tl.constexpr,
    FIRST_2: tl.constexpr,
    FIRST_3: tl.constexpr,
):
    i_point = tl.program_id(0).to(tl.int64)  # over all groups
    i_level = tl.program_id(1)
    height = height_0
    width = width_0
    if i_level == 1:
        height = height_1
        width = width_1
    if i_level == 2:
        height = height_2
        width = width_2
    if i_level == 3:
        height = height_3
        width = width_3

    x = tl.load(p_xy + i_point * 2) * tl.div_rn(width.to(tl.float32), picture_width.to(tl.float32)) - 0.5
    y = tl.load(p_xy + i_point * 2 + 1) * tl.div_rn(height.to(tl.float32), picture_height.to(tl.float32)) - 0.5
    left = tl.floor(x)
    top = tl.floor(y)
    o_cell = tl.arange(0, CELLS)
    column = tl.where(tl.abs(left) < FAR, left, -FAR).to(tl.int32) - RADIUS + o_cell % (SIDE + 1)  # [CELLS]
    row = tl.where(tl.abs(top) < FAR, top, -FAR).to(tl.int32) - RADIUS + o_cell // (SIDE + 1)
    m_cell = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    first = (i_point // points) * height * width
    o_grid = first + row * width + column

    p_feature = p_features + i_point * FEATURES
    dots = tl.zeros([CELLS], tl.float32)
    if i_level == 0:
        dots = _dots(p_feature, p_grid_0, o_grid, m_cell, CHANNELS_0)
    if i_level == 1:
        dots = _dots(p_feature + FIRST_1, p_grid_1, o_grid, m_cell, CHANNELS_1)
    if i_level == 2:
        dots = _dots(p_feature + FIRST_2, p_grid_2, o_grid, m_cell, CHANNELS_2)
    if i_level == 3:
        dots = _dots(p_feature + FIRST_3, p_grid_3, o_grid, m_cell, CHANNELS_3)

    across = x - left
    down = y - top
    # The sample in row i and column j of the patch blends dots (i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1).
    o_sample = tl.arange(0, CELLS)  # only the first 49 are stored
    o_dot = o_sample // SIDE * (SIDE + 1) + o_sample % SIDE
    upper = _between(dots, o_dot, across)
    lower = _between(dots, o_dot + SIDE + 1, across)
    patch = upper + (lower - upper) * down
    p_patch = p_out + (i_point * LEVELS + i_level) * SAMPLES
    tl.store(p_patch + o_sample, patch.to(p_out.dtype.element_ty), mask=o_sample < SAMPLES)


@triton.jit
def _dots(p_feature, p_grid, o_grid, m_cell, CHANNELS: tl.constexpr):
    """Dot products [CELLS] of one feature vector with the cells o_grid [CELLS]."""
    BLOCK: tl.constexpr = min(triton.next_power_of_2(CHANNELS), BLOCK_C)  # noqa: N806
    products = tl.zeros([CELLS, BLOCK], tl.float32)
    for start in tl.static_range(0, CHANNELS, BLOCK):
        o_c = start + tl.arange(0, BLOCK)
        m_c = o_c < CHANNELS
        # [BLOCK]
        b_feature = tl.load(p_feature + o_c, mask=m_c, other=0).to(tl.float32)
        # [CELLS, BLOCK]
        m_cells = m_cell[:, None] & m_c[None, :]
        b_cells = tl.load(p_grid + o_grid[:, None] * CHANNELS + o_c[None, :], mask=m_cells, other=0).to(tl.float32)
        products += b_cells * b_feature[None, :]
    return tl.sum(products, axis=1)


@triton.jit
def _between(dots, o_dot, share):
    """Blends dots [CELLS] at o_dot with their right neighbours by `share`; past the last dot the value is not used."""
    left = tl.gather(dots, o_dot % CELLS, 0)
    right = tl.gather(dots, (o_dot + 1) % CELLS, 0)
    return left + (right - left) * share


def local_correlations(features: Tensor, levels: Sequence[Tensor], xy: Tensor, size: tuple[int, int]) -> Tensor:
    """As `reference.local_correlations`, for one to four levels and xy in float32; KernelInputError for other input."""
    if not 1 <= len(levels) <= MOST_LEVELS:
        raise KernelInputError(f"local_correlations: {len(levels)} levels; the kernel takes 1 to {MOST_LEVELS}")
    if 0 < xy.shape[1] < features.shape[1] and features.shape[1] % xy.shape[1] == 0:  # several looks at each place
        xy = xy.repeat(1, features.shape[1] // xy.shape[1], 1)
    sizes = check(
        "local_correlations",
        Operand("features", features, "G N C"),
        Operand("xy", xy, "G N 2", torch.float32),
        *(Operand(f"levels[{i}]", level, f"G H{i} W{i} C{i}") for i, level in enumerate(levels)),
    )
    groups, points = sizes["G"], sizes["N"]
    shape = _shape(sizes["C"], [level.shape[3] for level in levels])
    out = features.new_empty(groups, points, PATCH_SAMPLES * len(levels))
    four = [levels[min(index, len(levels) - 1)] for index in range(MOST_LEVELS)]
    with on(features.device):
        local_correlations_kernel[(groups * points, len(levels))](
            features,
            xy,
            out,
            *four,
            *(level.shape[1] for level in four),
            *(level.shape[2] for level in four),
            *size,
            points,
            **shape,
            num_warps=WARPS,
            **OPTIONS,
        )
    return out


def _shape(features: int, channels: Sequence[int]) -> dict[str, int]:
    """The kernel's constants: each level's number of channels and their offset in the features."""
    ends = list(accumulate(channels))
    described = ends.index(features) + 1 if features in ends else len(ends)
    if features != ends[described - 1] or any(rest != channels[described - 1] for rest in channels[described:]):
        raise KernelInputError(
            f"local_correlations: features have {features} channels and the levels {' + '.join(map(str, channels))}; "
            f"features must hold the channels of the first levels, and the rest must be copies of the last of these"
        )
    shape = {"LEVELS": len(channels), "FEATURES": features}
    for level in range(MOST_LEVELS):
        count = channels[level] if level < len(channels) else 1  # level unused
        shape[f"CHANNELS_{level}"] = count
        if level:
            shape[f"FIRST_{level}"] = min(ends[min(level, described) - 1], features - count)
    return shape


def compile_cases() -> list[CompileCase]:
    """The presets' pyramids; one binary serves pictures of any size."""
    return [
        CompileCase(
            f"local_correlations {preset} {DTYPES[dtype]}",
            local_correlations_kernel,
            {
                "p_features": pointer(dtype),
                "p_xy": pointer(torch.float32),
                "p_out": pointer(dtype),
                **{f"p_grid_{level}": pointer(dtype) for level in range(MOST_LEVELS)},
                **dict.fromkeys(SIZES, "i32"),
            },
            _shape(features, channels),
            num_warps=WARPS,
        )
        for preset, features, channels in (
            ("small", 224, (32, 64, 128, 128)),
            ("small, neighbours", 96, (32, 64)),
            ("bootstapir", 384, (128, 256, 256)),
            ("tapir", 384, (128, 256)),
        )
        for dtype in DTYPES
    ]
