"""Points are painted where they are, in the colour of their identity, on a picture of any size, and on a copy of it."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from online_tapir.records import Tracks
from online_tapir.sinks.painting import DIM, Trails, identity_colors, paint_tracks

GREY = 128


def tracks(frame_id: int = 0, *, xy: tuple[float, float] = (20.5, 12.5), visible: bool = True) -> Tracks:
    """One point on a frame of 49x33."""
    one = np.zeros(1, np.float32)
    places = np.array([xy], np.float32)
    return Tracks(frame_id, frame_id, frame_id, 49, 33, np.array([7], np.int32), places, np.array([visible]), one, one)


def grey(width: int = 49, height: int = 33) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def changed(painted: np.ndarray) -> np.ndarray:
    return (painted != GREY).any(axis=2)


@pytest.mark.parametrize("scale", [1, 3, 7])
def test_a_point_is_painted_in_the_middle_of_its_pixel_at_every_scale(scale: int) -> None:
    painted = paint_tracks(grey(49 * scale, 33 * scale), tracks())
    rows, columns = np.nonzero(changed(painted))
    assert (columns + 0.5).mean() / scale == pytest.approx(20.5, abs=0.05)
    assert (rows + 0.5).mean() / scale == pytest.approx(12.5, abs=0.05)
    color = identity_colors(np.array([7], np.int32), np.array([True]))[0]
    assert_array_equal(painted[int(12.5 * scale), int(20.5 * scale)], color)


def test_a_hidden_point_is_a_dimmed_ring() -> None:
    scale = 30
    shown, hidden = (paint_tracks(grey(49 * scale, 33 * scale), tracks(visible=visible)) for visible in (True, False))
    row, column = int(12.5 * scale), int(20.5 * scale)
    assert_allclose(hidden[row, column], [GREY] * 3, atol=20)  # through the ring one sees the picture
    dim = (DIM * shown[row, column]).astype(int)
    assert (np.abs(hidden.astype(int) - dim) <= 2).all(axis=2).any()


def test_the_picture_that_is_given_stays_as_it_was() -> None:
    picture = grey()
    assert changed(paint_tracks(picture, tracks())).any()
    assert_array_equal(picture, grey())


def test_no_points_leave_no_mark() -> None:
    none = replace(tracks(), **{name: getattr(tracks(), name)[:0] for name in ("ids", "xy", "visible")})
    assert_array_equal(paint_tracks(grey(), none, Trails().follow(none)), grey())


@pytest.mark.parametrize("xy", [(-5.0, 60.0), (1e9, -1e9)])
def test_points_outside_the_picture_do_no_harm(xy: tuple[float, float]) -> None:
    assert_array_equal(paint_tracks(grey(), tracks(xy=xy)), grey())


def test_a_trail_joins_the_places_of_the_last_second() -> None:
    trails = Trails()
    for frame_id, x in enumerate((10.0, 20.0, 40.0)):
        now = tracks(frame_id, xy=(x, 12.5))
        strips = trails.follow(now)
    painted = changed(paint_tracks(grey(), now, strips))
    assert painted[12, 10:40].all()
    assert not painted[12, :9].any()
