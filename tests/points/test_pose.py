"""A flat object of known size is where it is, through a lens with distortion, and nowhere where its points disagree."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.errors import ConfigError
from online_tapir.points import calibration
from online_tapir.points.calibration import Calibration
from online_tapir.points.objects import Objects
from online_tapir.points.pose import outline, parse_sizes
from online_tapir.records import Label, Tracks
from online_tapir.testing import make_tracks
from online_tapir.wire import messages as wire

LENS = Calibration(
    (640, 480), np.array([[600.0, 0, 322], [0, 605, 238], [0, 0, 1]]), np.array([-0.28, 0.1, 0.001, -0.0005, 0.0])
)
CARD = (85.6, 54.0)  # mm
RNG = np.random.default_rng(0)
CORNERS_MM = np.array([[0, 0], [85.6, 0], [85.6, 54], [0, 54]])
PLACES_MM = np.concatenate([CORNERS_MM, RNG.uniform([3, 3], [82, 51], (32, 2))])
PLACES = [
    (np.array([0.1, -0.2, 0.05]), np.array([-40.0, -25, 260])),
    (np.array([0.5, 0.4, 0.6]), np.array([-30.0, 5, 320])),
]


def picture(places_mm: NDArray[Any], rotation: NDArray[Any], translation: NDArray[Any]) -> NDArray[np.float32]:
    """Where points of the card are in the picture, image pixels with (0, 0) the first pixel's corner."""
    space = np.column_stack([places_mm, np.zeros(len(places_mm))])
    xy, _ = cv2.projectPoints(space, rotation, translation, LENS.matrix, LENS.distortion)
    return np.asarray(xy.reshape(-1, 2) + 0.5, np.float32)


def tracks(xy: NDArray[Any], frame_id: int = 0, size: tuple[int, int] = (640, 480), visible: Any = True) -> Tracks:
    labels = {id: Label(group="card") for id in range(len(xy))}
    return make_tracks(frame_id, xy, visible=visible, size=size, labels=labels, camera="a")


def test_points_come_back_through_the_lens() -> None:
    xy = RNG.uniform([20, 20], [620, 460], (50, 2)).astype(np.float32)
    np.testing.assert_allclose(LENS.distort(LENS.undistort(xy)), xy, atol=0.02)
    assert np.abs(LENS.undistort(xy) - xy).max() > 5
    assert LENS.undistort(np.empty((0, 2))).shape == LENS.distort(np.empty((0, 2))).shape == (0, 2)


def test_a_card_is_where_it_is() -> None:
    objects = Objects("similarity", LENS, {"card": CARD})
    for frame_id, (rotation, translation) in enumerate(PLACES):
        [one] = objects.follow(tracks(picture(PLACES_MM, rotation, translation), frame_id))
        assert one.pose is not None
        np.testing.assert_allclose(one.pose.translation_mm, translation, atol=0.2)
        np.testing.assert_allclose(one.pose.rotation, rotation, atol=2e-3)
        assert one.pose.error_px < 0.05


def test_with_the_noise_of_tracking_its_corners_are_within_two_pixels() -> None:
    errors = []
    for seed in range(20):
        noise = np.random.default_rng(seed)
        objects = Objects("similarity", LENS, {"card": CARD})
        for frame_id, (rotation, translation) in enumerate(PLACES):
            truth = picture(PLACES_MM, rotation, translation)
            xy = truth + noise.normal(0, 1.0, truth.shape).astype(np.float32)
            [one] = objects.follow(tracks(xy, frame_id))
        assert one.pose is not None
        errors += np.linalg.norm(outline(one.pose, LENS) - truth[:4], axis=1).tolist()
        assert 0.3 < one.pose.error_px < 3
    assert np.median(errors) < 2


def test_a_card_seen_from_afar_does_not_flip_to_the_other_side() -> None:
    """Two tilts explain a small card almost as well: noise must not choose anew on every frame."""
    noise, objects = np.random.default_rng(3), Objects("similarity", LENS, {"card": CARD})
    tilts = []
    for frame_id in range(40):
        rotation, translation = np.array([0.35, 0.1 - 0.002 * frame_id, 0.0]), np.array([-30.0, 5, 900])
        xy = picture(PLACES_MM, rotation, translation)
        if frame_id:
            xy += noise.normal(0, 0.8, xy.shape).astype(np.float32)
        [one] = objects.follow(tracks(xy, frame_id))
        if one.pose is not None:
            tilts.append(one.pose.rotation[0])
    assert len(tilts) > 30
    assert min(tilts) > 0


