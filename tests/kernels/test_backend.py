"""Which path the ops take, and why, on devices that are not here."""

import logging
import subprocess
import sys
import types
from collections.abc import Iterator

import pytest
import torch

from tapir_kernels import KernelsUnavailableError, backend, require_kernels

module = sys.modules["tapir_kernels.backend"]  # the package's name for it is the function
GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _ask_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("TAPIR_KERNELS", raising=False)
    module._backend.cache_clear()
    yield
    module._backend.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU that nothing is wrong with, as far as it is asked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    monkeypatch.setattr("tapir_kernels.gpu.launch.probe", lambda device: None)


def test_a_machine_without_a_gpu_runs_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert backend() == backend("cpu") == module.Backend("reference", "no CUDA device")


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_launches_runs_triton() -> None:
    assert backend("cuda") == backend() == module.Backend("triton", "H100 launches Triton kernels")
    require_kernels("cuda")
    assert backend("cpu") == module.Backend("reference", "kernels are for GPUs")


@pytest.mark.usefixtures("gpu")
def test_an_old_gpu_runs_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert backend(GPU).why == "compute capability 6.1 is older than 8.0"
    module._backend.cache_clear()
    monkeypatch.setattr(torch.version, "hip", "7.0")  # whose numbers are others
    assert backend(GPU).name == "triton"


@pytest.mark.usefixtures("gpu")
def test_a_machine_without_triton_runs_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert backend(GPU).why.startswith("triton is not installed")


@pytest.mark.usefixtures("gpu")
def test_an_old_triton_runs_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", types.SimpleNamespace(__version__="3.2.0+git1"))
    assert backend(GPU).why == "triton 3.2.0+git1 is older than 3.6"


@pytest.mark.usefixtures("gpu")
def test_a_triton_that_cannot_compile_is_found_once_and_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def broken(device: torch.device) -> None:
        asked.append(device)
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr("tapir_kernels.gpu.launch.probe", broken)
    with caplog.at_level(logging.WARNING, "tapir_kernels"):
        found = [backend("cuda"), backend(GPU), backend()]
    why = "triton cannot compile: RuntimeError: Failed to find C compiler. Please specify via CC"
    assert found == 3 * [module.Backend("reference", why)]
    assert asked == [GPU]
    assert [record.getMessage() for record in caplog.records] == [
        f"cuda:0 runs the reference path, slower than kernels: {why}"
    ]
    with pytest.raises(KernelsUnavailableError, match="required on cuda, which runs the reference: triton cannot"):
        require_kernels("cuda")


@pytest.mark.usefixtures("gpu")
def test_the_environment_can_ask_for_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPIR_KERNELS", "reference")
    assert backend(GPU) == module.Backend("reference", "TAPIR_KERNELS=reference")


def test_the_environment_cannot_ask_for_what_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPIR_KERNELS", "cutlass")
    with pytest.raises(ValueError, match="TAPIR_KERNELS=cutlass is not a backend; unset it"):
        backend("cpu")


def test_devices_of_other_kinds_run_the_reference() -> None:
    assert backend("meta").why == "meta devices have no kernels"


def test_the_probe_launches_a_kernel(device: torch.device) -> None:
    from tapir_kernels.gpu import launch

    launch.probe(device)


def test_importing_and_asking_on_a_cpu_brings_no_triton() -> None:
    script = (
        f"import sys; sys.path[:] = {sys.path!r}; import tapir_kernels, torch; tapir_kernels.backend('cpu'); "
        "tapir_kernels.cost_volume(torch.ones(1, 2, 4), torch.ones(1, 3, 3, 4)); print('triton' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
