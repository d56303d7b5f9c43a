# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# ruff: noqa: N803
"""Dot products of every query with every cell of its grid: one batched matrix product, summed over channels.

A program owns a tile of queries and a tile of cells; both are read channels-last, without a transpose.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tapir_kernels.gpu.launch import DTYPES, OPTIONS, CompileCase, Operand, block, check, dot, on, pointer

# 256 queries by 1024 cells are 8 x 16 tiles, about as many programs as an H100 has multiprocessors.
QUERIES = 32
CELLS = 64
ROW_BYTES = 128  # of each vector, multiplied at a time


@triton.jit
def cost_volume_kernel(
    p_queries,
    p_grid,
    p_cost,
    queries,
    cells,
    CHANNELS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    tiles = tl.cdiv(cells, BLOCK_P)
    i_group = tl.program_id(1).to(tl.int64)
    o_n = tl.program_id(0) // tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    o_p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    m_n, m_p = o_n < queries, o_p < cells
    o_query = (i_group * queries + o_n) * CHANNELS
    o_cell = (i_group * cells + o_p) * CHANNELS
    b_cost = tl.zeros([BLOCK_N, BLOCK_P], tl.float32)
    for start in range(0, CHANNELS, BLOCK_C):
        o_c = start + tl.arange(0, BLOCK_C)
        m_c = o_c < CHANNELS
        # [BLOCK_N, BLOCK_C]
        b_query = tl.load(p_queries + o_query[:, None] + o_c, mask=m_n[:, None] & m_c, other=0)
        # [BLOCK_C, BLOCK_P]
        b_cell = tl.load(p_grid + o_cell + o_c[:, None], mask=m_p & m_c[:, None], other=0)
        b_cost = dot(b_query, b_cell, b_cost)
    o_cost = (i_group * queries + o_n)[:, None] * cells + o_p
    tl.store(p_cost + o_cost, b_cost.to(p_cost.dtype.element_ty), mask=m_n[:, None] & m_p)


def cost_volume(queries: Tensor, grid: Tensor) -> Tensor:
    """As `reference.cost_volume`, accumulated in float32; KernelInputError for tensors that do not fit."""
    sizes = check("cost_volume", Operand("queries", queries, "G N C"), Operand("grid", grid, "G H W C"))
    groups, points, height, width = (sizes[axis] for axis in "GNHW")
    cost = queries.new_empty(groups, points, height, width)
    if cost.numel():
        tiles = _tiles(sizes["C"], queries.dtype)
        programs = triton.cdiv(points, tiles["BLOCK_N"]) * triton.cdiv(height * width, tiles["BLOCK_P"])
        with on(queries.device):
            cost_volume_kernel[programs, groups](queries, grid, cost, points, height * width, **tiles, **OPTIONS)
    return cost


def _tiles(channels: int, dtype: torch.dtype) -> dict[str, int]:
    step = block(channels, 16, ROW_BYTES // dtype.itemsize)
    return {"CHANNELS": channels, "BLOCK_N": QUERIES, "BLOCK_P": CELLS, "BLOCK_C": step}


def compile_cases() -> list[CompileCase]:
    """The coarse grids of `small` and `bootstapir`."""
    return [
        CompileCase(
            f"cost_volume {name} C={channels}",
            cost_volume_kernel,
            {"p_queries": pointer(dtype), "p_grid": pointer(dtype), "p_cost": pointer(dtype)}
            | {"queries": "i32", "cells": "i32"},
            _tiles(channels, dtype),
        )
        for channels in (128, 256)
        for dtype, name in DTYPES.items()
    ]
