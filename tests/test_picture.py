import numpy as np
import pytest

from online_tapir.errors import FrameError
from online_tapir.picture import bgr_to_rgb8, depth_of, rgb_to_rgb8


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_rgb_stays_what_it_is_without_a_copy() -> None:
    rgb = picture(17, 33, 3)
    assert np.shares_memory(rgb_to_rgb8(rgb), rgb)
    np.testing.assert_array_equal(rgb_to_rgb8(rgb), picture(17, 33, 3))


def test_bgr_is_turned_round() -> None:
    np.testing.assert_array_equal(bgr_to_rgb8(picture(17, 33, 3)), picture(17, 33, 3)[..., ::-1])


@pytest.mark.parametrize("convert", [rgb_to_rgb8, bgr_to_rgb8])
@pytest.mark.parametrize("shape", [(19, 33), (19, 33, 1)])
def test_grey_becomes_three_equal_channels(convert, shape) -> None:
    rgb = convert(picture(*shape))
    assert rgb.shape == (19, 33, 3)
    for channel in range(3):
        np.testing.assert_array_equal(rgb[..., channel], picture(19, 33))


def test_alpha_is_dropped() -> None:
    np.testing.assert_array_equal(rgb_to_rgb8(picture(19, 33, 4)), picture(19, 33, 4)[..., :3])
    np.testing.assert_array_equal(bgr_to_rgb8(picture(19, 33, 4)), picture(19, 33, 4)[..., 2::-1])


@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_sixteen_bits_come_back_to_the_eight_they_hold(channels) -> None:
    eight = picture(19, 33, *channels)
    np.testing.assert_array_equal(rgb_to_rgb8(eight.astype(np.uint16) * 257), rgb_to_rgb8(eight))


def test_a_view_that_is_not_contiguous_is_made_so() -> None:
    rgb = rgb_to_rgb8(picture(20, 40, 3)[:, ::-2])
    assert rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, picture(20, 40, 3)[:, ::-2])


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((20, 30, 3), np.float32), r"not float32 \[20, 30, 3\]; scale"),
        (np.full((20, 30, 3), np.nan, np.float64), "with NaN in it"),
        (np.zeros((20, 30, 3), np.int32), "not int32"),
        (np.zeros((20, 30, 3), bool), "not bool"),
        (np.zeros((20, 30, 2), np.uint8), r"\[20, 30, 2\]"),
        (np.zeros((3, 20, 30), np.uint8), "channels come last"),
        (np.zeros((1, 20, 30, 3), np.uint8), r"not uint8 \[1, 20, 30, 3\]"),
        (np.zeros((15, 30, 3), np.uint8), "at least 16x16 pixels, not 30x15"),
        (np.zeros((0, 0, 3), np.uint8), "not 0x0"),
        ([[1, 2], [3, 4]], "not list"),
    ],
)
def test_what_cannot_be_tracked_is_refused_by_name(image, says) -> None:
    with pytest.raises(FrameError, match=says):
        rgb_to_rgb8(image)


def test_the_smallest_frame_is_taken() -> None:
    assert rgb_to_rgb8(picture(16, 16, 3)).shape == (16, 16, 3)


@pytest.mark.parametrize(("bits", "white"), [(8, 255), (10, 1023), (12, 4095), (14, 16383), (16, 65535)])
def test_the_bits_of_a_sensor_are_found_and_filled(bits: int, white: int) -> None:
    image = np.linspace(0, white, 33 * 49).round().astype(np.uint16).reshape(33, 49)
    assert depth_of(image) == bits
    rgb = bgr_to_rgb8(image, bits)
    assert (rgb.min(), rgb.max()) == (0, 255)


def test_a_dark_picture_of_sixteen_bits_stays_dark() -> None:
    assert depth_of(np.full((33, 49), 30 * 257, np.uint16)) == 16
