"""Which path the ops take on a device, and why.

Probes each device once, by launching a kernel on it. Only `require_kernels` raises if kernels do not work.
"""

import logging
import os
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

ENVIRONMENT = "TAPIR_KERNELS"
OLDEST_CAPABILITY = (8, 0)
OLDEST_TRITON = (3, 6)

logger = logging.getLogger(__name__)


class KernelsUnavailableError(RuntimeError):
    """Kernels were required on a device that runs the reference."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The path that the ops take on a device, and why, in one line."""

    name: Literal["triton", "reference"]
    why: str


def backend(device: torch.device | str | None = None) -> Backend:
    """What runs the ops on `device` (None: the current GPU, or the CPU if there is none).

    The environment variable TAPIR_KERNELS=reference selects the reference everywhere; ValueError for other values.
    Logs a warning, once per device, if a GPU runs the reference.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    return _backend(device)


def require_kernels(device: torch.device | str | None = None) -> None:
    """Raises KernelsUnavailableError, with the reason, unless `device` (as in `backend`) runs Triton kernels."""
    found = backend(device)
    if found.name != "triton":
        raise KernelsUnavailableError(
            f"kernels are required on {device or 'the default device'}, which runs the reference: {found.why}; "
            "choose a device that runs them, or do not require them"
        )


@cache
def _backend(device: torch.device) -> Backend:
    obstacle = _obstacle(device)
    if obstacle is None:
        return Backend("triton", f"{_name(device)} launches Triton kernels")
    if device.type != "cpu":
        logger.warning("%s runs the reference path, slower than kernels: %s", device, obstacle)
    return Backend("reference", obstacle)


def _obstacle(device: torch.device) -> str | None:
    """Why `device` cannot run kernels; None if it can."""
    choice = os.environ.get(ENVIRONMENT, "")
    if choice not in ("", "reference"):
        raise ValueError(f"{ENVIRONMENT}={choice} is not a backend; unset it, or set it to reference")
    if choice:
        return f"{ENVIRONMENT}={choice}"
    if device.type not in ("cpu", "cuda"):
        return f"{device.type} devices have no kernels"
    if not torch.cuda.is_available():
        return "no CUDA device"
    if device.type == "cpu":
        return "kernels are for GPUs"
    return _old_device(device) or _broken_triton(device)


def _old_device(device: torch.device) -> str | None:
    if torch.version.hip is not None:
        return None
    found = torch.cuda.get_device_capability(device)
    if found >= OLDEST_CAPABILITY:
        return None
    return f"compute capability {_dotted(found)} is older than {_dotted(OLDEST_CAPABILITY)}"


def _broken_triton(device: torch.device) -> str | None:
    # However Triton or its compilers are broken, the reference still works; report why it is used.
    try:
        import triton
    except ModuleNotFoundError as error:
        return f"triton is not installed: {error}"
    except Exception as error:
        return f"triton cannot be imported: {_one_line(error)}"
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < OLDEST_TRITON:
        return f"triton {triton.__version__} is older than {_dotted(OLDEST_TRITON)}"
    try:
        from tapir_kernels.gpu.launch import probe

        probe(device)
    except Exception as error:
        return f"triton cannot compile: {_one_line(error)}"
    return None


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
