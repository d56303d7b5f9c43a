"""Reliability says what it should of probabilities that are right, too sure or too shy; so do thresholds."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from bench import calibration
from bench.calibration import Reliability, Told, foregrounds, mended, points_on, thresholds
from online_tapir.model.checkpoint import save_weights
from online_tapir.testing import tiny_config, tiny_model


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def drawn(temperature: float, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities told [K], and what came true with the logits divided and shifted."""
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 2, 40_000)
    return sigmoid(logit), rng.random(40_000) < sigmoid(logit / temperature + shift)


def test_probabilities_that_are_right_have_no_error_and_need_no_mending() -> None:
    found = Reliability.of(*drawn(1.0))
    assert found.error < 0.01
    assert (found.temperature, found.shift) == pytest.approx((1.0, 0.0), abs=0.06)
    assert sum(found.count) == 40_000


def test_those_that_are_too_sure_or_too_shy_are_told_by_how_much() -> None:
    assert Reliability.of(*drawn(2.0)).error > 0.05
    assert mended(*drawn(2.0)) == pytest.approx((2.0, 0.0), abs=0.15)
    assert mended(*drawn(0.6)) == pytest.approx((0.6, 0.0), abs=0.1)
    assert mended(*drawn(1.0, 1.0)) == pytest.approx((1.0, 1.0), abs=0.15)


def test_a_threshold_reports_what_exceeds_it_and_counts_what_of_that_is_right() -> None:
    shown = np.array([[0.9, 0.5], [0.22, 0.9]])
    visible = np.array([[True, True], [False, True]])
    error = np.array([[1.0, 1.0], [1.0, 50.0]])
    xy = np.zeros((2, 2, 2))
    told = Told("scenes", shown, np.ones((2, 2)), visible, error, xy, xy + error[..., None] / np.sqrt(2))
    found = thresholds([told])
    assert found["scenes, above 0.2"]["reported, of the visible"] == pytest.approx(100 * 4 / 3, abs=0.1)
    assert found["scenes, above 0.2"]["visible and right, of the reported"] == 50.0
    assert found["scenes, above 0.25"]["visible and right, of the reported"] == pytest.approx(200 / 3, abs=0.1)
    assert found["scenes, above 0.6"]["occlusion accuracy"] == 75.0


def test_what_moves_before_a_still_camera_is_found() -> None:
    rng = np.random.default_rng(0)
    still = rng.integers(80, 120, (48, 64, 3)).astype(np.uint8)
    frames = [still.copy() for _ in range(12)]
    for number, frame in enumerate(frames):
        frame[10:26, 4 * number : 4 * number + 12] = 255
    mask = list(foregrounds(frames))[5]
    assert mask[11:25, 21:31].all()
    assert not mask[30:].any()
    xy = points_on(mask, 20)
    assert len(xy) == 20
    assert ((xy >= (19, 9)) & (xy <= (33, 27))).all()


def test_the_figures_of_a_model(tmp_path: Path) -> None:
    weights = tmp_path / "tiny.safetensors"
    save_weights(weights, tiny_model(tiny_config(recent_inputs=True)), {})
    video = tmp_path / "still.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for number in range(30):
        frame = np.full((64, 96, 3), 90, np.uint8)
        frame[20:50, 3 * number : 3 * number + 30] = 230
        writer.write(frame)
    writer.release()
    settings = calibration.Settings(
        model=str(weights), inputs=("96x64",), clips=1, frames=10, size="96x64", points=6, video=video
    )
    calibration.main(settings, json=tmp_path / "found.json", plot=tmp_path / "found.svg")
    found = json.loads((tmp_path / "found.json").read_text())["results"]
    assert set(found["reliability"]["96x64"]) == {"not hidden", "right, where visible", "visible and right"}
    assert "96x64, above 0.1" in found["video"]
    assert set(found["video"]) <= {f"96x64, above {above:g}" for above in calibration.THRESHOLDS}
    assert (tmp_path / "found.svg").read_text().count("<svg") == 1
