# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# ruff: noqa: N803
"""What the matching head reads from cost maps, without writing its hidden layer to memory.

In the first launch a program owns a tile of one map's 2x2 blocks of cells. A block yields four cells of the heat map
and one of the strided convolution. They depend on 4x4 cells of the hidden layer, and these on 6x6 cells of the cost. So
a block is a row of 36 numbers a plane, and all three convolutions are matrix products: for each of the 16 hidden cells,
the rows times weights (zero outside the cell's receptive field), ReLU, and the result times its weights in each branch.
The second launch, one program a map, finds the first maximum of the heat, takes the weighted mean position of the
cells around it, and sums the tiles' pooled features in a fixed order.

NaN in a map makes its own position and pooled features NaN, and no other map's.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tapir_kernels.gpu.launch import DTYPES, OPTIONS, CompileCase, Operand, block, check, dot, on, pointer
from tapir_kernels.reference import PEAK_RADIUS, CostReading

HEAT_BLOCK = tl.constexpr(16)  # columns of the product for four heat cells; a tensor core takes no fewer
TILE_BYTES = 8192  # of cost, held in registers; Hopper has too few for twice as much
WINDOW = 16  # a power of two that covers the cells closer than PEAK_RADIUS to the peak
CELLS = 1024  # of a heat map that are searched at a time


@triton.jit
def convolutions_kernel(
    p_cost,
    p_hidden_weight,
    p_hidden_bias,
    p_heat_weight,
    p_heat_bias,
    p_occlusion_weight,
    p_occlusion_bias,
    p_heat,
    p_partial,
    height,
    width,
    PLANES: tl.constexpr,
    HIDDEN: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    rows, columns = tl.cdiv(height, 2), tl.cdiv(width, 2)
    tiles = tl.cdiv(rows * columns, BLOCKS)
    i_map = (tl.program_id(0) // tiles).to(tl.int64)
    i_tile = tl.program_id(0) % tiles
    o_block = i_tile * BLOCKS + tl.arange(0, BLOCKS)
    m_block = o_block < rows * columns
    top, left = 2 * (o_block // columns), 2 * (o_block % columns)

    # the 6x6 cells around every block, plane by plane: [BLOCKS, BLOCK_R]
    o_r = tl.arange(0, BLOCK_R)
    plane, down, across = o_r // 36, o_r // 6 % 6, o_r % 6
    cost_y, cost_x = top[:, None] + down - 2, left[:, None] + across - 2
    m_patch = m_block[:, None] & (plane < PLANES)
    m_patch &= (cost_y >= 0) & (cost_y < height) & (cost_x >= 0) & (cost_x < width)
    o_cost = ((i_map * PLANES + plane) * height + cost_y) * width + cost_x
    b_patch = tl.load(p_cost + o_cost, mask=m_patch, other=0)

    o_k, o_h, o_j = tl.arange(0, BLOCK_K), tl.arange(0, HEAT_BLOCK), tl.arange(0, BLOCK_J)
    m_k, m_j = o_k < HIDDEN, o_j < 2 * HIDDEN
    # HEAT_BLOCK column h is the block's heat cell at row h // 2, column h % 2
    heat_down, heat_across = (o_h // 2)[None, :], (o_h % 2)[None, :]
    o_look = (plane * 9 + down * 3 + across)[:, None] + o_k * (PLANES * 9)  # [BLOCK_R, BLOCK_K]
    o_give = (o_k * 9)[:, None] - (heat_down * 3 + heat_across)  # [BLOCK_K, HEAT_BLOCK]
    o_feed = (o_k * 9)[:, None] + o_j * (HIDDEN * 9) - 4  # [BLOCK_K, BLOCK_J]
    m_look = (plane < PLANES)[:, None] & m_k
    m_give = m_k[:, None] & (o_h < 4)
    m_feed = m_k[:, None] & m_j
    patch_down, patch_across = down[:, None], across[:, None]

    b_hidden_bias = tl.load(p_hidden_bias + o_k, mask=m_k, other=0).to(tl.float32)
    b_heat = tl.zeros([BLOCKS, HEAT_BLOCK], tl.float32)
    b_occlusion = tl.zeros([BLOCKS, BLOCK_J], tl.float32)
    # Not unrolled: the compiler would load the weights of all 16 at once, and spill.
    for tap in range(16):
        v, u = tap // 4, tap % 4  # the hidden cell at y = top + v - 1, x = left + u - 1
        step = v * 3 + u  # weights move by one place a hidden cell, by three a row
        m_seen = (patch_down >= v) & (patch_down < v + 3) & (patch_across >= u) & (patch_across < u + 3)
        # [BLOCK_R, BLOCK_K]
        b_look = tl.load(p_hidden_weight + (o_look - step), mask=m_look & m_seen, other=0)
        b_hidden = dot(b_patch, b_look, tl.zeros([BLOCKS, BLOCK_K], tl.float32)) + b_hidden_bias
        y, x = top + (v - 1), left + (u - 1)
        m_inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        b_hidden = tl.where((b_hidden < 0) | ~m_inside[:, None], 0, b_hidden).to(b_patch.dtype)

        m_seen = (heat_down <= v) & (heat_down > v - 3) & (heat_across <= u) & (heat_across > u - 3)
        # [BLOCK_K, HEAT_BLOCK]
        b_give = tl.load(p_heat_weight + (o_give + step), mask=m_give & m_seen, other=0)
        b_heat = dot(b_hidden, b_give, b_heat)
        # the strided convolution sees the last three rows and columns of the 4x4
        if (v > 0) & (u > 0):
            # [BLOCK_K, BLOCK_J]
            b_feed = tl.load(p_occlusion_weight + (o_feed + step), mask=m_feed, other=0)
            b_occlusion = dot(b_hidden, b_feed, b_occlusion)

    heat_y, heat_x = top[:, None] + heat_down, left[:, None] + heat_across
    m_heat = m_block[:, None] & (o_h < 4) & (heat_y < height) & (heat_x < width)
    b_heat += tl.load(p_heat_bias).to(tl.float32)
    tl.store(p_heat + (i_map * height + heat_y) * width + heat_x, b_heat, mask=m_heat)
    b_occlusion += tl.load(p_occlusion_bias + o_j, mask=m_j, other=0).to(tl.float32)
    b_occlusion = tl.where((b_occlusion < 0) | ~m_block[:, None], 0, b_occlusion)
    o_partial = (i_map * tiles + i_tile) * (2 * HIDDEN) + o_j
    tl.store(p_partial + o_partial, tl.sum(b_occlusion, axis=0), mask=m_j)


@triton.jit
def reading_kernel(
    p_heat,
    p_partial,
    p_xy,
    p_pooled,
    height,
    width,
    tiles,
    temperature,
    POOLED: tl.constexpr,
    BLOCK_J: tl.constexpr,
    RADIUS: tl.constexpr,
    WINDOW: tl.constexpr,
    CELLS: tl.constexpr,
):
    i_map = tl.program_id(0).to(tl.int64)
    p_map = p_heat + i_map * height * width
    peak, highest = 0, float("-inf")
    bad = 0
    for start in range(0, height * width, CELLS):
        o_cell = start + tl.arange(0, CELLS)
        b_heat = tl.load(p_map + o_cell, mask=o_cell < height * width, other=float("-inf")) * temperature
        bad = tl.maximum(bad, tl.max((b_heat != b_heat).to(tl.int32), axis=0))
        b_heat = tl.where(b_heat == b_heat, b_heat, float("-inf"))
        best = tl.max(b_heat, axis=0)
        # the first of equal maxima
        first = tl.min(tl.where(b_heat == best, o_cell, height * width), axis=0)
        peak, highest = tl.where(best > highest, first, peak), tl.maximum(best, highest)

    # one NaN cell makes the whole softmax NaN
    o_w = tl.arange(0, WINDOW * WINDOW)
    down, across = o_w // WINDOW - WINDOW // 2, o_w % WINDOW - WINDOW // 2
    y, x = peak // width + down, peak % width + across
    m_near = (down * down + across * across < RADIUS * RADIUS) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    b_heat = tl.load(p_map + y * width + x, mask=m_near, other=0) * temperature
    b_weight = tl.where(m_near, tl.exp(b_heat - highest), 0)
    total = tl.where(bad > 0, float("nan"), tl.sum(b_weight, axis=0))
    tl.store(p_xy + i_map * 2, tl.sum(b_weight * (x + 0.5), axis=0) / total)
    tl.store(p_xy + i_map * 2 + 1, tl.sum(b_weight * (y + 0.5), axis=0) / total)

    o_j = tl.arange(0, BLOCK_J)
    m_j = o_j < POOLED
    b_pooled = tl.zeros([BLOCK_J], tl.float32)
    for i_tile in range(tiles):
        b_pooled += tl.load(p_partial + (i_map * tiles + i_tile) * POOLED + o_j, mask=m_j, other=0)
    blocks = tl.cdiv(height, 2) * tl.cdiv(width, 2)
    tl.store(p_pooled + i_map * POOLED + o_j, b_pooled / blocks, mask=m_j)


def cost_volume_head(
    cost: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    heat_weight: Tensor,
    heat_bias: Tensor,
    occlusion_weight: Tensor,
    occlusion_bias: Tensor,
    temperature: float,
) -> CostReading:
    """As `reference.cost_volume_head`, accumulated in float32; KernelInputError for tensors that do not fit."""
    sizes = check(
        "cost_volume_head",
        Operand("cost", cost, "M P H W"),
        Operand("hidden_weight", hidden_weight, "K P 3 3"),
        Operand("hidden_bias", hidden_bias, "K"),
        Operand("heat_weight", heat_weight, "1 K 3 3"),
        Operand("heat_bias", heat_bias, "1"),
        Operand("occlusion_weight", occlusion_weight, "2K K 3 3"),
        Operand("occlusion_bias", occlusion_bias, "2K"),
    )
    maps, planes, height, width, hidden = (sizes[axis] for axis in "MPHWK")
    shape = _shape(planes, hidden, cost.dtype)
    tiles = triton.cdiv(triton.cdiv(height, 2) * triton.cdiv(width, 2), shape["BLOCKS"])
    heat = torch.empty(maps, height, width, device=cost.device)
    partial = torch.empty(maps, tiles, 2 * hidden, device=cost.device)
    xy = torch.empty(maps, 2, device=cost.device)
    pooled = torch.empty(maps, 2 * hidden, device=cost.device)
    if maps == 0:
        return CostReading(xy, pooled, heat)
    with on(cost.device):
        convolutions_kernel[maps * tiles,](
            cost, hidden_weight, hidden_bias, heat_weight, heat_bias, occlusion_weight, occlusion_bias,
            heat, partial, height, width, **shape, **OPTIONS,
        )  # fmt: skip
        reading_kernel[maps,](
            heat, partial, xy, pooled, height, width, tiles, float(temperature), **_reading_shape(hidden), **OPTIONS
        )
    return CostReading(xy, pooled, heat)


def _shape(planes: int, hidden: int, dtype: torch.dtype) -> dict[str, int]:
    numbers = int(triton.next_power_of_2(36 * planes))
    width = block(hidden, 16, hidden * 2)  # a tensor core takes no fewer
    return {
        "PLANES": planes,
        "HIDDEN": hidden,
        "BLOCKS": max(16, TILE_BYTES // (numbers * dtype.itemsize)),
        "BLOCK_R": numbers,
        "BLOCK_K": width,
        "BLOCK_J": 2 * width,
    }


def _reading_shape(hidden: int) -> dict[str, float]:
    pooled = 2 * hidden
    return {
        "POOLED": pooled,
        "BLOCK_J": int(triton.next_power_of_2(pooled)),
        "RADIUS": PEAK_RADIUS,
        "WINDOW": WINDOW,
        "CELLS": CELLS,
    }


def compile_cases() -> list[CompileCase]:
    """The presets' heads, which differ in their number of planes."""
    weights = ("hidden_weight", "hidden_bias", "heat_weight", "heat_bias", "occlusion_weight", "occlusion_bias")
    cases = [
        CompileCase(
            f"cost_volume_head convolutions {name} P={planes}",
            convolutions_kernel,
            {f"p_{argument}": pointer(dtype) for argument in ("cost", *weights)}
            | {"p_heat": "*fp32", "p_partial": "*fp32", "height": "i32", "width": "i32"},
            _shape(planes, 16, dtype),
        )
        for planes in (1, 3)
        for dtype, name in DTYPES.items()
    ]
    reading = CompileCase(
        "cost_volume_head reading",
        reading_kernel,
        {f"p_{argument}": "*fp32" for argument in ("heat", "partial", "xy", "pooled")}
        | {"height": "i32", "width": "i32", "tiles": "i32", "temperature": "fp32"},
        _reading_shape(16),
    )
    return [*cases, reading]
