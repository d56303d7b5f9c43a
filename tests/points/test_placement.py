from pathlib import Path

import cv2
import numpy as np
import pytest

from online_tapir.camera.demo import DemoScene
from online_tapir.errors import ConfigError, QueryError
from online_tapir.points.placement import (
    Corners,
    Grid,
    MaskPoints,
    check_inside,
    parse_points,
    read_csv,
    read_mask,
    replenish,
)


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return DemoScene(320, 241).render(0)


def nearest(xy: np.ndarray) -> float:
    """The distance of the closest pair."""
    between = np.linalg.norm(xy[:, None] - xy, axis=-1)
    return between[~np.eye(len(xy), dtype=bool)].min()


def test_a_grid_is_the_centres_of_its_cells() -> None:
    xy = parse_points("grid:3x2").place(np.zeros((20, 60, 3), np.uint8))
    assert xy.dtype == np.float32
    np.testing.assert_array_equal(xy, [(10, 5), (30, 5), (50, 5), (10, 15), (30, 15), (50, 15)])


def test_one_number_is_a_square_grid(rgb: np.ndarray) -> None:
    assert parse_points("grid:12").place(rgb).shape == (144, 2)
    np.testing.assert_array_equal(parse_points("grid:1").place(rgb), [(160, 120.5)])


@pytest.mark.parametrize("spec", ["auto:64", "random:64", "auto:1", "random:7", "grid:33"])
def test_points_lie_in_the_frame_and_come_out_the_same_again(rgb: np.ndarray, spec: str) -> None:
    xy = parse_points(spec).place(rgb)
    check_inside(xy, 320, 241)
    assert xy.dtype == np.float32
    assert len(xy) == {"grid:33": 33 * 33}.get(spec) or int(spec.split(":")[1])
    np.testing.assert_array_equal(xy, parse_points(spec).place(rgb))


def test_a_seed_moves_random_points(rgb: np.ndarray) -> None:
    assert (parse_points("random:9", seed=1).place(rgb) != parse_points("random:9", seed=2).place(rgb)).all()


def test_auto_points_sit_on_corners() -> None:
    """A corner between pixels lies on their common corner in raster coordinates."""
    rgb = np.zeros((97, 129, 3), np.uint8)
    rgb[40:60, 30:70] = 255
    xy = parse_points("auto:4").place(rgb)
    for corner in [(30, 40), (70, 40), (30, 60), (70, 60)]:
        assert np.linalg.norm(xy - corner, axis=1).min() < 1.5


def test_auto_points_are_spread(rgb: np.ndarray) -> None:
    assert nearest(parse_points("auto:64").place(rgb)) > 0.3 * np.sqrt(320 * 241 / 64)


def test_a_picture_without_corners_still_gets_its_points() -> None:
    xy = parse_points("auto:30").place(np.full((33, 65, 3), 128, np.uint8))
    assert xy.shape == (30, 2)
    check_inside(xy, 65, 33)
    assert nearest(xy) > 1


@pytest.mark.parametrize(
    "spec", ["120.5,80 300,200", "120.5,80;300,200", " 120.5 , 80 ; 300,200 ;", "1.205e2,80. 300,200"]
)
def test_pairs_are_taken_as_they_are(rgb: np.ndarray, spec: str) -> None:
    np.testing.assert_array_equal(parse_points(spec).place(rgb), [(120.5, 80), (300, 200)])


def test_a_point_outside_the_frame_is_named(rgb: np.ndarray) -> None:
    with pytest.raises(QueryError, match=r"point 1 at \(320.5, 7\) is outside the 320x241 frame"):
        parse_points("1,1 320.5,7 -1,0").place(rgb)


