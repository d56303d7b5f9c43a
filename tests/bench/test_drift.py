"""The drift bench measures nothing where there is nothing, and what there is where there is something."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench import drift
from online_tapir.records import StageTimes, Tracks


def tracks(shift: float, visible: list[bool]) -> Tracks:
    count = len(visible)
    xy = np.full((count, 2), 5.0, np.float32) + np.float32([shift, 0])
    zeros = np.zeros(count, np.float32)
    return Tracks(0, 0, 0, 16, 16, np.arange(count, dtype=np.int32), xy, np.array(visible), zeros, zeros)


def test_distances_are_those_of_points_that_both_see() -> None:
    exact, found = tracks(0.0, [True, True, False]), tracks(2.0, [True, False, True])
    assert drift.distances([exact], [found]).tolist() == [2.0]
    assert drift.visible_differs([exact], [found]) == pytest.approx(2 / 3, abs=1e-4)


def test_float32_does_not_stray_from_itself(capsys: pytest.CaptureFixture[str]) -> None:
    drift.main(replace(drift.Settings(), dtypes=("float32",), points=3, frames=2, device="cpu"))
    results = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert results["px"]["float32"]["max"] == 0
    assert results["float32_visible_differs"] == 0
    assert results["float32_time"] == 1


def test_the_time_of_a_step_is_the_sum_of_its_stages_and_what_is_slow_at_first_is_left_out() -> None:
    slow, usual = (
        replace(tracks(0, []), times=StageTimes(capture=10**9, upload=1, encode=2, match=3, refine=4, download=n))
        for n in (10**9, 999_990)
    )
    assert drift.step_ms([slow] * drift.WARM_UP + [usual] * (drift.WARM_UP + 1)) == 1
