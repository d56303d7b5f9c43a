# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# ruff: noqa: N803
"""Converts a camera picture to a model's size, dtype and range in one pass that reads only the pixels it samples.

A program owns pixels of one output row. Each blends the four pixels around its centre, in float32, as
`torch.nn.functional.interpolate` does with half-pixel centres and no antialiasing.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tapir_kernels.gpu.launch import DTYPES, OPTIONS, CompileCase, KernelInputError, Operand, check, on, pointer

PIXELS = 64  # per program
CHANNELS = tl.constexpr(3)


@triton.jit(do_not_specialize=["height", "width"])
def resize_rgb8_kernel(p_rgb, p_image, height, width, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, PIXELS: tl.constexpr):
    i_row = tl.program_id(1)
    o_x = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    o_c = tl.arange(0, 4)
    m_out = (o_x < WIDTH)[:, None] & (o_c < CHANNELS)[None, :]

    y = tl.maximum((i_row + 0.5) * tl.div_rn(height.to(tl.float32), HEIGHT * 1.0) - 0.5, 0.0)
    x = tl.maximum((o_x + 0.5) * tl.div_rn(width.to(tl.float32), WIDTH * 1.0) - 0.5, 0.0)
    top = tl.minimum(y.to(tl.int32), height - 1)
    left = tl.minimum(x.to(tl.int32), width - 1)
    down = y - top.to(tl.float32)
    across = (x - left.to(tl.float32))[:, None]
    bottom = tl.minimum(top + 1, height - 1)
    right = tl.minimum(left + 1, width - 1)

    p_top = p_rgb + top.to(tl.int64) * width * CHANNELS
    p_bottom = p_rgb + bottom.to(tl.int64) * width * CHANNELS
    o_left = left[:, None] * CHANNELS + o_c[None, :]  # [PIXELS, 4]
    o_right = right[:, None] * CHANNELS + o_c[None, :]
    upper = _between(p_top, o_left, o_right, across, m_out)
    lower = _between(p_bottom, o_left, o_right, across, m_out)
    image = (upper + (lower - upper) * down) * (2 / 255) - 1
    o_image = (i_row * WIDTH + o_x)[:, None] * CHANNELS + o_c[None, :]
    tl.store(p_image + o_image, image.to(p_image.dtype.element_ty), mask=m_out)


@triton.jit
def _between(p_row, o_left, o_right, across, m_out):
    left = tl.load(p_row + o_left, mask=m_out, other=0).to(tl.float32)
    right = tl.load(p_row + o_right, mask=m_out, other=0).to(tl.float32)
    return left + (right - left) * across


def resize_rgb8(rgb: Tensor, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """As `reference.resize_rgb8`, blended in float32; KernelInputError for other input."""
    sizes = check("resize_rgb8", Operand("rgb", rgb, "H W 3", torch.uint8))
    if dtype not in DTYPES or min(*size, sizes["H"], sizes["W"]) < 1:
        raise KernelInputError(f"resize_rgb8: the kernel cannot resize {list(rgb.shape)} to {list(size)} in {dtype}")
    height, width = size
    image = torch.empty(1, 3, height, width, dtype=dtype, device=rgb.device, memory_format=torch.channels_last)
    with on(rgb.device):
        resize_rgb8_kernel[(triton.cdiv(width, PIXELS), height)](
            rgb, image, sizes["H"], sizes["W"], HEIGHT=height, WIDTH=width, PIXELS=PIXELS, **OPTIONS
        )
    return image


def compile_cases() -> list[CompileCase]:
    """From any size to the presets' initial resolution."""
    return [
        CompileCase(
            f"resize_rgb8 256x256 {name}",
            resize_rgb8_kernel,
            {"p_rgb": "*u8", "p_image": pointer(dtype), "height": "i32", "width": "i32"},
            {"HEIGHT": 256, "WIDTH": 256, "PIXELS": PIXELS},
        )
        for dtype, name in DTYPES.items()
    ]