@pytest.mark.parametrize(
    "text",
    [
        "10,20\n30.5,40\n",
        "x,y\n10,20\n30.5,40\n",
        "id, Y ,X\n7,20,10\n8,40,30.5\n",
        "\ufeffx,y\r\n10,20\r\n\r\n# a note\r\n30.5,40",
    ],
)
def test_a_csv_gives_its_points(tmp_path: Path, rgb: np.ndarray, text: str) -> None:
    file = tmp_path / "points.csv"
    file.write_bytes(text.encode())
    np.testing.assert_array_equal(parse_points(str(file)).place(rgb), [(10, 20), (30.5, 40)])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x,y\n1,2\n3,four\n", r"points.csv line 3: 'four' is not a number"),
        ("1,2\n3\n", "line 2: '3' has no column 2"),
        ("a,b\n1,2\n", "line 1: 'a' is not a number"),
        ("1,nan\n", "line 1: 'nan' is not a number"),
        ("x,y\n", "no points in it"),
        ("", "no points in it"),
        ("\xff\xfe", "cannot be read as CSV"),
    ],
)
def test_a_csv_that_is_wrong_is_refused_by_its_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "points.csv"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=says):
        parse_points(str(file))


@pytest.mark.parametrize(
    "spec", ["grid:", "grid:0", "grid:3x", "grid:-2", "auto:", "auto:0", "random:x", "1,2 3", "what"]
)
def test_what_means_no_points_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="--points"):
        parse_points(spec)


@pytest.mark.parametrize("xy", [(0, 0), (33, 17), (32.999, 0.5)])
def test_the_border_is_inside(xy) -> None:
    check_inside(np.array([xy], np.float32), 33, 17)


@pytest.mark.parametrize("xy", [(-0.001, 0), (33.001, 1), (1, 17.5), (np.nan, 1), (1, np.inf)])
def test_beyond_the_border_and_nan_are_outside(xy) -> None:
    with pytest.raises(QueryError, match="is outside the 33x17 frame"):
        check_inside(np.array([(1, 1), xy], np.float32), 33, 17)


def test_points_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(QueryError, match=r"\[N, 2\], x before y, not \[3\]"):
        check_inside([1, 2, 3], 33, 17)
    check_inside(np.empty((0, 2)), 33, 17)


def ellipse(height: int = 241, width: int = 320) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (200, 100), (70, 40), 20, 0, 360, 3, -1)
    mask[200:205, 10:60] = 9
    return mask


@pytest.mark.parametrize("count", [1, 7, 64, 500])
def test_mask_points_fill_their_object_and_nothing_else(tmp_path: Path, rgb: np.ndarray, count: int) -> None:
    cv2.imwrite(str(tmp_path / "mask.png"), ellipse())
    xy = MaskPoints(tmp_path / "mask.png", id=3, count=count).place(rgb)
    assert (ellipse()[xy[:, 1].astype(int), xy[:, 0].astype(int)] == 3).all()
    assert 0.7 * count <= len(xy) <= 1.3 * count + 1
    np.testing.assert_allclose(xy.mean(axis=0), (200.5, 100.5), atol=6)


def test_a_thin_object_still_gets_a_point(tmp_path: Path, rgb: np.ndarray) -> None:
    mask = np.zeros((241, 320), bool)
    np.fill_diagonal(mask, True)
    np.save(tmp_path / "mask.npy", mask)
    assert len(MaskPoints(tmp_path / "mask.npy", id=1, count=1).place(rgb)) >= 1


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8])
def test_arrays_are_masks_too(tmp_path: Path, rgb: np.ndarray, dtype) -> None:
    np.save(tmp_path / "mask.npy", (ellipse() == 3).astype(dtype))
    assert len(MaskPoints(tmp_path / "mask.npy", id=1).place(rgb)) > 40


def test_a_mask_of_another_size_is_refused_with_both(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "mask.png"), ellipse())
    with pytest.raises(QueryError, match=r"mask.png is 320x241, the frames are 64x48"):
        MaskPoints(tmp_path / "mask.png", id=3).place(np.zeros((48, 64, 3), np.uint8))


