import cv2
import numpy as np
import pytest

from online_tapir.camera.demo import PERIOD, DemoCamera, DemoScene
from online_tapir.clock import StepClock


@pytest.fixture(scope="module")
def scene() -> DemoScene:
    return DemoScene(seed=0)


def scattered(scene: DemoScene, count: int = 400, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 2)) * (scene.width, scene.height)


@pytest.mark.parametrize("at", [0, 333, 1200])
def test_the_picture_moves_as_the_truth_says(scene: DemoScene, at: int) -> None:
    before, after = (cv2.cvtColor(scene.render(t), cv2.COLOR_RGB2GRAY) for t in (at, at + 2))
    corners = cv2.goodFeaturesToTrack(before, 300, 0.01, 8)[:, 0] + 0.5
    truth, visible = scene.truth(corners, at, at + 2)
    seen, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, (corners - 0.5)[:, None], (truth - 0.5)[:, None].copy(), winSize=(11, 11), maxLevel=0,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    error = (seen[:, 0] + 0.5 - truth)[visible & (found[:, 0] > 0)]
    assert len(error) > 200
    assert np.abs(np.median(error, axis=0)).max() < 0.02  # no bias: half a pixel would show here
    assert np.median(np.linalg.norm(error, axis=1)) < 0.15  # and what is left is the other method's noise


def test_the_truth_on_the_same_frame_is_the_point_itself(scene: DemoScene) -> None:
    xy, visible = scene.truth(scattered(scene), at=77, to=77)
    np.testing.assert_allclose(xy, scattered(scene), atol=1e-3)
    assert visible.all()


def test_there_and_back_is_where_it_was(scene: DemoScene) -> None:
    start = scattered(scene)
    there, visible = scene.truth(start, at=10, to=400)
    back, _ = scene.truth(there[visible], at=400, to=10)
    assert 100 < visible.sum() < len(start)
    np.testing.assert_allclose(back, start[visible], atol=0.01)


def test_the_way_does_not_matter(scene: DemoScene) -> None:
    start = scattered(scene)
    direct, _ = scene.truth(start, at=0, to=90)
    middle, visible = scene.truth(start, at=0, to=45)
    by_way, _ = scene.truth(middle[visible], at=45, to=90)
    np.testing.assert_allclose(by_way, direct[visible], atol=0.01)


def test_a_point_that_is_covered_is_covered_by_something_else(scene: DemoScene) -> None:
    """What lies at the place of a hidden point in the frame moves otherwise than the point does."""
    start = scattered(scene, 2000)
    there, visible = scene.truth(start, at=0, to=300)
    inside = ((there > 0) & (there < (scene.width, scene.height))).all(axis=1)
    hidden = inside & ~visible
    assert hidden.sum() > 50
    covering, _ = scene.truth(there[hidden], at=300, to=0)
    assert (np.linalg.norm(covering - start[hidden], axis=1) > 1).mean() > 0.98


def test_points_outside_the_picture_are_not_visible(scene: DemoScene) -> None:
    there, visible = scene.truth(scattered(scene, 2000), at=0, to=600)
    inside = ((there >= 0) & (there <= (scene.width, scene.height))).all(axis=1)
    assert (~inside).any()
    assert not visible[~inside].any()


def test_the_scene_never_jumps(scene: DemoScene) -> None:
    start = scattered(scene)
    for t in (0, 500, PERIOD - 1):
        there, _ = scene.truth(start, at=t, to=t + 1)
        assert np.linalg.norm(there - start, axis=1).max() < 8


def test_the_scene_repeats_after_its_period(scene: DemoScene) -> None:
    difference = scene.render(5).astype(int) - scene.render(5 + PERIOD)
    assert np.abs(difference).max() <= 1


def test_the_ground_never_ends() -> None:
    for width, height in ((64, 48), (33, 97), (160, 33)):
        scene = DemoScene(width, height, seed=4)
        motion, (ground_height, ground_width) = scene._ground_motion, scene._ground.shape[:2]
        corners = np.array([(0, 0, 1), (width, 0, 1), (0, height, 1), (width, height, 1)], float)
        for t in range(0, PERIOD, 10):
            x, y, _ = np.linalg.inv(motion.at(t)) @ corners.T
            assert x.min() >= 0
            assert y.min() >= 0
            assert x.max() <= ground_width
            assert y.max() <= ground_height


def test_a_seed_gives_its_scene() -> None:
    first, again, other = (DemoScene(97, 65, seed).render(30) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize(("width", "height"), [(16, 16), (33, 49), (320, 97)])
def test_any_size_is_rendered(width: int, height: int) -> None:
    scene = DemoScene(width, height)
    rgb = scene.render(12)
    assert rgb.shape == (height, width, 3)
    assert rgb.dtype == np.uint8
    assert rgb.std() > 10


def test_no_points_have_no_truth(scene: DemoScene) -> None:
    xy, visible = scene.truth(np.empty((0, 2)), at=0, to=1)
    assert xy.shape == (0, 2)
    assert visible.shape == (0,)


def test_the_camera_films_its_scene_at_its_rate() -> None:
    clock = StepClock()
    camera = DemoCamera(64, 48, seed=2, fps=25, clock=clock)
    assert camera.live
    for t in range(5):
        np.testing.assert_array_equal(camera.read(), camera.scene.render(t))
        assert clock.monotonic_ns() == t * 40_000_000


def test_without_a_rate_the_camera_waits_to_be_read() -> None:
    clock = StepClock()
    camera = DemoCamera(64, 48, fps=0, clock=clock)
    assert not camera.live
    for _ in range(3):
        camera.read()
    assert clock.monotonic_ns() == 0
