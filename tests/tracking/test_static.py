"""What a capture as a CUDA graph would refuse is not in a frame's stages, and a kernel takes what the model hands it.

The meta device stands in for a GPU: nothing is computed, but a tensor has its shape, strides, type and device, mixes
with none of the host's, and cannot be asked for its values.
"""

import importlib
import pkgutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from online_tapir.model.clip import track_clip
from online_tapir.model.config import PRESETS, TapirConfig
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import Tapir, phase_of
from online_tapir.model.taps import Taps
from online_tapir.tracking.feature_window import FeatureRings
from online_tapir.tracking.static import StaticStages
from tapir_kernels import Backend, dispatch

GPU = torch.device("meta")
LANES = 3
FROM_THE_HOST = {torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor}
TO_THE_HOST = {Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.nonzero, torch.nonzero, torch.unique}
TO_THE_HOST |= {Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, torch.masked_select}


class NoWordWithTheHost(TorchFunctionMode):
    """Refuses what brings data from the host, or waits for the device to tell it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in FROM_THE_HOST | TO_THE_HOST:
            raise AssertionError(f"{func} in a stage that is to be captured")
        if func is Tensor.__getitem__ and any(_is_mask(index) for index in _indices(args[1])):
            raise AssertionError("a mask as an index: how many it chooses is known to the device alone")
        return func(*args, **(kwargs or {}))


def _indices(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


CONFIGS = [
    TapirConfig(name="public", blocks=(1, 1, 1, 1), extra_convs=1, mixer_depth=1, iterations=2),
    TapirConfig(name="not square", blocks=(1, 1, 1, 1), extra_convs=0, mixer_depth=1, initial_resolution=(64, 104)),
    replace(PRESETS["small"], mixer_depth=1),
]


def model_of(config: TapirConfig, dtype: torch.dtype) -> Tapir:
    """As `load_model` leaves one: the backbone's weights are channels-last."""
    with GPU:
        model = Tapir(config).requires_grad_(False).to(dtype)
    model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def stages_of(config: TapirConfig, dtype: torch.dtype, refinement: list[tuple[int, int]]) -> StaticStages:
    state = TrackState.empty(config, len(refinement), 11 * LANES, GPU, dtype)
    return StaticStages(model_of(config, dtype), state, FeatureRings(3, LANES), refinement)


