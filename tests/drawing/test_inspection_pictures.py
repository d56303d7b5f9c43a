"""Maps lie over the picture where their places are, what is likelier covers more of it, crops keep their place."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from online_tapir.drawing import inspection_pictures as pictures
from online_tapir.records import Correlations

PICTURE = np.arange(33 * 49 * 3, dtype=np.uint32).astype(np.uint8).reshape(33, 49, 3)


def map_with(peak: float, height: int = 7, width: int = 9) -> np.ndarray:
    """A map that is 0 but for one place, in row 2, column 6."""
    values = np.zeros((height, width), np.float32)
    values[2, 6] = peak
    return values


@pytest.mark.parametrize("overlay", [pictures.heat_overlay, pictures.cost_overlay])
@pytest.mark.parametrize("size", [(90, 70), (49, 33), (9, 7)])
def test_an_overlay_covers_the_picture_most_where_the_map_is_greatest(overlay, size: tuple[int, int]) -> None:
    found = overlay(map_with(0.5), size)
    assert found.shape == (size[1], size[0], 4)
    alpha = found[..., 3].astype(float)
    rows, columns = np.mgrid[: size[1], : size[0]]
    weight = alpha / alpha.sum()
    assert ((columns + 0.5) * weight).sum() / size[0] == pytest.approx(6.5 / 9, abs=0.02)
    assert ((rows + 0.5) * weight).sum() / size[1] == pytest.approx(2.5 / 7, abs=0.02)
    assert alpha[-1, 0] == 0


@pytest.mark.parametrize("overlay", [pictures.heat_overlay, pictures.cost_overlay])
def test_a_map_without_a_peak_is_drawn_too(overlay) -> None:
    for value in (0.0, -3.0, 1e-30):
        assert overlay(np.full((3, 5), value, np.float32), (33, 17)).shape == (17, 33, 4)


def test_a_rival_of_little_probability_is_still_seen() -> None:
    heat = map_with(0.99)
    heat[6, 0] = 0.01
    overlay = pictures.heat_overlay(heat, (9, 7))
    assert overlay[6, 0, 3] > 20
    assert overlay[2, 6, 3] > 4 * overlay[6, 0, 3]


def test_what_is_clear_leaves_the_picture_as_it_was_and_what_is_opaque_replaces_it() -> None:
    overlay = np.zeros((33, 49, 4), np.uint8)
    overlay[:, 20:, :] = (10, 200, 30, 255)
    seen = pictures.blended(PICTURE, overlay)
    assert_array_equal(seen[:, :20], PICTURE[:, :20])
    assert (seen[:, 20:] == (10, 200, 30)).all()


@pytest.mark.parametrize("side", [1, 7, 8])
@pytest.mark.parametrize("xy", [(20.5, 12.5), (0.0, 0.0), (48.9, 32.9), (-3.0, 40.0), (1e9, -1e9), (np.nan, np.inf)])
def test_a_crop_shows_each_pixel_at_its_place_and_nothing_beyond_the_border(xy: tuple[float, float], side: int) -> None:
    crop = pictures.crop_around(PICTURE, xy, side)
    assert crop.picture.shape == (side, side, 3)
    for row, column in np.ndindex(side, side):
        x, y = column + crop.corner[0], row + crop.corner[1]
        inside = 0 <= x < 49 and 0 <= y < 33
        assert_array_equal(crop.picture[row, column], PICTURE[y, x] if inside else pictures.OUTSIDE)


def test_the_pixel_of_the_point_is_the_middle_of_its_crop() -> None:
    crop = pictures.crop_around(PICTURE, (20.9, 12.1), 7)
    assert_array_equal(crop.picture[3, 3], PICTURE[12, 20])
    assert_allclose(crop.inside(np.array([[20.9, 12.1]])), [[3.9, 3.1]], rtol=1e-5)


def test_every_sample_of_a_patch_is_a_square_and_levels_stand_side_by_side() -> None:
    patches = np.zeros((3, 7, 7), np.float32)
    patches[0, 0, 6] = patches[1, 6, 6] = patches[2, 6, 0] = 1
    seen = pictures.patches_picture(patches, 70).astype(int)
    gap = 10
    for level, (row, column) in enumerate([(0, 6), (6, 6), (6, 0)]):
        tile = seen[:, level * (70 + gap) :][:, :70]
        best = tile[10 * row : 10 * row + 10, 10 * column : 10 * column + 10]
        assert (best == best[0, 0]).all()
        assert not (tile[:10, :10] == best[0, 0]).all()


def correlations(stage: str, levels: int, recent: bool) -> Correlations:
    patches = np.random.default_rng(levels).normal(size=(2, levels, 7, 7)).astype(np.float32)
    reach = np.ones((levels, 2), np.float32)
    return Correlations(stage, np.zeros(2, np.float32), patches[0], patches[1] if recent else None, reach)


@pytest.mark.parametrize("recent", [False, True])
@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("count", [1, 4])
def test_every_patch_of_every_refinement_stands_round_its_middle(count: int, levels: int, recent: bool) -> None:
    seen = [correlations(f"refine {i}", levels, recent) for i in range(count)]
    picture, middles = pictures.correlations_picture(seen), pictures.correlations_middles(seen)
    assert picture.shape[1::-1] == pictures.correlations_size(seen)
    assert middles.shape == (count, levels * (1 + recent), 2)
    for row, one in zip(middles, seen, strict=True):
        patches = one.query if one.recent is None else np.concatenate([one.query, one.recent])
        for (x, y), patch in zip(row, patches, strict=True):
            tile = picture[int(y - 3.5) :, int(x - 3.5) :][:7, :7]
            assert_array_equal(tile, pictures.patches_picture(patch[None], 7))


def test_no_refinements_are_an_empty_picture() -> None:
    assert pictures.correlations_picture([]).shape == (1, 1, 3)
