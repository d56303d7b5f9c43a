"""Flow follows what moves, and fails its own check where there is nothing to follow."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from online_tapir.flow.sparse import FlowFrame, carry
from online_tapir.records import Frame
from online_tapir.testing import sliding_pictures


def seen(number: int, rgb: NDArray[np.uint8]) -> FlowFrame:
    return FlowFrame.of(Frame(number, number, number, rgb))


def grid(width: int, height: int, margin: int = 24) -> NDArray[np.float32]:
    x, y = np.meshgrid(np.linspace(margin, width - margin, 5), np.linspace(margin, height - margin, 4))
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(97, 129), (240, 320)])
def test_points_move_with_their_picture_to_a_twentieth_of_a_pixel(height: int, width: int) -> None:
    first, second = sliding_pictures(2, height, width)
    xy, passed = carry(seen(0, first), seen(1, second), grid(width, height))
    assert passed.all()
    assert_allclose(xy - grid(width, height), np.broadcast_to((-3, -1), xy.shape), atol=0.05)


def test_fast_motion_is_followed() -> None:
    pictures = [np.repeat(np.repeat(rgb, 4, 0), 4, 1) for rgb in sliding_pictures(4, 60, 80)]
    xy, passed = carry(seen(0, pictures[0]), seen(1, pictures[2]), grid(320, 240, margin=60))
    assert passed.mean() > 0.9
    assert_allclose((xy - grid(320, 240, margin=60))[passed], np.broadcast_to((-24, -8), xy[passed].shape), atol=0.5)


@pytest.mark.parametrize("scale", [1, 4])
def test_a_large_frame_is_halved_and_positions_stay_in_its_pixels(scale: int) -> None:
    first, second = (np.repeat(np.repeat(rgb, 4, 0), 4, 1) for rgb in sliding_pictures(2, 240, 320))
    xy, passed = carry(seen(0, first), seen(1, second), grid(1280, 960, margin=96))
    assert passed.all()
    assert_allclose(xy - grid(1280, 960, margin=96), np.broadcast_to((-12, -4), xy.shape), atol=0.5)


@pytest.mark.parametrize("other", ["another scene", "black"])
def test_over_a_cut_to_another_scene_or_a_black_frame_nothing_is_carried(other: str) -> None:
    first, second = sliding_pictures(1, 240, 320, seed=1)[0], sliding_pictures(1, 240, 320, seed=2)[0]
    second = second if other == "another scene" else np.zeros_like(second)
    for one, two in ((first, second), (second, first)):
        carried, passed = carry(seen(0, one), seen(1, two), grid(320, 240))
        assert not passed.any()
        assert_array_equal(carried, grid(320, 240))


def test_a_jump_of_the_exposure_is_no_cut() -> None:
    first, second = sliding_pictures(2, 240, 320)
    brighter = np.clip(second * 1.4 + 20, 0, 255).astype(np.uint8)
    xy, passed = carry(seen(0, first), seen(1, brighter), grid(320, 240))
    assert passed.mean() > 0.8
    assert_allclose((xy - grid(320, 240))[passed], np.broadcast_to((-3, -1), xy[passed].shape), atol=0.5)


@pytest.mark.parametrize("size", [(96, 512), (20, 512), (512, 40), (40, 1920), (24, 24), (31, 31)])
def test_long_and_narrow_pictures_are_no_fault(size: tuple[int, int]) -> None:
    """Dense flow of OpenCV ends the process on some sizes, as of 160x28."""
    one, other = (FlowFrame.of(Frame(i, i, i, rgb)) for i, rgb in enumerate(sliding_pictures(2, *size)))
    xy, _ = carry(one, other, np.array([[size[1] / 2, size[0] / 2]], np.float32))
    assert np.isfinite(xy).all()


def test_points_outside_the_picture_and_points_that_are_not_numbers_stay() -> None:
    first, second = sliding_pictures(2, 97, 129)
    xy = np.array([[-5, 10], [129.5, 40], [np.nan, 3], [60, 50]], np.float32)
    carried, passed = carry(seen(0, first), seen(1, second), xy)
    assert_array_equal(passed, [False, False, False, True])
    assert_array_equal(carried[:3], xy[:3])


def test_between_frames_of_different_sizes_nothing_is_carried() -> None:
    first, second = sliding_pictures(1, 97, 129)[0], sliding_pictures(1, 64, 96)[0]
    carried, passed = carry(seen(0, first), seen(1, second), grid(96, 64))
    assert not passed.any()
    assert_array_equal(carried, grid(96, 64))


def test_a_repeated_frame_moves_nothing() -> None:
    rgb = sliding_pictures(1, 97, 129)[0]
    carried, passed = carry(seen(0, rgb), seen(1, rgb), grid(129, 97))
    assert passed.all()
    assert_allclose(carried, grid(129, 97), atol=0.02)


def test_no_points_are_no_fault() -> None:
    first, second = sliding_pictures(2, 64, 96)
    carried, passed = carry(seen(0, first), seen(1, second), np.empty((0, 2), np.float32))
    assert carried.shape == (0, 2)
    assert passed.shape == (0,)
