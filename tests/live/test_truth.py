"""What a subscriber holds at the end of each frame's period is compared with the truth of that frame."""

import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.camera.demo import DemoScene
from online_tapir.live.truth import LONGEST_HELD, DemoTruth
from online_tapir.records import Frame, Queries, Tracks
from online_tapir.testing import make_tracks

PERIOD_NS = 100_000_000


class Held:
    """A demo of ten frames a second whose tracks are perfect, and published `late_ns` after their capture."""

    def __init__(self, late_ns: int) -> None:
        self.scene = DemoScene(160, 120)
        self.late_ns = late_ns
        self.now_ns = 0
        self.errors: list[tuple[int, float]] = []
        self.truth = DemoTruth(self.scene, lambda *_: None, self.judge, 10.0, lambda: self.now_ns)
        self.xy = np.array([[30.0, 30.0], [80.0, 60.0]], np.float32)
        self.truth.named("demo", [Queries(np.arange(2, dtype=np.int32), self.xy, 0)])

    def judge(self, tracks: Tracks, error_px: NDArray[np.float32]) -> None:
        self.errors.append((tracks.frame_id, float(np.nanmax(error_px))))

    def publish(self, frame_id: int) -> None:
        xy, visible = self.scene.truth(self.xy, 0, frame_id)
        captured_ns = frame_id * PERIOD_NS
        self.now_ns = captured_ns + self.late_ns
        tracks = make_tracks(frame_id, xy, visible=visible, size=(160, 120), captured_ns=captured_ns)
        self.truth.publish(Frame(frame_id, captured_ns, 0, self.scene.render(frame_id)), tracks)


def test_answers_in_time_are_worth_what_they_are() -> None:
    run = Held(late_ns=PERIOD_NS // 10)
    for frame_id in range(6):
        run.publish(frame_id)
    assert [frame_id for frame_id, _ in run.errors] == [0, 1, 2, 3, 4]
    assert max(error for _, error in run.errors) < 1e-3


@pytest.mark.parametrize("periods", [1, 2])
def test_late_answers_are_wrong_by_the_motion_since(periods: int) -> None:
    run = Held(late_ns=PERIOD_NS * periods + PERIOD_NS // 10)
    for frame_id in range(6):
        run.publish(frame_id)
    assert min(error for _, error in run.errors) > 0.1


def test_frames_without_an_answer_count_with_what_is_held() -> None:
    run = Held(late_ns=PERIOD_NS // 10)
    for frame_id in (0, 1, 5):
        run.publish(frame_id)
    assert [frame_id for frame_id, _ in run.errors] == [0, 1, 1, 1, 1]
    errors = [error for _, error in run.errors]
    assert errors == sorted(errors)


def test_points_that_are_added_later_have_their_truth_and_a_pause_is_not_judged_frame_by_frame() -> None:
    run = Held(late_ns=PERIOD_NS // 10)
    for frame_id in range(3):
        run.publish(frame_id)
    run.truth.named("demo", [Queries(np.array([2], np.int32), np.array([[50.0, 50.0]], np.float32), 3)])
    run.xy = np.concatenate([run.xy, run.scene.truth(np.array([[50.0, 50.0]]), 3, 0)[0]])
    found: list[NDArray[np.float32]] = []
    run.truth._judge = lambda tracks, error_px: found.append(error_px)
    for frame_id in range(3, 6):
        run.publish(frame_id)
    assert all(np.isfinite(errors[2]) or np.isnan(errors[2]) for errors in found)
    assert not any(np.isinf(errors).any() for errors in found)
    held: list[int] = []
    run.truth._judge_held = lambda tracks, error_px: held.append(tracks.frame_id)
    run.publish(10_000)
    assert len(held) == LONGEST_HELD
