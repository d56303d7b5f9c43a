"""Which path the ops take on a device, and why.

Asks a device once, by launching a kernel on it; never raises for what it finds, that is `require_kernels`' part.
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
    """What runs the ops on `device` (None: the current GPU, or the CPU where there is none).

    The environment variable TAPIR_KERNELS=reference asks for the reference everywhere; ValueError for other values.
    Where a GPU runs the reference, a warning is logged, once a device.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    return _backend(device)


def require_kernels(device: torch.device | str | None = None) -> None:
    """KernelsUnavailableError, with the reason, unless the ops run as Triton kernels on `device` (as in `backend`)."""
    found = backend(device)
    if found.name != "triton":
        raise KernelsUnavailableError(
            f"kernels are required on {device or 'the default device'}, which runs the reference: {found.why}; "
            "give a device that has them, or do not require them"
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
    """What keeps `device` from running kernels; None where nothing does."""
    choice = os.environ.get(ENVIRONMENT, "")
    if choice not in ("", "reference"):
        raise ValueError(f"{ENVIRONMENT}={choice} is no backend; unset it, or set it to reference")
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
    # Whatever is wrong with an installation of Triton or its compilers, there is a way to go on, and it says why.
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
