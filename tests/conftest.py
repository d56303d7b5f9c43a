"""What the tests share: a tiny model with random weights, and pictures with something to see on them."""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from online_tapir import testing
from online_tapir.model.config import TapirConfig
from online_tapir.model.tapir import Tapir

if os.environ.get("TAPIR_TEST_DEVICE", "cpu") == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it while it is imported, whichever test does so first

# However slow the machine is: a thread may be paused for seconds at the worst moment, and no law is about time.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


class Ops(TorchDispatchMode):
    """Counts what torch is told to do."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        self.asked[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.fixture
def tiny_config() -> TapirConfig:
    return testing.tiny_config()


@pytest.fixture
def count_ops() -> type[Ops]:
    return Ops


@pytest.fixture
def make_model() -> Callable[..., Tapir]:
    return testing.tiny_model


@pytest.fixture
def make_frames() -> Callable[..., list[NDArray[np.uint8]]]:
    return testing.sliding_pictures


@pytest.fixture(autouse=True)
def _the_models_own_size_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of the command line prepare no engine and time nothing, unless a test asks for it."""
    monkeypatch.setenv("ONLINE_TAPIR_ENGINE", "torch")
    monkeypatch.setenv("ONLINE_TAPIR_INPUT", "256x256")
