"""A group of points moves as a thing: by those that agree, and never by a guess."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from online_tapir.points.objects import LEAST, Motion, Objects, fit, moved, with_objects
from online_tapir.records import Label, Tracks
from online_tapir.testing import make_tracks
from online_tapir.wire import messages as wire

RNG = np.random.default_rng(0)
PLACES = RNG.uniform([200, 150], [400, 330], (16, 2)).astype(np.float32)
MOTIONS: dict[Motion, NDArray[np.float64]] = {
    "similarity": np.array([[0.9, -0.4, 80], [0.4, 0.9, -60], [0, 0, 1]]),
    "affine": np.array([[1.1, 0.3, -50], [-0.1, 0.8, 40], [0, 0, 1]]),
    "homography": np.array([[1.0, 0.1, 10], [0.05, 1.1, -20], [2e-4, -1e-4, 1]]),
}


def tracks(xy: Any, frame_id: int = 0, visible: Any = True, group: str = "cup", **others: Any) -> Tracks:
    count = len(xy)
    labels = {id: Label(group=group) for id in range(count)}
    return make_tracks(frame_id, xy, visible=visible, size=(640, 480), labels=labels, camera="a", **others)


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_box_is_carried_along_and_what_disagrees_is_doubtful(motion: Motion) -> None:
    objects = Objects(motion)
    [first] = objects.follow(tracks(PLACES))
    assert first.found
    np.testing.assert_allclose(first.matrix, np.eye(3), atol=1e-3)
    now = moved(MOTIONS[motion], PLACES) + RNG.normal(0, 0.3, PLACES.shape).astype(np.float32)
    now[:3] += 60  # these have slipped onto something else
    [one] = objects.follow(tracks(now, 1))
    assert one.doubtful.tolist() == [0, 1, 2]
    assert one.following.tolist() == list(range(3, 16))
    assert one.box is not None
    corners = moved(MOTIONS[motion], first.box)
    assert np.linalg.norm(one.box - corners, axis=1).max() < 3
    told = with_objects(tracks(now, 1), (one,))
    assert (told.uncertainty[:3] >= 0.5).all()
    assert not told.uncertainty[3:].any()


def test_hidden_points_are_placed_by_their_object() -> None:
    objects, motion = Objects("similarity"), MOTIONS["similarity"]
    objects.follow(tracks(PLACES))
    now = moved(motion, PLACES)
    shown = now.copy()
    shown[[2, 5]] = 7.0  # where the model lost them
    visible = np.ones(16, np.bool_)
    visible[[2, 5]] = False
    seen = tracks(shown, 1, visible)
    told = with_objects(seen, objects.follow(seen))
    np.testing.assert_allclose(told.xy, now, atol=0.5)
    assert told.visible.tolist() == visible.tolist(), "where a point is does not say that it is seen"
    np.testing.assert_array_equal(seen.xy[2], [7, 7])


def test_a_point_that_comes_later_enters_where_it_was_on_the_first_picture() -> None:
    objects, motion = Objects("similarity"), MOTIONS["similarity"]
    early = np.arange(16) != 9
    objects.follow(tracks(PLACES, visible=early))
    objects.follow(tracks(moved(motion, PLACES), 1))
    visible = np.ones(16, np.bool_)
    visible[9] = False
    seen = tracks(np.where(visible[:, None], PLACES, 0), 2, visible)
    told = with_objects(seen, objects.follow(seen))
    np.testing.assert_allclose(told.xy[9], PLACES[9], atol=0.5)


def test_an_object_begins_on_the_first_frame_with_enough_points() -> None:
    """Its points are then all as of that frame, though some were seen before."""
    objects = Objects()
    assert objects.follow(tracks(PLACES, visible=np.arange(16) < 2)) == ()
    [one] = objects.follow(tracks(PLACES + 50, 1))
    assert one.matrix is not None
    np.testing.assert_allclose(one.matrix, np.eye(3), atol=1e-3)
    assert len(one.following) == 16


@pytest.mark.parametrize("motion", LEAST)
def test_too_few_points_are_no_object(motion: Motion) -> None:
    few = LEAST[motion] - 1
    objects = Objects(motion)
    assert objects.follow(tracks(PLACES[:few])) == ()
    objects = Objects(motion)
    objects.follow(tracks(PLACES))
    visible = np.arange(16) < few
    [lost] = objects.follow(tracks(moved(MOTIONS[motion], PLACES), 1, visible))
    assert not lost.found
    assert lost.box is None
    assert lost.placed == {}
    assert with_objects(tracks(PLACES, 1), (lost,)).xy.tobytes() == tracks(PLACES, 1).xy.tobytes()


@pytest.mark.parametrize("motion", LEAST)
def test_points_that_disagree_are_no_object(motion: Motion) -> None:
    scattered = RNG.uniform(0, 640, (16, 2)).astype(np.float32)
    matrix, agrees = fit(PLACES, scattered, motion, 4)
    assert matrix is None
    assert not agrees.any()


@pytest.mark.parametrize("motion", LEAST)
@given(
    st.lists(st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 4), max_size=12),
)
def test_no_points_make_it_fail_or_invent(motion: Motion, pairs: list[tuple[float, ...]]) -> None:
    both = np.array(pairs, np.float32).reshape(-1, 4)
    matrix, agrees = fit(both[:, :2], both[:, 2:], motion, 4)
    assert len(agrees) == len(both)
    if matrix is not None:
        assert np.isfinite(matrix).all()
        assert agrees.sum() >= LEAST[motion]
        assert np.linalg.norm(moved(matrix, both[agrees, :2]) - both[agrees, 2:], axis=1).max() < 4.1


def test_groups_are_apart_and_points_without_one_belong_to_none() -> None:
    xy = np.concatenate([PLACES[:8], PLACES[8:], PLACES[:4] + 100])
    labels = {id: Label(group="cup" if id < 8 else "lid") for id in range(16)}
    objects = Objects()
    both = make_tracks(0, xy, size=(640, 480), labels=labels)
    assert [one.name for one in objects.follow(both)] == ["cup", "lid"]
    moved_cup = np.concatenate([PLACES[:8] + 30, xy[8:]]).astype(np.float32)
    cup, lid = objects.follow(make_tracks(1, moved_cup, size=(640, 480), labels=labels))
    assert cup.matrix is not None
    assert lid.matrix is not None
    np.testing.assert_allclose(cup.matrix[:2, 2], [30, 30], atol=0.5)
    np.testing.assert_allclose(lid.matrix[:2, 2], [0, 0], atol=0.5)


def test_objects_go_over_the_wire() -> None:
    objects = Objects()
    objects.follow(tracks(PLACES))
    now = moved(MOTIONS["similarity"], PLACES)
    now[0] += 90
    told = with_objects(tracks(now, 1), objects.follow(tracks(now, 1)))
    [sent], [found] = told.objects, wire.decode(wire.encode(told)).objects
    assert (found.name, found.seen) == ("cup", 16)
    assert found.following.tolist() == sent.following.tolist()
    assert found.doubtful.tolist() == [0]
    np.testing.assert_array_equal(found.matrix, sent.matrix)
    np.testing.assert_array_equal(found.box, sent.box)
    assert b"objects" not in wire.encode(make_tracks(camera="a"))


@pytest.mark.parametrize("motion", ["affine", "homography"])
@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_points_near_a_line_do_not_settle_what_is_beside_it(motion: Motion, noise: float) -> None:
    random = np.random.default_rng(4)
    line = np.column_stack([np.linspace(200, 400, 8), np.full(8, 240.0)])
    for _ in range(20):
        source, target = (line + random.normal(0, noise, line.shape) for _ in range(2))
        matrix, agrees = fit(np.asarray(source, np.float32), np.asarray(target, np.float32), motion, 4.0)
        assert matrix is None
        assert not agrees.any()


@pytest.mark.parametrize("motion", ["affine", "homography"])
def test_small_things_are_found_all_the_same(motion: Motion) -> None:
    random = np.random.default_rng(5)
    card = random.uniform([300, 200], [325, 217], (8, 2))
    found = 0
    for _ in range(40):
        target = card + np.array([30, -20]) + random.normal(0, 0.5, card.shape)
        found += fit(np.asarray(card, np.float32), np.asarray(target, np.float32), motion, 4.0)[0] is not None
    assert found > 34


def test_a_similarity_needs_no_more_than_a_line() -> None:
    line = np.column_stack([np.linspace(200, 400, 8), np.full(8, 240.0)]).astype(np.float32)
    matrix, agrees = fit(line, line + 5, "similarity", 4.0)
    assert matrix is not None
    assert agrees.all()


@pytest.mark.parametrize("motion", MOTIONS)
def test_after_a_restart_an_object_is_told_against_where_it_was_first_seen(motion: Motion) -> None:
    before, after = Objects(motion), Objects(motion)
    before.follow(tracks(PLACES))
    after.restore(before.references)
    now = moved(MOTIONS[motion], PLACES)
    [one], [other] = before.follow(tracks(now, 1)), after.follow(tracks(now))
    assert one.matrix is not None
    assert np.abs(one.matrix - np.eye(3)).max() > 0.1
    np.testing.assert_array_equal(other.matrix, one.matrix)
    np.testing.assert_array_equal(other.box, one.box)


def test_an_object_is_saved_before_and_after_the_first_frame_of_a_run_that_goes_on() -> None:
    before, after = Objects(), Objects()
    assert before.references == {}
    before.follow(tracks(PLACES))
    after.restore(before.references)
    for references in (after.references, (after.follow(tracks(PLACES)), after.references)[1]):
        assert list(references) == ["cup"]
        assert references["cup"].ids == tuple(range(16))
        np.testing.assert_array_equal(references["cup"].xy, PLACES)


def test_in_a_picture_of_another_size_an_object_begins_anew() -> None:
    before, after = Objects(), Objects()
    before.follow(tracks(PLACES))
    after.restore(before.references)
    small = replace(tracks(PLACES / 2), width=320, height=240)
    [one] = after.follow(small)
    np.testing.assert_allclose(one.matrix, np.eye(3), atol=1e-3)
    assert after.references["cup"].size == (320, 240)


def test_a_group_that_is_gone_is_not_saved_again() -> None:
    before, after = Objects(), Objects()
    before.follow(tracks(PLACES))
    after.restore(before.references)
    after.follow(tracks(PLACES, group="plate"))
    assert list(after.references) == ["plate"]
