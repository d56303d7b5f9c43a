"""The scale bench fits a line that is known, tells growth that is worse, and steps every setting alike."""

import json
from typing import Any

import numpy as np
import pytest

from bench import scale
from bench.command import BenchError
from bench.scale import Curve, Setting, Settings, fit, main, to_and_fro, top_over_fit
from online_tapir.evaluation.baselines import LucasKanade

POINTS = (1, 7, 33, 256, 1024, 4096)


def test_a_line_is_fitted_exactly() -> None:
    fixed, marginal = fit(POINTS, [12 + 0.25 * n for n in POINTS])
    assert (fixed, marginal) == (pytest.approx(12), pytest.approx(0.25))


def test_one_point_weighs_as_much_as_many() -> None:
    medians = np.array([12 + 0.25 * n for n in POINTS]) * [1, 1, 1, 1, 1, 1.2]
    fixed, _ = fit(POINTS, medians.tolist())
    assert fixed == pytest.approx(12, rel=0.05)


def test_linear_growth_is_one_and_worse_is_more() -> None:
    linear = [12 + 0.25 * n for n in POINTS]
    assert top_over_fit(POINTS, linear, fit(POINTS, linear)[1]) == pytest.approx(1)
    squared = [12 + 0.001 * n**2 for n in POINTS]
    top = top_over_fit(POINTS, squared, fit(POINTS, squared)[1])
    assert top is not None
    assert top > scale.LINEAR


def test_points_that_cost_nothing_have_no_growth() -> None:
    assert top_over_fit(POINTS, [8.0, 8.1, 8.0, 8.1, 8.0, 8.1], 1e-6) is None


@pytest.mark.parametrize(
    ("ms", "enough"),
    [([900, 1, 1], False), ([900, 1, 1, 1, 1], True), ([1, 2000, 2000], False), ([1, 2000, 2000, 2000], True)],
)
def test_a_slow_setting_leaves_early_but_not_with_less_than_three_frames(ms: list[float], enough: bool) -> None:
    setting = Setting(Curve("LK", "cpu", "33x17"), 1, LucasKanade(), list(ms))
    assert setting.has_enough(frames=4, warm_up=1, seconds=5) == enough


def test_frames_slide_and_come_back() -> None:
    frames = to_and_fro("40x24")
    assert frames[0].shape == (24, 40, 3)
    assert np.array_equal(frames[1], frames[-1])
    assert np.array_equal(frames[1][:, :-2], frames[0][:, 2:])


def test_every_setting_is_measured_and_every_curve_fitted(capsys: pytest.CaptureFixture[str]) -> None:
    main(Settings(points=(7, 1), resolutions=("64x48",), frames=3, warm_up=1, threads=1, devices=("cpu", "auto")))
    document: Any = json.loads(capsys.readouterr().out.splitlines()[-1])
    runs, fits = document["results"]["runs"], document["results"]["fits"]
    assert [(one["setting"]["tracker"], one["setting"]["points"]) for one in runs[:3]] == [
        ("small", 1),
        ("LK", 1),
        ("DIS flow", 1),
    ]
    assert {one["ms"]["count"] for one in runs} == {3}
    assert [one["setting"]["tracker"] for one in fits] == ["small", "LK", "DIS flow"]
    assert fits[0]["bytes_per_point"] > 0 == len(runs[1]["stages_ms_p50"])
    assert set(runs[0]["stages_ms_p50"]) == set(scale.STAGES)
    assert "warm-up" in document["interval"] or "warm_up" in document["interval"]


def test_one_number_of_points_is_no_curve() -> None:
    with pytest.raises(BenchError, match="gives no curve"):
        main(Settings(points=(64, 64)))
