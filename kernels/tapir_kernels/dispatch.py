"""Dispatches each op: plain torch on a CPU, the Triton launcher on devices where `backend` finds that kernels work.

Kernels compute no gradients, so inputs that require one take the plain path. Triton is not imported until an op is
called on a GPU.
"""

from collections.abc import Callable, Iterator
from functools import cache, wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from tapir_kernels import reference
from tapir_kernels.backend import backend

P = ParamSpec("P")
R = TypeVar("R")


def _dispatched(op: Callable[P, R]) -> Callable[P, R]:
    """Calls `op` or its launcher of the same name in `tapir_kernels.gpu`; the first argument must be a tensor."""

    @wraps(op)
    def dispatched(*args: P.args, **kwargs: P.kwargs) -> R:
        device = cast(Tensor, args[0] if args else next(iter(kwargs.values()))).device
        if device.type == "cpu" or backend(device).name == "reference":
            return op(*args, **kwargs)
        if _wants_gradient(*args, *kwargs.values()) or _casts(device.type):
            return op(*args, **kwargs)  # the kernels have no gradient, and take operands of one type
        found: R = _launcher(op.__name__)(*args, **kwargs)
        return found

    return dispatched


def _wants_gradient(*inputs: object) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in _tensors(inputs))


def _casts(device: str) -> bool:
    """Whether autocast gives some operands another type."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _tensors(inputs: tuple[object, ...] | list[object]) -> Iterator[Tensor]:
    for value in inputs:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


@cache
def _launcher(name: str) -> Callable[..., Any]:
    launcher: Callable[..., Any] = getattr(import_module(f"tapir_kernels.gpu.{name}"), name)
    return launcher


cost_volume = _dispatched(reference.cost_volume)
cost_volume_head = _dispatched(reference.cost_volume_head)
instance_norm_relu = _dispatched(reference.instance_norm_relu)
l2_normalize = _dispatched(reference.l2_normalize)
local_correlations = _dispatched(reference.local_correlations)
mixer_step = _dispatched(reference.mixer_step)
resize_rgb8 = _dispatched(reference.resize_rgb8)