def test_hidden_points_of_a_flat_object_are_placed_through_the_lens() -> None:
    objects = Objects("similarity", LENS, {"card": CARD})
    objects.follow(tracks(picture(PLACES_MM, *PLACES[0])))
    truth = picture(PLACES_MM, *PLACES[1])
    shown, visible = truth.copy(), np.ones(len(truth), np.bool_)
    shown[[1, 9]], visible[[1, 9]] = 3.0, False
    [one] = objects.follow(tracks(shown, 1, visible=visible))
    for id in (1, 9):
        assert np.linalg.norm(one.placed[id] - truth[id]) < 0.3
    assert one.pose is not None


@pytest.mark.parametrize("hidden", [list(range(3)), []], ids=["its corners were never seen", "its points disagree"])
def test_a_pose_is_not_guessed(hidden: list[int]) -> None:
    objects = Objects("similarity", LENS, {"card": CARD})
    visible = np.ones(len(PLACES_MM), np.bool_)
    visible[hidden] = False
    xy = picture(PLACES_MM, *PLACES[0])
    objects.follow(tracks(xy, visible=visible))
    if not hidden:
        xy = RNG.uniform([0, 0], [640, 480], xy.shape).astype(np.float32)
    assert [one.pose for one in objects.follow(tracks(xy, 1, visible=visible))] == [None]


def test_a_calibration_for_another_size_is_told_and_not_used() -> None:
    objects = Objects("similarity", LENS, {"card": CARD})
    [one] = objects.follow(tracks(picture(PLACES_MM, *PLACES[0]), size=(320, 240)))
    assert (one.found, one.pose) == (True, None)
    assert "for pictures of 640x480, and these have 320x240" in objects.trouble


def test_a_pose_goes_over_the_wire() -> None:
    objects = Objects("similarity", LENS, {"card": CARD})
    sent = tracks(picture(PLACES_MM, *PLACES[0]))
    [one] = objects.follow(sent)
    [back] = wire.decode(wire.encode(replace(sent, objects=(one,)))).objects
    assert back.pose is not None
    assert one.pose is not None
    np.testing.assert_array_equal(back.pose.rotation, one.pose.rotation)
    np.testing.assert_array_equal(back.pose.translation_mm, one.pose.translation_mm)
    assert (back.pose.error_px, back.pose.size_mm) == (one.pose.error_px, one.pose.size_mm)


@pytest.mark.parametrize("suffix", ["yaml", "xml", "json"])
def test_opencvs_own_files_are_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"camera.{suffix}"
    file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    file.write("image_width", 640)
    file.write("image_height", 480)
    file.write("camera_matrix", LENS.matrix)
    file.write("distortion_coefficients", LENS.distortion)
    file.release()
    found = calibration.read(path)
    assert found.size == LENS.size
    np.testing.assert_allclose(found.matrix, LENS.matrix)
    np.testing.assert_allclose(found.distortion, LENS.distortion)


ROS = """image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [{}]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [{}]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
"""


