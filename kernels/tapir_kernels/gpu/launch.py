# mypy: allow-untyped-defs, allow-untyped-decorators
"""Shared by all launchers: input checks, the dot product, and descriptions of kernels to compile without a GPU.

Refuses shapes, dtypes, devices and strides that a kernel would misread.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.backends.compiler import GPUTarget

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)  # TRITON_INTERPRET=1: kernels run on CPU tensors
DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
LAYOUTS = {torch.contiguous_format: "contiguous", torch.channels_last: "channels-last"}
OPTIONS = {"enable_fp_fusion": True}  # for every launch; set explicitly because Triton's default is about to change
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


class KernelInputError(ValueError):
    """Raised for tensors that an op's kernel cannot take, alone or together."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor and what a launcher expects of it.

    `axes` names its axes: "G H W C". A number is a fixed size; a number before a letter, a multiple: "2K K 3 3".
    dtype None: that of the first operand, any of DTYPES. layout None: contiguous, with any stride along the first axis.
    """

    name: str
    tensor: Tensor
    axes: str
    dtype: torch.dtype | None = None
    layout: torch.memory_format | None = torch.contiguous_format


@dataclass(frozen=True, slots=True)
class CompileCase:
    """A kernel as a preset launches it: enough to compile it for any target without a GPU."""

    name: str
    kernel: Any  # a @triton.jit function
    signature: Mapping[str, str]  # types of the non-constexpr arguments, in order: "*fp16", "i32", "fp32"
    constexprs: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 3


def check(op: str, *operands: Operand) -> dict[str, int]:
    """The size of every axis letter; KernelInputError, naming both operands, if two do not fit together."""
    first = operands[0]
    _require(
        first.dtype is not None or first.tensor.dtype in DTYPES,
        f"{op}: {first.name} is {_short(first.tensor.dtype)}; kernels take {', '.join(map(_short, DTYPES))}",
    )
    _require(
        INTERPRETED.value or first.tensor.device.type == "cuda",
        f"{op}: {first.name} is on {first.tensor.device}; kernels run on a GPU, tapir_kernels.{op} runs anywhere",
    )
    sizes: dict[str, int] = {}
    owners: dict[str, Operand] = {}
    for operand in operands:
        _check_tensor(op, operand, first)
        _check_axes(op, operand, sizes, owners)
    return sizes


def _check_tensor(op: str, operand: Operand, first: Operand) -> None:
    tensor, name = operand.tensor, operand.name
    if tensor.device != first.tensor.device:
        raise KernelInputError(
            f"{op}: {first.name} is on {first.tensor.device} and {name} on {tensor.device}; move one to the other"
        )
    if operand.dtype is None and tensor.dtype != first.tensor.dtype:
        raise KernelInputError(
            f"{op}: {first.name} is {_short(first.tensor.dtype)} and {name} {_short(tensor.dtype)}; convert one"
        )
    if operand.dtype is not None and tensor.dtype != operand.dtype:
        raise KernelInputError(f"{op}: {name} is {_short(tensor.dtype)}, not {_short(operand.dtype)}; convert it")
    if tensor.ndim != len(operand.axes.split()):
        raise KernelInputError(
            f"{op}: {name} has {tensor.ndim} axes, {list(tensor.shape)}; it should be {_listed(operand.axes)}"
        )
    part = tensor if operand.layout is not None else tensor[:1].squeeze(0)
    layout = operand.layout or torch.contiguous_format
    if not part.is_contiguous(memory_format=layout):
        raise KernelInputError(
            f"{op}: {name} {list(tensor.shape)} has strides {list(tensor.stride())}, not those of a "
            f"{LAYOUTS[layout]} tensor; make it one"
        )


def _check_axes(op: str, operand: Operand, sizes: dict[str, int], owners: dict[str, Operand]) -> None:
    """Checks the operand's sizes against those known so far, and adds new ones to them."""
    for axis, found in zip(operand.axes.split(), operand.tensor.shape, strict=True):
        letter = axis.lstrip("0123456789")
        factor = int(axis.removesuffix(letter) or 1)
        if letter and letter not in sizes and found % factor == 0:
            sizes[letter], owners[letter] = found // factor, operand
        wanted = factor * sizes.get(letter, 1)
        if found != wanted:
            owner = owners.get(letter)
            beside = f" as in {owner.name} {list(owner.tensor.shape)} {_listed(owner.axes)}" if owner else ""
            raise KernelInputError(
                f"{op}: {operand.name} {list(operand.tensor.shape)} {_listed(operand.axes)} has {axis} = {found}, "
                f"not {wanted}{beside}"
            )


def _require(fact: bool, message: str) -> None:
    if not fact:
        raise KernelInputError(message)


def _listed(axes: str) -> str:
    return f"[{', '.join(axes.split())}]"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Makes `device` the current device in the block, which is where Triton launches."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def pointer(dtype: torch.dtype) -> str:
    """The type of a pointer to `dtype` in the signature of a CompileCase."""
    return f"*{DTYPES[dtype]}"


def block(size: int, smallest: int, largest: int) -> int:
    """A tile's length along an axis of `size`: a power of two from `smallest` to `largest`."""
    return int(min(max(triton.next_power_of_2(size), smallest), largest))


@triton.jit
def dot(a, b, acc):
    """acc [M, N] + a [M, K] times b [K, N], accumulated in float32; float32 inputs keep full precision."""
    if INTERPRETED:  # the interpreter multiplies the bit patterns of bfloat16
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def _add_one(p_x):
    tl.store(p_x, tl.load(p_x) + 1)


def probe(device: torch.device) -> None:
    """Launches a kernel on `device` and checks its result: RuntimeError if wrong; Triton's errors pass through."""
    x = torch.ones(1, device=device)
    with on(device):
        _add_one[(1,)](x, **OPTIONS)
    if x.item() != 2:
        raise RuntimeError(f"a kernel that adds 1 to 1 gave {x.item()} on {device}")
