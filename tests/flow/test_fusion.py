"""Two sensors, one position: flow between the model's answers, and the model's word on what is visible."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from online_tapir.flow.fusion import GAIN, GATE, MOST_ANCHORS, REMEMBERED, Fusion
from online_tapir.records import Frame, Tracks
from online_tapir.testing import make_tracks, sliding_pictures

SIZE = (320, 240)
STEP = np.array([-3, -1], np.float32)  # that the picture moves a frame
XY = np.array([[150, 100], [200, 140]], np.float32)


class Scene:
    """A fusion on a picture that slides, with a cut to another scene after `cut` frames."""

    def __init__(self, cut: int | None = None, anchors: bool = False) -> None:
        self.fusion = Fusion(anchors=anchors)
        self.pictures = sliding_pictures(40, SIZE[1], SIZE[0])
        if cut is not None:
            self.pictures[cut:] = sliding_pictures(40 - cut, SIZE[1], SIZE[0], seed=9)
        self.next = 0

    def carry(self, frames: int = 1) -> None:
        for _ in range(frames):
            self.fusion.carry(Frame(self.next, self.next, self.next, self.pictures[self.next]))
            self.next += 1

    def answer(self, frame_id: int, offset: Any = (0, 0), visible: Any = True) -> Tracks:
        """What a model with an error of `offset` pixels says of a frame."""
        xy = XY + frame_id * STEP + np.asarray(offset, np.float32)
        hidden = np.where(visible, 0.05, 0.95)
        return make_tracks(frame_id, xy, visible=visible, occlusion=hidden, size=SIZE)

    @property
    def now(self) -> Tracks:
        return self.fusion.now(make_tracks(self.next - 1, np.empty((0, 2)), size=SIZE))


def begun(cut: int | None = None, anchors: bool = False) -> Scene:
    scene = Scene(cut, anchors)
    scene.carry()
    scene.fusion.add(np.arange(2, dtype=np.int32), XY, None)
    return scene


def distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(one - other, axis=1).max())


def test_points_are_answered_for_at_once_and_on_every_frame_without_the_model() -> None:
    scene = begun()
    assert_array_equal(scene.now.xy, XY)
    assert scene.now.visible.all()
    for frame_id in range(1, 8):
        scene.carry()
        assert distance(scene.now.xy, XY + frame_id * STEP) < 0.2
    assert scene.now.model_frame_id == -1


def test_inside_the_gate_a_late_answer_pulls_a_little() -> None:
    scene = begun()
    scene.carry(6)
    before = scene.now.xy
    scene.fusion.correct(scene.answer(4, offset=(1, 0)))
    assert_allclose(scene.now.xy - before, np.broadcast_to((GAIN, 0), XY.shape), atol=0.06)
    assert scene.now.model_frame_id == 4


def test_a_point_that_looks_like_at_its_start_neither_drifts_nor_is_pulled_off() -> None:
    scene = begun(anchors=True)
    for frame_id in range(1, 30):
        scene.carry()
        scene.fusion.correct(scene.answer(frame_id, offset=(1, 0.5)))
        assert distance(scene.now.xy, XY + frame_id * STEP) < 0.05
    far = scene.answer(29, offset=(40, 25))
    scene.fusion.correct(far)  # beyond the gate the model is right
    assert distance(scene.now.xy, far.xy) < 0.3


def test_looks_to_compare_with_are_few_and_forgotten_with_their_points() -> None:
    scene = begun(anchors=True)
    for number in range(2, 12):
        scene.carry()
        scene.fusion.add(np.array([number], np.int32), XY[:1] + (scene.next - 1) * STEP, None)
    scene.carry()
    assert len(scene.fusion._anchors) == MOST_ANCHORS
    scene.fusion.keep(np.empty(0, np.int32))
    scene.carry()
    assert not scene.fusion._anchors


def test_outside_the_gate_the_models_position_is_carried_from_its_frame_to_now() -> None:
    scene = begun()
    scene.carry(6)
    far = np.array([40, 25], np.float32)
    assert np.linalg.norm(far) > GATE * max(SIZE)
    scene.fusion.correct(scene.answer(3, offset=far))
    assert distance(scene.now.xy, XY + 6 * STEP + far) < 0.3
    assert scene.now.visible.all()


def test_a_point_that_the_model_is_shy_about_is_visible_where_flow_agrees() -> None:
    scene = begun()
    scene.carry()
    shy = replace(scene.answer(1, visible=False), occlusion=np.full(2, 0.8, np.float32))
    scene.fusion.correct(replace(shy, xy=shy.xy + np.array([[0.5, 0], [30, 0]], np.float32)))
    assert_array_equal(scene.now.visible, [True, False])  # for the second the two disagree


def test_the_less_certain_the_model_is_of_a_position_the_less_it_pulls() -> None:
    left = []
    for uncertainty in (0.0, 0.5, 1.0):
        scene = begun()
        scene.carry()
        told = scene.answer(1, offset=(1, 0))
        scene.fusion.correct(replace(told, uncertainty=np.full(2, uncertainty, np.float32), visible=np.ones(2, bool)))
        left.append(distance(scene.now.xy, told.xy))
    assert_allclose(left, [1 - GAIN, 1 - GAIN / 2, 1], atol=0.1)


def test_what_the_model_says_is_hidden_is_hidden_and_not_carried_by_what_hides_it() -> None:
    scene = begun()
    scene.carry(3)
    scene.fusion.correct(scene.answer(3, visible=[True, False]))
    assert_array_equal(scene.now.visible, [True, False])
    held = scene.now.xy[1]
    scene.carry(3)
    assert_array_equal(scene.now.xy[1], held)
    assert_array_equal(scene.now.visible, [True, False])
    scene.fusion.correct(scene.answer(5))
    assert scene.now.visible.all()
    assert distance(scene.now.xy, XY + 6 * STEP) < 0.3


def test_a_point_that_flow_loses_is_held_doubtful_and_never_visible_until_the_model_answers() -> None:
    scene = begun(cut=4)
    scene.carry(3)
    before = scene.now.xy
    scene.carry()  # the cut
    lost = ~scene.now.visible
    assert lost.all()
    assert (scene.now.uncertainty[lost] >= 0.5).all()
    scene.carry(5)
    assert not scene.now.visible.any()
    assert distance(scene.now.xy, before) < 60  # held about where they were
    scene.fusion.correct(scene.answer(2))  # of before the cut: carried over it, and lost again
    assert not scene.now.visible.any()
    scene.fusion.correct(make_tracks(9, [[40, 40], [60, 70]], size=SIZE))
    assert scene.now.visible.all()
    assert distance(scene.now.xy, np.array([[40, 40], [60, 70]], np.float32)) < 1e-3


@pytest.mark.parametrize("named_on", [2, 5])
def test_a_point_named_on_a_past_frame_appears_where_flow_carries_it(named_on: int) -> None:
    scene = begun()
    scene.carry(6)
    scene.fusion.add(np.array([7], np.int32), XY[:1] + named_on * STEP, named_on)
    assert scene.now.ids.tolist() == [0, 1, 7]
    assert distance(scene.now.xy[2:], XY[:1] + 6 * STEP) < 0.3


def test_a_point_named_on_a_past_frame_looks_as_it_did_there_and_where_it_was_named() -> None:
    scene = begun(anchors=True)
    scene.carry(6)
    named = XY[:1] + 2 * STEP
    scene.fusion.add(np.array([7], np.int32), named, 2)
    point = scene.fusion._points[2]
    assert point["anchor"] == 2
    assert_array_equal(point["anchor_xy"], named[0])


def test_points_are_forgotten_one_by_one_and_answers_for_them_are_ignored() -> None:
    scene = begun()
    scene.carry(2)
    scene.fusion.keep(np.array([1], np.int32))
    scene.fusion.correct(scene.answer(2))
    assert scene.now.ids.tolist() == [1]
    assert distance(scene.now.xy, XY[1:] + 2 * STEP) < 0.2


def test_an_answer_older_than_what_is_remembered_changes_only_what_was_lost() -> None:
    scene = begun()
    scene.carry(30)
    before = scene.now.xy
    scene.fusion.correct(scene.answer(1, offset=(3, 3), visible=[True, False]))
    assert_array_equal(scene.now.xy, before)
    assert_array_equal(scene.now.visible, [True, False])


def test_a_point_that_was_hidden_or_lost_is_carried_as_far_as_an_answer_that_is_too_old_can_be() -> None:
    scene = begun()
    scene.carry(3)
    scene.fusion.correct(scene.answer(3, visible=[True, False]))
    scene.carry(30)
    told = scene.answer(20)
    oldest = scene.next - REMEMBERED
    scene.fusion.correct(told)
    assert scene.now.visible.all()
    carried = told.xy[1:] + (scene.next - 1 - oldest) * STEP
    assert distance(scene.now.xy[1:], carried) < 1, "by flow, from the oldest frame that is remembered"
    lost = begun(cut=4)
    lost.carry(28)
    assert not lost.now.visible.any()
    lost.fusion.correct(make_tracks(10, [[150, 120], [200, 160]], size=SIZE))
    assert lost.now.visible.all()


def test_a_point_that_comes_back_from_hiding_is_carried_and_not_pulled() -> None:
    scene = begun()
    scene.carry(3)
    scene.fusion.correct(scene.answer(3, visible=[True, False]))
    scene.carry(5)
    scene.fusion.correct(scene.answer(4))
    assert distance(scene.now.xy, XY + 8 * STEP) < 0.3


def test_where_points_were_is_known_for_remembered_frames_alone() -> None:
    scene = begun()
    scene.carry(20)
    ids = np.arange(2, dtype=np.int32)
    there = scene.fusion.where(ids, 18)
    assert there is not None
    assert distance(there[0], XY + 18 * STEP) < 0.5
    assert there[1].all()
    assert scene.fusion.where(ids, 1) is None
    assert scene.fusion.where(np.array([5], np.int32), 18) is None
