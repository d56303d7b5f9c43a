# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# ruff: noqa: N803
"""Instance norm and ReLU of channels-last images, in two launches so that a single image fills the GPU.

A program owns a strip of pixels by a block of channels. The first launch computes the mean of every strip and the sum
of squares around that mean, which avoids cancellation. The second combines these into the image's mean and variance
(Chan, Golub and LeVeque 1979) and normalises its strip. Statistics are in float32.
"""

import itertools
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from tapir_kernels.gpu.launch import DTYPES, OPTIONS, CompileCase, Operand, block, check, on, pointer
from tapir_kernels.reference import NORM_EPSILON

EPSILON = tl.constexpr(NORM_EPSILON)
MOST_STRIPS = 64  # every program of the second launch reads all strips' moments: 16 KiB for 64
BLOCK_C = 32  # 64 bytes a pixel in half precision, two sectors
SHORTEST_TILE, LONGEST_TILE = 64, 256  # pixels: at most 32 elements a thread


@triton.jit(do_not_specialize=["pixels"])
def moments_kernel(
    p_x,
    p_moments,
    pixels,
    C: tl.constexpr,
    STRIPS: tl.constexpr,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    i_strip = tl.program_id(0)
    i_batch = tl.program_id(2).to(tl.int64)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    p_picture = p_x + i_batch * pixels * C
    start = i_strip * (TILES * TILE)
    count = tl.minimum(pixels - start, TILES * TILE)

    total = tl.zeros([TILE, BLOCK_C], tl.float32)
    for i_tile in range(TILES):
        o_x, m_x = _tile(start + i_tile * TILE, pixels, o_c, C, TILE)
        total += tl.load(p_picture + o_x, mask=m_x, other=0).to(tl.float32)
    mean = tl.sum(total, axis=0) / count  # [BLOCK_C]
    spread = tl.zeros([TILE, BLOCK_C], tl.float32)
    for i_tile in range(TILES):  # from the cache
        o_x, m_x = _tile(start + i_tile * TILE, pixels, o_c, C, TILE)
        b_x = tl.load(p_picture + o_x, mask=m_x, other=0).to(tl.float32)
        centred = tl.where(m_x, b_x - mean[None, :], 0.0)
        spread += centred * centred

    p_mean = p_moments + (i_batch * 2 * STRIPS + i_strip) * C + o_c
    tl.store(p_mean, mean, mask=o_c < C)
    tl.store(p_mean + STRIPS * C, tl.sum(spread, axis=0), mask=o_c < C)


@triton.jit(do_not_specialize=["pixels"])
def instance_norm_relu_kernel(
    p_x,
    p_moments,
    p_weight,
    p_bias,
    p_out,
    pixels,
    C: tl.constexpr,
    STRIPS: tl.constexpr,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    i_strip = tl.program_id(0)
    i_batch = tl.program_id(2).to(tl.int64)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C

    o_s = tl.arange(0, BLOCK_S)
    m_moments = (o_s < STRIPS)[:, None] & m_c[None, :]
    p_mean = p_moments + i_batch * 2 * STRIPS * C + o_s[:, None] * C + o_c[None, :]
    # [BLOCK_S, BLOCK_C]
    b_mean = tl.load(p_mean, mask=m_moments, other=0)
    b_spread = tl.load(p_mean + STRIPS * C, mask=m_moments, other=0)
    count = tl.maximum(tl.minimum(pixels - o_s * (TILES * TILE), TILES * TILE), 0).to(tl.float32)[:, None]
    mean = tl.sum(b_mean * (count / pixels), axis=0)  # [BLOCK_C]
    away = b_mean - mean[None, :]
    variance = tl.sum(b_spread + count * away * away, axis=0) / pixels
    scale = tl.rsqrt(variance + EPSILON) * tl.load(p_weight + o_c, mask=m_c, other=0).to(tl.float32)
    shift = tl.load(p_bias + o_c, mask=m_c, other=0).to(tl.float32)

    for i_tile in range(TILES):
        o_x, m_x = _tile(i_strip * (TILES * TILE) + i_tile * TILE, pixels, o_c, C, TILE)
        o_x += i_batch * pixels * C
        b_x = tl.load(p_x + o_x, mask=m_x, other=0).to(tl.float32)
        normed = (b_x - mean[None, :]) * scale[None, :] + shift[None, :]
        normed = tl.maximum(normed, 0.0, propagate_nan=tl.PropagateNan.ALL)
        tl.store(p_out + o_x, normed.to(p_out.dtype.element_ty), mask=m_x)


@triton.jit
def _tile(start, pixels, o_c, C: tl.constexpr, TILE: tl.constexpr):
    """Offsets [TILE, BLOCK_C] into one image for pixels from `start` on, and the mask of those that exist."""
    o_p = start + tl.arange(0, TILE)
    return o_p.to(tl.int64)[:, None] * C + o_c[None, :], (o_p < pixels)[:, None] & (o_c < C)[None, :]


def instance_norm_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As `reference.instance_norm_relu`, for channels-last x; KernelInputError for tensors that do not fit."""
    sizes = check(
        "instance_norm_relu",
        Operand("x", x, "B C H W", layout=torch.channels_last),
        Operand("weight", weight, "C"),
        Operand("bias", bias, "C"),
    )
    batch, channels, pixels = sizes["B"], sizes["C"], sizes["H"] * sizes["W"]
    if not x.numel():
        return torch.empty_like(x)
    strips = _strips(pixels)
    moments = torch.empty(batch, 2, strips.count, channels, device=x.device)  # means, then sums of squares around them
    out = torch.empty_like(x)
    grid = (strips.count, triton.cdiv(channels, BLOCK_C), batch)
    shape = {"C": channels, "STRIPS": strips.count, "TILES": strips.tiles, "TILE": strips.tile, "BLOCK_C": BLOCK_C}
    with on(x.device):
        moments_kernel[grid](x, moments, pixels, **shape, num_warps=strips.warps, **OPTIONS)
        instance_norm_relu_kernel[grid](
            x, moments, weight, bias, out, pixels, **shape, BLOCK_S=strips.block, num_warps=strips.warps, **OPTIONS
        )
    return out


@dataclass(frozen=True, slots=True)
class Strips:
    """How the pixels of an image are split between programs."""

    count: int
    tiles: int  # per strip, processed in sequence
    tile: int  # pixels per tile
    warps: int

    @property
    def block(self) -> int:
        return int(triton.next_power_of_2(self.count))


def _strips(pixels: int) -> Strips:
    tile = block(triton.cdiv(pixels, MOST_STRIPS), SHORTEST_TILE, LONGEST_TILE)
    tiles = triton.cdiv(pixels, MOST_STRIPS * tile)
    return Strips(triton.cdiv(pixels, tiles * tile), tiles, tile, 4 if tile < LONGEST_TILE else 8)


def compile_cases() -> list[CompileCase]:
    """Each preset's first and last layers at 256x256, and the first at 512x512."""
    cases = []
    layers = [("small", 128, 32), ("small", 32, 128), ("bootstapir", 128, 64), ("bootstapir", 32, 256)]
    for (preset, side, channels), dtype in itertools.product([*layers, ("bootstapir", 256, 64)], DTYPES):
        strips = _strips(side**2)
        shape = {"C": channels, "STRIPS": strips.count, "TILES": strips.tiles, "TILE": strips.tile, "BLOCK_C": BLOCK_C}
        name = f"{preset} {side}x{side}x{channels} {DTYPES[dtype]}"
        x, moments = pointer(dtype), pointer(torch.float32)
        cases += [
            CompileCase(
                f"instance_norm_relu moments {name}",
                moments_kernel,
                {"p_x": x, "p_moments": moments, "pixels": "i32"},
                shape,
                strips.warps,
            ),
            CompileCase(
                f"instance_norm_relu {name}",
                instance_norm_relu_kernel,
                {"p_x": x, "p_moments": moments, "p_weight": x, "p_bias": x, "p_out": x, "pixels": "i32"},
                {**shape, "BLOCK_S": strips.block},
                strips.warps,
            ),
        ]
    return cases
