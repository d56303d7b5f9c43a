"""Points are painted where they are, in the colour that is asked for, on a picture of any size, and on a copy of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from online_tapir.drawing.look import COLOR_MODES, ColorMode
from online_tapir.drawing.painting import DIM, Palette, Strips, Trails
from online_tapir.drawing.painting import paint_tracks as paint_with
from online_tapir.records import Tracks
from online_tapir.testing import make_tracks

GREY = 128
S = 1_000_000_000


def tracks(frame_id: int = 0, *, xy: tuple[float, float] = (20.5, 12.5), visible: bool = True) -> Tracks:
    """One point on a frame of 49x33."""
    return make_tracks(frame_id, [xy], ids=[7], visible=visible, captured_ns=frame_id)


def paint_tracks(picture: np.ndarray, now: Tracks, trails: Strips | None = None) -> np.ndarray:
    return paint_with(picture, now, Palette().colors(now), trails)


def points(time_ns: int, **values: Any) -> Tracks:
    """As many points as there are ids, in a picture of 100x50."""
    plain = {"xy": [(50, 25)] * len(values["ids"]), "occlusion": 0.1, "uncertainty": 0.1}
    return make_tracks(size=(100, 50), captured_ns=time_ns, **(plain | values))


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
    color = Palette().colors(tracks())[0]
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


@pytest.mark.parametrize("mode", COLOR_MODES)
def test_a_hidden_point_is_dimmed_in_every_mode(mode: ColorMode) -> None:
    now = points(S, ids=[3, 900], xy=[(10, 40), (90, 8)])
    seen = Palette(mode).colors(now).astype(int)
    hidden = Palette(mode).colors(replace(now, visible=np.array([False, True]))).astype(int)
    assert_allclose(hidden[0], DIM * seen[0], atol=1)
    assert_array_equal(hidden[1], seen[1])


@pytest.mark.parametrize("mode", COLOR_MODES)
def test_no_points_have_no_colours(mode: ColorMode) -> None:
    palette = Palette(mode)
    for time_ns in (0, S, 2 * S):
        assert palette.colors(points(time_ns, ids=np.zeros(0), xy=np.zeros((0, 2)))).shape == (0, 3)


@pytest.mark.parametrize("mode", ["row", "identity"])
def test_a_point_keeps_its_colour_whatever_it_and_the_others_do(mode: ColorMode) -> None:
    palette = Palette(mode)
    first = palette.colors(points(0, ids=[1, 2, 5], xy=[(1, 5), (2, 20), (3, 45)]))
    later = palette.colors(points(S, ids=[2, 5, 6], xy=[(50, 48), (60, 2), (70, 30)], occlusion=[0.9] * 3))
    assert_array_equal(later[:2], first[1:])
    assert np.abs(np.diff(first.astype(int), axis=0)).sum(axis=1).min() > 60  # and differs from its neighbours


def test_a_point_that_is_gone_is_forgotten() -> None:
    palette = Palette("row")
    palette.colors(points(0, ids=[1], xy=[(1, 5)]))
    palette.colors(points(S, ids=np.zeros(0), xy=np.zeros((0, 2))))
    again = palette.colors(points(2 * S, ids=[1], xy=[(1, 45)]))
    assert_array_equal(again, Palette("row").colors(points(0, ids=[1], xy=[(1, 45)])))


@pytest.mark.parametrize(("mode", "name"), [("visibility", "occlusion"), ("uncertainty", "uncertainty")])
def test_what_the_model_believes_is_between_two_colours(mode: ColorMode, name: str) -> None:
    now = points(0, ids=[0, 1, 2], occlusion=[0] * 3, uncertainty=[0] * 3)
    low, middle, high = Palette(mode).colors(replace(now, **{name: np.array([0, 0.5, 1], np.float32)})).astype(int)
    assert_allclose(middle, (low + high) / 2, atol=1)
    assert np.abs(high - low).sum() > 200


def test_a_speed_is_that_of_the_picture_and_time_that_passes_and_asking_twice_changes_nothing() -> None:
    def colors(step_px: float, step_ns: int, asked: int) -> np.ndarray:
        palette = Palette("speed")
        for frame in range(30):
            for _ in range(asked):
                found = palette.colors(points(frame * step_ns, ids=[0, 1], xy=[(frame * step_px, 25), (50, 25)]))
        return found

    slow, fast, half_rate = colors(0.1, S // 30, 1), colors(1, S // 30, 1), colors(2, S // 15, 1)
    assert_array_equal(fast, colors(1, S // 30, 3))
    assert_allclose(half_rate[0].astype(int), fast[0].astype(int), atol=2)
    still = slow[1]
    assert still[2] > still[0]  # blue
    assert fast[0][0] > fast[0][2]  # red
    assert slow[0].tolist() not in (still.tolist(), fast[0].tolist())


@pytest.mark.parametrize("mode", COLOR_MODES)
def test_a_place_that_is_no_number_has_a_colour(mode: ColorMode) -> None:
    palette = Palette(mode)
    for time_ns in (0, S // 30):
        assert palette.colors(points(time_ns, ids=[0], xy=[(np.nan, np.nan)])).shape == (1, 3)
