"""What is held at the end of every frame's period is scored, and drawn where it is held."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.streaming import NS, Clip, Heard, draw_strip, scored
from online_tapir.testing import make_tracks

FPS, FRAMES = 10, 12
PERIOD_NS = NS // FPS
XY = np.zeros((1, FRAMES, 2), np.float32) + 20
XY[0, :, 0] += 10 * np.arange(FRAMES)
CLIP = Clip("moving", np.full((FRAMES, 160, 200, 3), 60, np.uint8), XY, np.ones((1, FRAMES), np.bool_))


def heard(late_ns: int) -> list[Heard]:
    """True messages, each received so long after its frame's capture."""
    frames = [make_tracks(number, XY[:, number], captured_ns=number * PERIOD_NS) for number in range(FRAMES)]
    return [Heard(tracks.captured_ns + late_ns, tracks) for tracks in frames]


def test_a_true_message_in_time_is_right_and_the_same_one_late_is_not() -> None:
    in_time, late = (scored(CLIP, FPS, heard(late_ns)) for late_ns in (PERIOD_NS // 2, 3 * PERIOD_NS // 2))
    assert in_time.streaming.average_jaccard == pytest.approx(1)
    assert in_time.answered == FRAMES - 1
    assert late.offline.average_jaccard == pytest.approx(1)
    assert late.streaming.average_jaccard < 0.5
    assert late.answered == 0
    assert np.abs(in_time.held_xy - XY).max() == 0
    assert late.held_xy[0, 5, 0] == XY[0, 4, 0]


def test_a_strip_has_a_row_for_each_tracker_with_the_truth_and_what_is_held(tmp_path: Path) -> None:
    draw_strip(CLIP, {"right": XY, "late": np.roll(XY, 1, axis=1)}, tmp_path / "strip.png")
    drawn = cv2.imread(str(tmp_path / "strip.png"))
    assert drawn is not None
    half = drawn.shape[0] // 2
    green = (drawn == (90, 220, 90)).all(axis=2)
    orange = (drawn == (0, 140, 255)).all(axis=2)
    assert green[:half].sum() > 5
    behind = np.nonzero(orange[:half])[1].mean() - np.nonzero(orange[half:])[1].mean()
    assert behind == pytest.approx(2 * 10, abs=2)  # drawn twice as large
