"""The window bench prices late queries, and its frames late and dropped are those of hand-made cases."""

import json

import pytest

from bench.command import BenchError
from bench.window import Settings, Trial, figures, main, missed


@pytest.mark.parametrize(
    ("late_ms", "plain_ms", "late", "dropped"),
    [
        (20, 10, 0, 0),
        (30, 10, 0, 0),  # done as the next frame comes is not late
        (35, 10, 1, 0),  # frame 1 waits 5 ms and is done at 45, in time
        (35, 26, 2, 0),  # frame 1 is done at 61, late; frame 2, at 87, is not
        (65, 10, 1, 1),  # frame 1 is gone when frame 2 is taken
        (125, 20, 1, 3),
        (125, 29, 5, 3),  # it takes as long to come back as there is to spare
        (200, 30, 0, 0),  # a model that has no time to spare is late by itself
        (200, 99, 0, 0),
    ],
)
def test_frames_late_and_dropped_are_those_because_of_the_query(
    late_ms: float, plain_ms: float, late: int, dropped: int
) -> None:
    assert missed(Trial(late_ms, plain_ms), period_ms=30) == (late, dropped)


def test_the_price_is_the_difference_of_neighbours() -> None:
    found = figures([Trial(30, 10), Trial(35, 10), Trial(130, 100)], period_ms=33)
    assert (found["price_ms"].p50, found["price_ms"].max, found["late_ms"].max) == (25, 30, 130)
    assert (found["frames_late"].p50, found["frames_late"].max) == (0, 1)


def test_every_kind_of_query_is_asked_of_the_tracker(capsys: pytest.CaptureFixture[str]) -> None:
    ages = (0, 1, 3)
    main(Settings(tracked=1, points=(1, 7), ages=ages, window=3, size="49x33", rounds=2, warm_up=1, threads=1))
    results = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert [(one["setting"]["points"], one["setting"]["age"]) for one in results["runs"]] == [
        (points, age) for age in ages for points in (1, 7)
    ]
    assert {one["price_ms"]["count"] for one in results["runs"]} == {2}
    assert results["plain_ms"]["count"] == 2 * len(results["runs"])


def test_an_age_beyond_the_window_is_refused() -> None:
    with pytest.raises(BenchError, match="33 has left the window of 32"):
        main(Settings(ages=(1, 33)))
