# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# ruff: noqa: N803
"""Scales channels-last pixels to unit length over channels; a program owns whole pixels. Lengths are in float32."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tapir_kernels.gpu.launch import DTYPES, OPTIONS, CompileCase, Operand, check, on, pointer
from tapir_kernels.reference import UNIT_EPSILON

EPSILON = tl.constexpr(UNIT_EPSILON)
BLOCK = 2048  # elements per program, 16 a thread


@triton.jit(do_not_specialize=["pixels"])
def l2_normalize_kernel(p_x, p_out, pixels, C: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr):
    o_p = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    o_c = tl.arange(0, BLOCK_C)
    m_x = (o_p < pixels)[:, None] & (o_c < C)[None, :]
    o_x = o_p[:, None] * C + o_c[None, :]
    # [ROWS, BLOCK_C]
    b_x = tl.load(p_x + o_x, mask=m_x, other=0).to(tl.float32)
    square = tl.sum(b_x * b_x, axis=1)  # [ROWS]
    scale = tl.rsqrt(tl.maximum(square, EPSILON, propagate_nan=tl.PropagateNan.ALL))
    tl.store(p_out + o_x, (b_x * scale[:, None]).to(p_out.dtype.element_ty), mask=m_x)


def l2_normalize(x: Tensor) -> Tensor:
    """As `reference.l2_normalize`, for channels-last x; KernelInputError for other strides."""
    sizes = check("l2_normalize", Operand("x", x, "B C H W", layout=torch.channels_last))
    pixels, channels = sizes["B"] * sizes["H"] * sizes["W"], sizes["C"]
    out = torch.empty_like(x)
    tile = _tile(channels)
    with on(x.device):
        l2_normalize_kernel[(triton.cdiv(pixels, tile["ROWS"]),)](x, out, pixels, C=channels, **tile, **OPTIONS)
    return out


def _tile(channels: int) -> dict[str, int]:
    block_c = triton.next_power_of_2(channels)
    return {"ROWS": max(BLOCK // block_c, 1), "BLOCK_C": block_c}


def compile_cases() -> list[CompileCase]:
    """The channels of both presets' fine and coarse grids."""
    return [
        CompileCase(
            f"l2_normalize {channels} channels {DTYPES[dtype]}",
            l2_normalize_kernel,
            {"p_x": pointer(dtype), "p_out": pointer(dtype), "pixels": "i32"},
            {"C": channels, **_tile(channels)},
        )
        for channels in (64, 128, 256)
        for dtype in DTYPES
    ]