def test_an_object_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "mask.png"), ellipse())
    with pytest.raises(QueryError, match="no object 1: it has 3, 9; choose with --mask-id"):
        MaskPoints(tmp_path / "mask.png")
    np.save(tmp_path / "none.npy", np.zeros((5, 5), bool))
    with pytest.raises(QueryError, match="it is empty"):
        MaskPoints(tmp_path / "none.npy")


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "text.npy").write_text("not an array")
    cv2.imwrite(str(tmp_path / "color.png"), np.zeros((20, 30, 3), np.uint8))
    np.save(tmp_path / "float.npy", np.zeros((20, 30)))
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    for name, says in {
        "gone.png": "there is no mask file",
        "text.png": "is neither an image",
        "text.npy": "is not an .npy array",
        "pickle.npy": "is not an .npy array",
        "color.png": r"uint8 \[20, 30, 3\]; a mask is one channel",
        "float.npy": "float64",
    }.items():
        with pytest.raises(ConfigError, match=says):
            MaskPoints(tmp_path / name)


@pytest.mark.parametrize("want", [0, 1, 7, 40])
def test_replenished_points_keep_away_from_the_living_and_each_other(rgb: np.ndarray, want: int) -> None:
    alive = parse_points("random:30").place(rgb)
    new = replenish(rgb, alive, want)
    assert new.shape == (want, 2)
    assert new.dtype == np.float32
    check_inside(new, 320, 241)
    if want:
        assert np.linalg.norm(new[:, None] - alive, axis=-1).min() > 8


def test_replenish_does_not_mind_tracks_that_ran_away(rgb: np.ndarray) -> None:
    alive = np.array([(np.nan, 1), (1e30, -1e30), (100, 100)], np.float32)
    assert np.isfinite(replenish(rgb, alive, 12)).all()
    assert np.isfinite(replenish(np.zeros((16, 16, 3), np.uint8), alive, 5)).all()


@pytest.mark.parametrize("shape", [b"(7,", b"(51539607552, 9)", b"(" + b"9" * 40 + b",)"])
def test_a_mask_whose_header_cannot_be_is_refused(tmp_path: Path, shape: bytes) -> None:
    header = b"{'descr': '|b1', 'fortran_order': False, 'shape': " + shape + b", }"
    (tmp_path / "odd.npy").write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ConfigError, match="not an \\.npy array, or is damaged"):
        read_mask(tmp_path / "odd.npy")


def test_a_number_beyond_float32_is_outside_every_frame(tmp_path: Path) -> None:
    (tmp_path / "far.csv").write_text("1e308,2\n")
    with pytest.raises(QueryError, match="outside"):
        check_inside(read_csv(tmp_path / "far.csv").xy, 640, 480)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("auto:0", "auto:0 asks for 0 points; give 1 to 65536"),
        ("auto:9999999", "auto:9999999 asks for 9999999 points; give 1 to 65536"),
        ("random:65537", "random:65537 asks for 65537 points; give 1 to 65536"),
        ("grid:9999", "grid:9999 asks for 99980001 points; give 1 to 65536"),
        ("auto:many", "auto:many needs a whole number after the colon"),
        ("auto:-1", "auto:-1 needs a whole number after the colon"),
    ],
)
def test_too_many_points_or_none_are_refused_with_the_bounds(spec: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_points(spec)


def test_as_many_points_as_a_tracker_can_have_are_taken() -> None:
    assert parse_points("auto:65536") == Corners(65536)
    assert parse_points("grid:256") == Grid(256, 256)


def test_a_typo_in_a_long_list_is_refused_at_once() -> None:
    """A pattern that can read a number in several ways would take for ever."""
    pairs = " ".join(f"{10 * i},{5 * i}" for i in range(400))
    for wrong in (f"{pairs} 410,20a", f"{pairs} 7", "x" * 5000):
        with pytest.raises(ConfigError, match="neither a file nor one of"):
            parse_points(wrong)
    assert len(parse_points(pairs).place(np.zeros((4000, 8000, 3), np.uint8))) == 400
    assert len(parse_points("1.,.5 3e2,4;5,6").place(np.zeros((600, 600, 3), np.uint8))) == 3
