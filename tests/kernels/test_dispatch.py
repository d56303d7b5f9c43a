"""Every op takes the kernel where there is one to take, and the reference everywhere else."""

import inspect
import sys
from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from torch import Tensor

import tapir_kernels
from tapir_kernels import dispatch, reference

OPS = [name for name, op in vars(dispatch).items() if hasattr(reference, name) and inspect.isfunction(op)]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ops whose kernel was taken; the meta device stands in for a GPU."""
    names: list[str] = []

    def launcher(name: str) -> Callable[..., Tensor]:
        def launch(*inputs: object) -> Tensor:
            names.append(name)
            return torch.ones(1)

        return launch

    found = sys.modules["tapir_kernels.backend"].Backend("triton", "a test")
    monkeypatch.setattr(dispatch, "backend", lambda device: found)
    monkeypatch.setattr(dispatch, "_launcher", launcher)
    return names


@pytest.mark.parametrize("name", OPS)
def test_a_kernel_has_the_name_and_the_signature_of_its_reference(name: str) -> None:
    kernel = getattr(import_module(f"tapir_kernels.gpu.{name}"), name)
    wanted = inspect.signature(getattr(reference, name))
    assert list(inspect.signature(kernel).parameters) == list(wanted.parameters)
    assert inspect.signature(getattr(tapir_kernels, name)) == wanted


def test_every_public_op_is_there() -> None:
    assert {"cost_volume", "cost_volume_head", "local_correlations", "mixer_step"} <= set(OPS)
    assert all(hasattr(tapir_kernels, name) for name in tapir_kernels.__all__)


def test_a_gpu_takes_the_kernel(taken: list[str]) -> None:
    queries, grid = torch.ones(1, 2, 4, device="meta"), torch.ones(1, 3, 3, 4, device="meta")
    tapir_kernels.cost_volume(queries, grid)
    tapir_kernels.local_correlations(queries, [grid, grid], queries, (8, 8))
    assert taken == ["cost_volume", "local_correlations"]


def test_a_cpu_takes_the_reference(taken: list[str]) -> None:
    assert tapir_kernels.cost_volume(torch.ones(1, 2, 4), torch.ones(1, 3, 3, 4)).eq(4).all()
    assert tapir_kernels.cost_volume(grid=torch.ones(1, 3, 3, 4), queries=torch.ones(1, 2, 4)).eq(4).all()
    assert not taken


def test_what_wants_a_gradient_takes_the_reference(taken: list[str]) -> None:
    queries = torch.ones(1, 2, 4, device="meta")
    learned = torch.ones(1, 3, 3, 4, device="meta", requires_grad=True)
    assert tapir_kernels.cost_volume(queries, learned).requires_grad
    in_a_list = [learned.detach(), learned]
    assert dispatch._wants_gradient(queries, in_a_list, 3)
    with torch.no_grad():
        tapir_kernels.cost_volume(queries, learned)
    assert taken == ["cost_volume"]


def test_new_memory_holds_nan_in_these_tests() -> None:
    x = torch.ones(3)
    for new in (torch.empty(7), torch.empty_like(x), x.new_empty(5), torch.empty(2, dtype=torch.float16)):
        assert new.isnan().all()
