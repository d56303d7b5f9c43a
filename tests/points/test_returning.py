"""A point that comes back is believed when two answers agree, or its object does; others are left alone."""

from typing import Any

import numpy as np
import pytest

from online_tapir.points.returning import HIDDEN, NEAR, Returns
from online_tapir.records import TrackedObject, Tracks
from online_tapir.testing import make_tracks

SIZE = (640, 480)
STEP = 640 * NEAR


def tracks(answer: int, x: float, seen: bool, other: float = 5.0) -> Tracks:
    """A point of id 3 at x, and one of id 4 that is always seen."""
    places = np.array([[x, 100], [other, 200]], np.float32)
    return make_tracks(answer, places, ids=[3, 4], visible=[seen, True], size=SIZE, model_frame_id=answer)


def shown(frames: list[tuple[float, bool]], **how: Any) -> list[bool]:
    returns = Returns()
    return [bool(returns.sift(tracks(answer, x, seen), **how).visible[0]) for answer, (x, seen) in enumerate(frames)]


AWAY = [(100.0, True)] + [(100.0, False)] * HIDDEN


def test_a_point_that_comes_back_is_shown_with_the_second_answer_that_agrees() -> None:
    assert shown([*AWAY, (102, True), (104, True), (106, True)])[-3:] == [False, True, True]


def test_a_point_that_jumps_about_is_not_shown_until_it_stays() -> None:
    jumps = [(100, True), (100 + 2 * STEP, True), (100 + 4 * STEP, True), (101 + 4 * STEP, True)]
    assert shown([*AWAY, *jumps])[-4:] == [False, False, False, True]


def test_one_lucky_frame_is_never_shown() -> None:
    assert shown([*AWAY, (100, True), (100, False), (100, False)])[-3:] == [False, False, False]


@pytest.mark.parametrize("hidden", range(HIDDEN))
def test_a_short_absence_needs_no_proof(hidden: int) -> None:
    assert shown([(100, True), *[(100, False)] * hidden, (100, True)])[-1]


def test_a_point_that_follows_its_object_is_shown_at_once() -> None:
    ids = np.array([3], np.int32)
    one = TrackedObject("cup", np.eye(3), np.zeros((4, 2), np.float32), 1, ids, np.empty(0, np.int32), {})
    assert shown([*AWAY, (102, True)], objects=(one,))[-1]


def test_frames_that_flow_carried_prove_nothing_and_count_as_nothing() -> None:
    returns = Returns()
    for answer in range(2 * HIDDEN):
        tracks_ = tracks(answer // 2, 100, answer == 0)  # two frames an answer
        returns.sift(tracks_)
    assert returns.sift(tracks(HIDDEN, 100, True)).visible[0]  # hidden for four answers and a half
    returns = Returns()
    for answer, (x, seen) in enumerate(AWAY):
        returns.sift(tracks(answer, x, seen))
    first = tracks(len(AWAY), 100, True)
    assert [bool(returns.sift(first).visible[0]) for _ in range(3)] == [False, False, False]
    assert returns.sift(tracks(len(AWAY) + 1, 100, True)).visible[0]


def test_other_points_and_the_given_tracks_are_left_alone() -> None:
    returns = Returns()
    for answer, (x, seen) in enumerate(AWAY):
        returns.sift(tracks(answer, x, seen))
    given = tracks(len(AWAY), 100, True)
    sifted = returns.sift(given)
    assert sifted.visible.tolist() == [False, True]
    assert given.visible.tolist() == [True, True]
    assert sifted.xy is given.xy