@pytest.mark.parametrize("head", ["", "%YAML:1.0\n---\n"], ids=["plain", "with OpenCV's head"])
def test_the_file_of_ross_camera_calibration_is_read(head: str, tmp_path: Path) -> None:
    path = tmp_path / "ost.yaml"
    numbers = (", ".join(map(str, part.ravel().tolist())) for part in (LENS.matrix, LENS.distortion))
    path.write_text(head + ROS.format(*numbers))
    found = calibration.read(path)
    assert found.size == LENS.size
    np.testing.assert_allclose(found.matrix, LENS.matrix)
    np.testing.assert_allclose(found.distortion, LENS.distortion)
    path.write_text(path.read_text().replace("plumb_bob", "equidistant"))
    with pytest.raises(ConfigError, match="of a lens of model equidistant"):
        calibration.read(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no such file"),
        ("not yaml at all: [", "cannot be read|has no camera_matrix"),
        ("%YAML:1.0\n---\nimage_width: 640\n", "has no camera_matrix, image_height"),
    ],
    ids=["missing", "no yaml", "half of it"],
)
def test_what_is_no_calibration_is_refused(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        calibration.read(path)


def test_sizes_are_read_and_refused() -> None:
    assert parse_sizes(["card=85.6x54", "a=b=10x20"]) == {"card": (85.6, 54.0), "a=b": (10.0, 20.0)}
    for word in ("card", "card=85", "=3x4", "card=0x4", "card=axb"):
        with pytest.raises(ConfigError, match="is not GROUP=WIDTHxHEIGHT"):
            parse_sizes([word])


def without(told: Tracks, id: int) -> Tracks:
    """The tracks when a point has been removed."""
    keep = told.ids != id
    labels = {one: label for one, label in told.labels.items() if one != id}
    return replace(told.taken(keep), labels=labels)


def test_a_corner_that_is_removed_is_not_replaced_by_the_next_point() -> None:
    objects = Objects("similarity", LENS, {"card": CARD})
    there = tracks(picture(PLACES_MM, *PLACES[0]))
    [one] = objects.follow(there)
    assert one.pose is not None
    [one] = objects.follow(without(there, 1))
    assert (one.found, one.pose) == (True, None), "its first four points are no rectangle any more"


def test_a_group_whose_points_are_all_named_anew_has_new_corners() -> None:
    objects = Objects("similarity", LENS, {"card": CARD})
    there = tracks(picture(PLACES_MM, *PLACES[0]))
    objects.follow(there)
    labels = {id + 100: label for id, label in there.labels.items()}
    [one] = objects.follow(replace(there, ids=there.ids + 100, labels=labels))
    assert one.pose is not None


def test_corners_are_the_first_by_their_numbers_in_whatever_order_they_join_the_group() -> None:
    objects = Objects("similarity", LENS, {"card": CARD})
    there = tracks(picture(PLACES_MM, *PLACES[0]))
    joined: dict[int, Label] = {}
    for id in (2, 0, 3, 1, *range(4, len(PLACES_MM))):
        joined[id] = Label(group="card")
        found = objects.follow(replace(there, labels=dict(joined)))
    assert found[0].pose is not None
    np.testing.assert_allclose(found[0].pose.translation_mm, PLACES[0][1], atol=0.2)


def test_a_corner_that_is_still_searched_for_is_awaited() -> None:
    objects = Objects("similarity", LENS, {"card": CARD})
    there = tracks(picture(PLACES_MM, *PLACES[0]))
    sought = {1: Label(group="card", sought="top right")}
    [one] = objects.follow(without(there, 1), sought)
    assert one.pose is None
    [one] = objects.follow(there)
    assert one.pose is not None
    np.testing.assert_allclose(one.pose.translation_mm, PLACES[0][1], atol=0.2)


def test_after_a_restart_a_removed_corner_is_still_missed_and_a_pose_goes_on() -> None:
    before, there = Objects("similarity", LENS, {"card": CARD}), tracks(picture(PLACES_MM, *PLACES[0]))
    before.follow(there)
    whole = before.references
    before.follow(without(there, 1))
    now = tracks(picture(PLACES_MM, *PLACES[1]))
    for references, told, has_pose in ((whole, now, True), (before.references, without(now, 1), False)):
        after = Objects("similarity", LENS, {"card": CARD})
        after.restore(references)
        [one] = after.follow(told)
        assert one.found
        assert (one.pose is not None) == has_pose


@pytest.mark.parametrize(
    "lens", [None, replace(LENS, matrix=LENS.matrix * [[1.01], [1.01], [1]])], ids=["none", "other"]
)
def test_what_was_seen_through_another_lens_is_nothing_to_go_on_from(lens: Calibration | None) -> None:
    before, after = Objects("homography", lens), Objects("homography", LENS)
    before.follow(tracks(picture(PLACES_MM, *PLACES[0])))
    after.restore(before.references)
    [one] = after.follow(tracks(picture(PLACES_MM, *PLACES[1])))
    np.testing.assert_allclose(one.matrix, np.eye(3), atol=1e-3)
