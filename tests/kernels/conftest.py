"""Kernels under test run in Triton's interpreter, on CPU tensors; TAPIR_TEST_DEVICE=cuda compiles and runs them there.

Memory that an op allocates holds NaN until it is written.
"""

import os
from collections.abc import Iterator

import pytest
import torch

DEVICE = torch.device(os.environ.get("TAPIR_TEST_DEVICE", "cpu"))
if DEVICE.type != "cpu":
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it the fixture below makes cuBLAS refuse


@pytest.fixture
def device() -> torch.device:
    """Where the tensors of a kernel's test live."""
    return DEVICE


@pytest.fixture(autouse=True)
def _nan_in_new_memory() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # it is this that fills what torch.empty and its kin give
    yield
    torch.use_deterministic_algorithms(False)
