"""What comes faster is thinned out evenly, what comes at the rate itself or slower is not."""

import numpy as np
import pytest

from online_tapir.sinks.rate_limit import RateLimit

S = 1_000_000_000


def taken(times_ns: list[int], per_second: float | None) -> list[int]:
    pace = RateLimit(per_second)
    return [time_ns for time_ns in times_ns if pace.due(time_ns)]


def moments(fps: float, seconds: float = 10, jitter_s: float = 0.0) -> list[int]:
    noise = np.random.default_rng(0).uniform(-jitter_s, jitter_s, round(fps * seconds))
    return [round((index / fps + late) * S) for index, late in enumerate(noise)]


@pytest.mark.parametrize("fps", [30.5, 59.94, 60, 90, 120, 240])
def test_of_what_comes_faster_as_many_are_taken_as_were_asked_for(fps: float) -> None:
    times = taken(moments(fps), 30)
    assert 295 <= len(times) <= 301
    assert np.diff(times).max() < 2.1 * S / 30


@pytest.mark.parametrize("fps", [1, 24, 29.97, 30])
def test_what_comes_no_faster_is_taken_whole_though_it_jitters(fps: float) -> None:
    times = moments(fps, jitter_s=0.003)
    assert taken(times, 30) == times


def test_without_a_rate_everything_is_taken() -> None:
    times = moments(1000, 1)
    assert taken(times, None) == times


def test_after_a_pause_there_is_nothing_to_catch_up_with() -> None:
    before, after = moments(60, 1), [10 * S + time_ns for time_ns in moments(60, 1)]
    assert len(taken(before + after, 30)) <= 62


def test_a_clock_that_was_set_back_begins_anew() -> None:
    assert len(taken([100 * S, *moments(60, 1)], 30)) >= 30
