"""The input and the threads that a machine keeps up with."""

import numpy as np
import pytest

from online_tapir.errors import ConfigError
from online_tapir.launch.config import ModelConfig
from online_tapir.launch.pace import keeps_up, largest_input, step_ms
from online_tapir.launch.plan import loaded
from online_tapir.launch.sizes import input_size
from online_tapir.model.config import PRESETS
from online_tapir.model.tapir import Tapir
from online_tapir.testing import tiny_model
from online_tapir.tracking.tracker import Tracker


@pytest.mark.parametrize(
    ("text", "frame", "size"),
    [
        ("512x288", (640, 480), (288, 512)),
        ("384", (640, 480), (288, 384)),
        ("384", (480, 640), (384, 288)),
        ("384", (0, 0), (384, 384)),
        ("256", (2000, 100), (64, 256)),
    ],
)
def test_an_input_is_a_size_or_a_longer_side(text: str, frame: tuple[int, int], size: tuple[int, int]) -> None:
    assert input_size(text, frame) == size


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("500x288", "496x288 would do"),
        ("16x16", "64x64 would do"),
        ("5000", "2048x"),
        ("large", "384 for the longer side"),
        ("-8", "384 for the longer side"),
        ("99999999999", "384 for the longer side"),
        ("x", "WIDTHxHEIGHT"),
    ],
)
def test_what_is_no_input_is_refused_with_one_that_would_do(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        input_size(text, (640, 480))


@pytest.fixture(scope="module")
def small() -> Tapir:
    return Tapir(PRESETS["small"])


def test_a_faster_machine_gets_a_larger_input(small: Tapir) -> None:
    sizes = [largest_input(small, ms, (640, 480), 30.0) for ms in (100, 17, 12, 5)]
    assert sizes[0] is None
    pixels = [np.prod(size) for size in sizes if size is not None]
    assert pixels == sorted(pixels)
    assert sizes[-1] == (384, 512)


def test_a_faster_camera_gets_a_smaller_input(small: Tapir) -> None:
    at_30, at_60 = (largest_input(small, 9, (640, 480), fps) for fps in (30.0, 60.0))
    assert at_30 is not None
    assert at_60 is None or np.prod(at_60) < np.prod(at_30)


def test_frames_that_wait_get_the_largest_input_that_does_not_enlarge_them(small: Tapir) -> None:
    assert largest_input(small, 1000, (640, 480), None) == (384, 512)
    assert largest_input(small, 1000, (400, 300), None) == (288, 384)
    assert largest_input(small, 1000, (256, 256), None) is None


def test_a_camera_that_does_not_say_its_rate_is_taken_for_a_usual_one() -> None:
    assert keeps_up(15, 0)
    assert not keeps_up(15, 60)


def test_a_step_is_timed_at_the_models_input() -> None:
    tracker = Tracker(tiny_model(), max_points=3, window=1)
    assert step_ms(tracker, tracker.model.config.initial_resolution, 3) > 0
    assert tracker.answer is not None
    assert tracker.answer.width == tracker.model.config.initial_resolution[1]


def test_a_model_at_another_size_shares_its_weights_and_keeps_its_own_size() -> None:
    model = tiny_model()
    other = model.at((96, 64))
    assert other.config.initial_resolution == (96, 64)
    assert model.config.initial_resolution != (96, 64)
    assert next(other.parameters()) is next(model.parameters())
    tracker = Tracker(model, input_size=(128, 128))
    tracker.add([[20.0, 30.0]])
    tracks = tracker.step(np.full((60, 50, 3), 90, np.uint8))
    assert tracks.input == "128x128"
    with pytest.raises(ConfigError, match="multiple of 8"):
        model.at((60, 64))


def test_a_lower_threshold_shows_more_points() -> None:
    shown = []
    for above in (0.0, 0.5, 0.999):
        model = loaded(ModelConfig(visible_above=above))
        assert model.config.visible_above == above
        tracker = Tracker(model, max_points=64)
        tracker.add(np.random.default_rng(0).uniform(5, 60, (64, 2)))
        noise = np.random.default_rng(1).integers(0, 255, (2, 64, 64, 3), np.uint8)
        shown.append(int([tracker.step(rgb) for rgb in noise][-1].visible.sum()))
    assert shown[0] == 64
    assert shown[0] > shown[1] >= shown[2]
