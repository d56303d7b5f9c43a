"""OpenCV's trackers follow what they can, hide what they lose, and find it again where they promise to."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.errors import FrameError, QueryError
from online_tapir.evaluation.baselines import DenseFlow, LucasKanade, LucasKanadeWithRecovery, PointTracker

Image = NDArray[np.uint8]

EVERY_TRACKER = [LucasKanade, LucasKanadeWithRecovery, DenseFlow]


def texture(height: int, width: int, seed: int = 0) -> Image:
    """A smooth colourful picture with something to hold on to everywhere."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.5))
    return np.asarray((smooth - smooth.min()) * (255 / np.ptp(smooth)), np.uint8)


def panned(scene: Image, dx: float, dy: float, height: int = 96, width: int = 128) -> Image:
    """A view of a larger scene whose content has moved by (dx, dy), to a fraction of a pixel."""
    shift = np.array([[1, 0, dx - 40], [0, 1, dy - 40]], np.float32)
    return np.asarray(cv2.warpAffine(scene, shift, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def covered(image: Image, left: int) -> Image:
    """The picture with a dull board over 48 columns of it."""
    image = image.copy()
    image[:, max(left, 0) : max(left + 48, 0)] = (90, 100, 110)
    return image


@pytest.mark.parametrize("make", EVERY_TRACKER)
def test_points_ride_on_a_panning_picture(make: type[PointTracker]) -> None:
    scene, tracker = texture(180, 220), make()
    start = np.array([[30.5, 40.5], [64, 48], [90.25, 33.75]])
    ids = tracker.add(start)
    for t in range(8):
        tracks = tracker.step(panned(scene, 2.3 * t, -1.4 * t))
    assert tracks.ids.tolist() == ids.tolist() == [0, 1, 2]
    assert tracks.visible.all()
    assert np.abs(tracks.xy - np.add(start, [2.3 * 7, -1.4 * 7])).max() < 0.5


@pytest.mark.parametrize("make", EVERY_TRACKER)
@pytest.mark.parametrize("size", [(33, 47), (64, 17), (129, 131)])
def test_any_size_is_taken_and_a_still_picture_leaves_points_where_they_are(
    make: type[PointTracker], size: tuple[int, int]
) -> None:
    height, width = size
    image, tracker = texture(height, width), make()
    corners_and_middle = np.array([[0, 0], [width - 0.01, height - 0.01], [width / 2, height / 2]], np.float32)
    tracker.add(corners_and_middle)
    for _ in range(3):
        tracks = tracker.step(image.copy())
    assert (tracks.width, tracks.height) == (width, height)
    assert np.abs(tracks.xy[2] - corners_and_middle[2]).max() < 0.05
    assert tracks.visible[2]


@pytest.mark.parametrize("make", EVERY_TRACKER)
def test_a_point_starts_on_the_next_frame_exactly_where_it_was_asked_for(make: type[PointTracker]) -> None:
    scene, tracker = texture(180, 220), make()
    assert len(tracker.step(panned(scene, 0, 0)).ids) == 0
    first = tracker.add([[20.25, 30.5]])
    assert tracker.step(panned(scene, 3, 0)).xy.tolist() == [[20.25, 30.5]]
    second = tracker.add([[50.0, 60.0], [70.5, 20.0]], frame_id=2)
    tracks = tracker.step(panned(scene, 6, 0))
    assert tracks.ids.tolist() == [*first.tolist(), *second.tolist()] == [0, 1, 2]
    assert tracks.frame_id == 2
    assert tracks.xy[1:].tolist() == [[50, 60], [70.5, 20]]
    assert np.abs(tracks.xy[0] - [23.25, 30.5]).max() < 0.2


@pytest.mark.parametrize("make", [LucasKanade, LucasKanadeWithRecovery])
def test_points_do_not_influence_each_other(make: type[PointTracker]) -> None:
    scene, points = texture(180, 220), np.random.default_rng(3).uniform(5, 90, (7, 2))
    together, alone = make(), make()
    together.add(points)
    alone.add(points[4:5])
    for t in range(10):
        frame = covered(panned(scene, 2 * t, t), 12 * t - 48)
        crowd, one = together.step(frame.copy()), alone.step(frame.copy())
        assert np.allclose(crowd.xy[4], one.xy[0], atol=1e-4)
        assert crowd.visible[4] == one.visible[0]


@pytest.mark.parametrize("make", EVERY_TRACKER)
def test_a_point_whose_picture_is_gone_is_hidden(make: type[PointTracker]) -> None:
    tracker = make()
    tracker.add([[64, 48]])
    tracker.step(panned(texture(180, 220, seed=1), 0, 0))
    tracks = tracker.step(panned(texture(180, 220, seed=2), 0, 0))
    assert tracks.visible.tolist() == [False]
    assert tracks.occlusion.tolist() == [1]


def test_recovery_finds_a_point_again_after_an_occlusion_and_plain_lucas_kanade_does_not() -> None:
    scene = texture(180, 220)
    plain, recovering = LucasKanade(), LucasKanadeWithRecovery()
    for tracker in (plain, recovering):
        tracker.add([[64, 48]])
    seen = []
    for t in range(20):  # the board passes from left to right while the picture creeps on
        frame = covered(panned(scene, 0.5 * t, 0), 16 * t - 112)
        lost, found = plain.step(frame), recovering.step(frame)
        seen.append(bool(found.visible[0]))
    assert not all(seen)
    assert seen[0]
    assert seen[-1]
    assert np.abs(found.xy[0] - [64 + 0.5 * 19, 48]).max() < 1.5
    assert not lost.visible[0]


def test_recovery_keeps_looking_where_nothing_like_the_point_is_without_claiming_it() -> None:
    tracker = LucasKanadeWithRecovery()
    tracker.add([[64, 48], [3, 3]])
    tracker.step(panned(texture(180, 220, seed=1), 0, 0))
    other = panned(texture(180, 220, seed=2), 0, 0)
    assert not any(tracker.step(other.copy()).visible.any() for _ in range(6))


@pytest.mark.parametrize("make", EVERY_TRACKER)
def test_a_picture_without_texture_is_survived(make: type[PointTracker]) -> None:
    tracker = make()
    tracker.add([[20, 20]])
    for grey in (128, 128, 130, 0, 255):
        tracks = tracker.step(np.full((33, 47, 3), grey, np.uint8))
    assert np.isfinite(tracks.xy).all()


@pytest.mark.parametrize("make", EVERY_TRACKER)
def test_what_cannot_be_tracked_is_refused_by_name(make: type[PointTracker]) -> None:
    tracker = make()
    with pytest.raises(QueryError, match=r"frame 7, and .* give frame 0"):
        tracker.add([[1, 1]], frame_id=7)
    with pytest.raises(QueryError, match=r"\[N, 2\]"):
        tracker.add([1, 1])
    tracker.step(texture(33, 47))
    with pytest.raises(FrameError, match="33x47 follows frames of 47x33"):
        tracker.step(texture(47, 33))
    tracker.add([[47, 10]])
    with pytest.raises(QueryError, match=r"\[47.0, 10.0\] lies outside the frame of 47x33"):
        tracker.step(texture(33, 47))
    tracker.add([[20.0, 10.0]])
    assert tracker.step(texture(33, 47)).ids.tolist() == [1]  # what was refused is gone, and its id with it
