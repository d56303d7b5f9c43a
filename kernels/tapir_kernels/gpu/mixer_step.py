# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# ruff: noqa: N803
"""One frame of the temporal half of a mixer block: a program owns one point and reads and writes its rows once.

Layer norm, three taps over [two remembered inputs, this one], GELU, three taps over the widened frames summed over the
expansion, residual. All arithmetic is in float32; the memory is stored in its own dtype. GELU's tanh form
x (1 + tanh(u)) / 2 is x sigmoid(2 u). Programs on one multiprocessor share the weights in its L1 cache, so a program
with several points would not read less, only use more registers.

The points are those of several lanes, and each lane's phase is read from device memory: one graph serves whichever
lanes have a frame. A program of an idle lane (phase -1) computes like the others, on the slots of phase 0, and writes
only its result, which nobody reads.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from tapir_kernels.gpu.launch import DTYPES, OPTIONS, CompileCase, KernelInputError, Operand, block, check, on, pointer
from tapir_kernels.reference import NORM_EPSILON, TEMPORAL_TAPS

EPSILON = tl.constexpr(NORM_EPSILON)
GELU_SCALE = tl.constexpr(2 * math.sqrt(2 / math.pi))
GELU_CUBIC = tl.constexpr(0.044715)


@triton.jit(do_not_specialize=["rows", "plane"])
def mixer_step_kernel(
    p_x,
    p_memory,
    p_norm,
    p_widen,
    p_widen_bias,
    p_narrow,
    p_narrow_bias,
    p_out,
    p_phase,
    rows,
    plane,
    C: tl.constexpr,
    EXPANSION: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    i_point = tl.program_id(0).to(tl.int64)
    o_c = tl.arange(0, BLOCK_C)
    m_c = o_c < C
    o_x = i_point * C + o_c
    found = tl.load(p_phase + i_point // rows)
    phase = tl.maximum(found, 0)
    o_plane = plane.to(tl.int64) * C  # stride between the four planes; rows of other points may lie in between
    p_older = p_memory + phase * o_plane + o_x
    p_newer = p_memory + (1 - phase) * o_plane + o_x
    p_due = p_memory + (2 + phase) * o_plane + o_x
    p_due_next = p_memory + (3 - phase) * o_plane + o_x

    # [BLOCK_C] each; all loads are issued before the norm waits for the first
    b_x = _row(p_x, o_x, m_c)
    b_older = _row(p_older, 0, m_c)
    b_newer = _row(p_newer, 0, m_c)
    now = _row(p_due, 0, m_c)
    next_ = _row(p_due_next, 0, m_c)

    centred = tl.where(m_c, b_x - tl.sum(b_x, axis=0) / C, 0.0)
    variance = tl.sum(centred * centred, axis=0) / C
    normed = centred * tl.rsqrt(variance + EPSILON) * _row(p_norm, o_c, m_c)

    after = tl.zeros([BLOCK_C], tl.float32)
    for i_m in tl.static_range(EXPANSION):
        o_oldest = i_m * C + o_c
        o_middle = o_oldest + EXPANSION * C
        o_newest = o_middle + EXPANSION * C
        wide = _row(p_widen_bias, o_oldest, m_c) + _row(p_widen, o_oldest, m_c) * b_older
        wide += _row(p_widen, o_middle, m_c) * b_newer
        wide += _row(p_widen, o_newest, m_c) * normed
        wide *= tl.sigmoid(wide * (wide * wide * GELU_CUBIC + 1) * GELU_SCALE)
        after += _row(p_narrow, o_oldest, m_c) * wide
        next_ += _row(p_narrow, o_middle, m_c) * wide
        now += _row(p_narrow, o_newest, m_c) * wide

    mixed = b_x + now + _row(p_narrow_bias, o_c, m_c)
    tl.store(p_out + o_x, mixed.to(p_out.dtype.element_ty), mask=m_c)
    if found >= 0:
        tl.store(p_older, normed.to(p_memory.dtype.element_ty), mask=m_c)
        tl.store(p_due, after.to(p_memory.dtype.element_ty), mask=m_c)
        tl.store(p_due_next, next_.to(p_memory.dtype.element_ty), mask=m_c)


@triton.jit
def _row(p_row, o_row, m_c):
    return tl.load(p_row + o_row, mask=m_c, other=0).to(tl.float32)


def mixer_step(
    x: Tensor,
    memory: Tensor,
    phase: Tensor,
    norm_weight: Tensor,
    widen: Tensor,
    widen_bias: Tensor,
    narrow: Tensor,
    narrow_bias: Tensor,
) -> Tensor:
    """As `reference.mixer_step`; KernelInputError for tensors that do not fit together."""
    sizes = check(
        "mixer_step",
        Operand("x", x, "N C"),
        Operand("memory", memory, "4 N C", layout=None),
        Operand("phase", phase, "S", dtype=torch.int32),
        Operand("norm_weight", norm_weight, "C"),
        Operand("widen", widen, f"{TEMPORAL_TAPS} M C"),
        Operand("widen_bias", widen_bias, "M C"),
        Operand("narrow", narrow, f"{TEMPORAL_TAPS} M C"),
        Operand("narrow_bias", narrow_bias, "C"),
    )
    points, width, lanes = sizes["N"], sizes["C"], sizes["S"]
    if points % lanes:
        raise KernelInputError(f"mixer_step: {points} points are not as many for each of {lanes} lanes; fill them up")
    if memory.stride(0) % width:
        raise KernelInputError(f"mixer_step: memory strides {list(memory.stride())}: first not a multiple of {width}")
    out = torch.empty_like(x)
    block_c, warps = _tile(width)
    with on(x.device):
        mixer_step_kernel[(points,)](
            x,
            memory,
            norm_weight,
            widen,
            widen_bias,
            narrow,
            narrow_bias,
            out,
            phase,
            points // lanes,
            memory.stride(0) // width,
            C=width,
            EXPANSION=sizes["M"],
            BLOCK_C=block_c,
            num_warps=warps,
            **OPTIONS,
        )
    return out


def _tile(width: int) -> tuple[int, int]:
    """Row length and warps of a program: two elements a thread (four spill on sm_120), up to eight warps."""
    block_c = int(triton.next_power_of_2(width))
    return block_c, block(block_c // 64, 1, 8)


def compile_cases() -> list[CompileCase]:
    """Both presets' widths; one binary serves any number of points, of lanes, and both phases."""
    cases = []
    for preset, width in (("small", 192), ("bootstapir", 512)):
        block_c, warps = _tile(width)
        for dtype in DTYPES:
            tensors = ["p_x", "p_memory", "p_norm", "p_widen", "p_widen_bias", "p_narrow", "p_narrow_bias", "p_out"]
            cases.append(
                CompileCase(
                    f"mixer_step {preset} {DTYPES[dtype]}",
                    mixer_step_kernel,
                    {**dict.fromkeys(tensors, pointer(dtype)), "p_phase": "*i32", "rows": "i32", "plane": "i32"},
                    {"C": width, "EXPANSION": 4, "BLOCK_C": block_c},
                    num_warps=warps,
                )
            )
    return cases
