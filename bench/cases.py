"""Every op at a preset's shapes, with its minimum bytes moved and its FLOPs. Needs only torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from bench.rates import Limits, median_ms
from online_tapir.model.config import LOWRES_GROUP, NEIGHBOURS, TapirConfig
from tapir_kernels import TEMPORAL_TAPS, reference

FRAME = (480, 640)  # height, width of a camera frame
STRIDES = (2, 4, 8, 8)  # of the backbone's four groups


@dataclass(frozen=True, slots=True)
class OpCase:
    """One call of an op."""

    op: str
    shape: str  # in words
    inputs: tuple[Any, ...]
    bytes_moved: int  # minimum: each input and output once
    flops: int

    def kernel(self) -> Any:
        """Runs the op's Triton kernel on the inputs' device; on a CPU this needs Triton's interpreter."""
        return getattr(import_module(f"tapir_kernels.gpu.{self.op}"), self.op)(*self.inputs)

    def reference(self) -> Any:
        return getattr(reference, self.op)(*self.inputs)


@dataclass(frozen=True, slots=True)
class OpTime:
    """A case's median times and its lower bound."""

    op: str
    shape: str
    kernel_ms: float | None  # None if only the reference was run
    reference_ms: float
    limit_ms: float
    difference: float | None  # largest absolute difference between kernel and reference


def timed(case: OpCase, device: torch.device, limits: Limits, seconds: float, kernels: bool) -> OpTime:
    """Times a case's kernel, then its reference. Without `kernels`, only the reference."""
    difference = _difference(case) if kernels else None
    kernel_ms = round(median_ms(case.kernel, device, seconds), 5) if kernels else None
    reference_ms = round(median_ms(case.reference, device, seconds), 5)
    limit_ms = round(limits.ms(case.bytes_moved, case.flops), 5)
    return OpTime(case.op, case.shape, kernel_ms, reference_ms, limit_ms, difference)


def op_cases(
    config: TapirConfig, points: int, device: torch.device, dtype: torch.dtype, frame: tuple[int, int] = FRAME
) -> Iterator[OpCase]:
    """Yields cases lazily, so that only one needs to be in memory at a time."""
    make = _Maker(device, dtype)
    height, width = config.initial_resolution
    rgb = torch.randint(0, 256, (*frame, 3), dtype=torch.uint8, device=device)
    yield make.case("resize_rgb8", f"{frame[1]}x{frame[0]} to {width}x{height}", rgb, (height, width), dtype)
    for group, (channels, stride) in enumerate(zip(config.widths, STRIDES, strict=True)):
        picture = make(1, channels, height // stride, width // stride).contiguous(memory_format=torch.channels_last)
        shape = f"{height // stride}x{width // stride}x{channels}"
        yield make.case("instance_norm_relu", shape, picture, make(channels), make(channels))
        if group in config.described_by:
            yield make.case("l2_normalize", shape, picture)
    yield from _matching(config, points, make)
    yield from _refinement(config, points, make)


def _matching(config: TapirConfig, points: int, make: "_Maker") -> Iterator[OpCase]:
    height, width = (side // STRIDES[LOWRES_GROUP] for side in config.initial_resolution)
    channels, planes, hidden = config.lowres_channels, config.match_planes, config.match_width
    cells = height * width
    queries, grid = make(1, points, channels), make(1, height, width, channels)
    shape = f"{points} points, {height}x{width}x{channels}"
    yield make.case("cost_volume", shape, queries, grid, flops=2 * points * cells * channels)
    weights = [make(hidden, planes, 3, 3), make(hidden), make(1, hidden, 3, 3), make(1)]
    weights += [make(2 * hidden, hidden, 3, 3), make(2 * hidden)]
    macs = 9 * hidden * (planes + 1 + 2 * hidden // 4)  # per cell
    cost = make(points, planes, height, width)
    shape = f"{points} points, {planes} x {height}x{width}"
    yield make.case(
        "cost_volume_head", shape, cost, *weights, config.softmax_temperature, flops=2 * points * cells * macs
    )


def _refinement(config: TapirConfig, points: int, make: "_Maker") -> Iterator[OpCase]:
    size = config.initial_resolution
    strides = [STRIDES[group] for group in config.described_by]
    channels = config.described_channels
    for _ in range(config.pyramid_levels):
        strides.append(strides[-1] * 2)
        channels = [*channels, channels[-1]]
    levels = [make(1, size[0] // s, size[1] // s, c) for s, c in zip(strides, channels, strict=True)]
    xy = torch.rand(1, points, 2, device=make.device) * (torch.tensor(size[::-1], device=make.device))
    shape = f"{points} points, {len(levels)} levels"
    flops = 2 * 64 * points * sum(channels)
    features = make(1, points, config.feature_channels)
    yield make.case("local_correlations", shape, features, levels, xy, size, flops=flops)
    if config.neighbour_grids:
        around = NEIGHBOURS * points
        looks, fine = make(1, around, config.neighbour_channels), levels[: config.neighbour_grids]
        shape = f"{NEIGHBOURS} neighbours of {points} points, {len(fine)} levels"
        flops = 2 * 64 * around * config.neighbour_channels
        yield make.case("local_correlations", shape, looks, fine, xy, size, flops=flops)
    wide, taps, more = config.mixer_width, TEMPORAL_TAPS, config.mixer_expansion
    memory, phase = make(4, points, wide), torch.zeros(1, dtype=torch.int32, device=make.device)
    weights = [make(wide), make(taps, more, wide), make(more, wide), make(taps, more, wide), make(wide)]
    written = memory.nbytes * 3 // 4
    flops = points * wide * more * (4 * taps + 10)
    shape = f"{points} points, {wide} wide"
    yield make.case("mixer_step", shape, make(points, wide), memory, phase, *weights, flops=flops, written=written)


class _Maker:
    """Makes random tensors of one dtype on one device, and cases from them."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self._dtype = device, dtype

    def __call__(self, *shape: int) -> Tensor:
        scale: float = shape[-1] ** -0.5
        return torch.randn(shape, device=self.device).mul_(scale).to(self._dtype)

    def case(self, op: str, shape: str, *inputs: Any, flops: int = 0, written: int = 0) -> OpCase:
        """`written`: bytes of inputs that are updated in place."""
        outputs = getattr(reference, op)(*inputs)
        moved = sum(tensor.nbytes for tensor in (*_tensors(inputs), *_tensors((outputs,))))
        return OpCase(op, shape, inputs, moved + written, flops)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _difference(case: OpCase) -> float:
    """Largest absolute difference between kernel and reference, each run on its own copy of the inputs."""
    found, wanted = (_outcome(case, path) for path in (OpCase.kernel, OpCase.reference))
    pairs = zip(found, wanted, strict=True)
    return float(f"{max(float((a.float() - b.float()).abs().max()) for a, b in pairs):.2g}")


def _outcome(case: OpCase, path: Callable[[OpCase], Any]) -> list[Tensor]:
    inputs = tuple(value.clone() if isinstance(value, Tensor) else value for value in case.inputs)
    own = OpCase(case.op, case.shape, inputs, 0, 0)
    return [*_tensors((path(own),)), *_tensors(inputs)]
