"""What the tests share: a tiny model with random weights, and pictures with something to see on them."""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from online_tapir.model.config import TapirConfig
from online_tapir.model.tapir import Tapir

if os.environ.get("TAPIR_TEST_DEVICE", "cpu") == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it while it is imported, whichever test does so first

TINY = TapirConfig(
    name="tiny",
    stem_width=8,
    widths=(8, 16, 24, 24),
    blocks=(1, 1, 1, 1),
    extra_convs=1,
    match_width=4,
    mixer_width=32,
    mixer_depth=2,
    iterations=2,
    initial_resolution=(64, 96),
    peak_inputs=True,
    motion_inputs=True,
)


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
    return TINY


@pytest.fixture
def count_ops() -> type[Ops]:
    return Ops


@pytest.fixture
def make_model() -> Callable[..., Tapir]:
    """A model with random weights, the same for the same seed, whose every part matters to its outputs."""

    def make(config: TapirConfig = TINY, seed: int = 0) -> Tapir:
        torch.manual_seed(seed)
        model = Tapir(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture
def make_frames() -> Callable[..., list[NDArray[np.uint8]]]:
    """Pictures of a smooth texture that slides, uint8 RGB."""

    def make(count: int, height: int = 64, width: int = 96, seed: int = 0) -> list[NDArray[np.uint8]]:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (height // 4 + 8, width // 4 + 8 + count, 3), dtype=np.uint8)
        texture = cv2.resize(coarse, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
        return [np.ascontiguousarray(texture[i : i + height, 3 * i : 3 * i + width]) for i in range(count)]

    return make