@pytest.mark.parametrize("refinement", [[], [(72, 120)]], ids=["initial", "another"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_a_capture_would_take_every_stage(
    config: TapirConfig, refinement: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "backend", lambda device: Backend("reference", "a test"))
    stages = stages_of(config, torch.float16, [*(refinement or [config.initial_resolution])])
    rgb = torch.zeros(48, 65, 3, dtype=torch.uint8, device=GPU)
    with NoWordWithTheHost():
        stages.begin()
        stages.take(1, rgb, 2, 1)
        stages.encode()
        stages.match()
        values = stages.refine()
    assert (values.shape, values.device) == ((11 * LANES, 4), GPU)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_taps_wait_for_no_device(config: TapirConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "backend", lambda device: Backend("reference", "a test"))
    stages = stages_of(config, torch.float16, [config.initial_resolution])
    stages.encode()
    taps = Taps(5)
    with NoWordWithTheHost():
        stages.match(taps)
        stages.refine(taps)
        seen = taps.sight.flat()
    assert (seen.device, seen.dtype) == (GPU, torch.float32)


def test_tapped_stages_do_on_the_same_memory_what_untapped_ones_do(
    make_model: Callable[..., Tapir], tiny_config: TapirConfig
) -> None:
    """A graph that replays an untapped stage after a tapped one finds all where it was captured."""
    config, cpu = replace(tiny_config, recent_inputs=True), torch.device("cpu")
    model, found = make_model(config), []
    rgb = torch.randint(256, (64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for kinds in ((None, None, None), (None, Taps(5), None)):
        state = TrackState.empty(config, 1, 7, cpu, torch.float32)
        stages = StaticStages(model, state, FeatureRings(3), [config.initial_resolution])
        stages.take(0, rgb, 1, 0)
        stages.encode()
        memory = [tensor.data_ptr() for tensor in (*stages._pyramid.match.levels, state.memory, state.refine_queries)]
        for number, taps in enumerate(kinds):
            stages.take(0, rgb, 1, number & 1)
            stages.match(taps)
            values = stages.refine(taps)
        levels = stages._pyramid.match.levels
        assert [tensor.data_ptr() for tensor in (*levels, state.memory, state.refine_queries)] == memory
        found.append((values, state.memory))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_what_a_capture_refuses_is_noticed() -> None:
    x = torch.ones(3)
    for offence in (lambda: x.new_tensor([1]), lambda: x.sum().item(), lambda: x[x > 0], lambda: bool(x[0])):
        with NoWordWithTheHost(), pytest.raises(AssertionError):
            offence()


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The kernels that are launched, by name; their launchers check all they are given, and nothing runs."""
    pytest.importorskip("triton", reason="Triton is for Linux")
    names: set[str] = set()
    package = importlib.import_module("tapir_kernels.gpu")
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        for name in [name for name in vars(module) if name.endswith("_kernel")]:
            monkeypatch.setattr(module, name, _Launches(name, names))
    monkeypatch.setattr(f"{package.__name__}.launch.INTERPRETED", SimpleNamespace(value=True))  # so not CUDA alone
    monkeypatch.setattr(dispatch, "backend", lambda device: Backend("triton", "a test"))
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", _as_on_a_gpu(nn.Conv2d._conv_forward))
    return names


def _as_on_a_gpu(convolve: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A convolution whose output is channels-last where its input or its weights are: cuDNN's rule, not meta's."""

    def convolved(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found = convolve(self, x, weight, bias)
        if any(side.is_contiguous(memory_format=torch.channels_last) for side in (x, weight)):
            return found.contiguous(memory_format=torch.channels_last)
        return found

    return convolved


class _Launches:
    def __init__(self, name: str, names: set[str]) -> None:
        self._name, self._names = name, names

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return lambda *_, **__: self._names.add(self._name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_the_kernels_take_what_the_model_hands_them(
    config: TapirConfig, dtype: torch.dtype, launched: set[str]
) -> None:
    stages = stages_of(config, dtype, [config.initial_resolution])
    stages.take(0, torch.zeros(48, 65, 3, dtype=torch.uint8, device=GPU), 1, 0)
    stages.encode()
    stages.match()
    stages.refine()
    assert {
        "resize_rgb8_kernel", "instance_norm_relu_kernel", "l2_normalize_kernel", "cost_volume_kernel",
        "convolutions_kernel", "local_correlations_kernel", "mixer_step_kernel",
    } <= launched  # fmt: skip


def test_the_kernels_take_some_rows_of_a_state(launched: set[str]) -> None:
    """As a late query, which is carried through the window alone, hands them."""
    config = CONFIGS[2]
    model = model_of(config, torch.float32)
    state = TrackState.empty(config, 1, 33, GPU, torch.float32).rows(5, 12)
    pyramid = model.encode(torch.zeros(1, 3, 64, 72, device=GPU).to(memory_format=torch.channels_last))
    model.refine(pyramid, model.match(pyramid, state).estimate, state, phase_of(1, GPU))
    assert "mixer_step_kernel" in launched


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[2]], ids=lambda config: config.name)
def test_the_kernels_take_what_whole_clips_hand_them(
    config: TapirConfig, clips: int, launched: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in validation while training."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none on meta
    model = model_of(config, torch.float32)
    frames = torch.zeros(clips, 3, 3, 64, 72, device=GPU)
    xy, named = torch.zeros(clips, 5, 2, device=GPU), torch.zeros(clips, 5, dtype=torch.long, device=GPU)
    with torch.no_grad():
        track_clip(model, frames, xy, named)
    assert {"instance_norm_relu_kernel", "cost_volume_kernel", "local_correlations_kernel"} <= launched
