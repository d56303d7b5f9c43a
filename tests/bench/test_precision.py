"""Drift, jitter and shares are what one works out by hand."""

import numpy as np
import pytest

from bench import precision
from bench.streaming import Clip

XY = np.zeros((2, 30, 2), np.float32) + 10
CLIP = Clip("still", np.zeros((30, 4, 4, 3), np.uint8), XY, np.ones((2, 30), np.bool_))


def test_a_point_that_moved_away_has_drifted_and_does_not_jitter() -> None:
    held = precision.stillness([XY + np.array([3, 4], np.float32)], [CLIP])
    assert held.drift.p50 == pytest.approx(5)
    assert held.jitter.max == pytest.approx(0, abs=1e-5)


def test_a_point_that_trembles_jitters_and_has_not_drifted() -> None:
    trembling = XY.copy()
    trembling[:, ::2, 0] += 0.5
    trembling[:, 1::2, 0] -= 0.5
    held = precision.stillness([trembling], [CLIP])
    assert held.drift.max == pytest.approx(0, abs=1e-5)
    assert held.jitter.p50 == pytest.approx(0.5)


def test_shares_count_visible_points_after_the_first_frame() -> None:
    off = XY.copy()
    off[0, :, 0] += 3
    off[:, 0] += 100
    assert precision.within([off], [CLIP]) == [0.5, 0.5, 1, 1, 1]


def test_both_kinds_of_clips_begin_with_visible_points() -> None:
    settings = precision.Settings(clips=1, frames=3, still_frames=3, film="96x48", still="64x64", points=5)
    (film,) = precision.film_clips(settings)
    still = precision.still_clip(settings, 0)
    assert film.frames.shape == (3, 48, 96, 3)
    assert film.visible[:, 0].all()
    np.testing.assert_allclose(still.xy, still.xy[:, :1].repeat(3, axis=1), atol=1e-3)
