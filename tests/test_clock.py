import pytest

from online_tapir.clock import NS, Pace, StepClock


def test_a_pace_lets_through_at_its_rate() -> None:
    clock = StepClock(monotonic_ns=5 * NS)
    pace = Pace(25.0, clock)
    times = []
    for _ in range(4):
        pace.wait()
        times.append(clock.monotonic_ns() - 5 * NS)
    assert times == [0, 40_000_000, 80_000_000, 120_000_000]


def test_a_short_delay_is_made_up_for() -> None:
    clock = StepClock()
    pace = Pace(10.0, clock)
    pace.wait()
    clock.sleep(0.15)
    pace.wait()
    pace.wait()
    assert clock.monotonic_ns() == 200_000_000


def test_a_long_delay_is_not_caught_up_in_a_burst() -> None:
    clock = StepClock()
    pace = Pace(10.0, clock)
    pace.wait()
    clock.sleep(7.0)
    pace.wait()
    assert clock.monotonic_ns() == 7 * NS
    pace.wait()
    assert clock.monotonic_ns() == 7 * NS + 100_000_000


def test_a_step_clock_moves_both_its_times() -> None:
    clock = StepClock(monotonic_ns=3, unix_ns=1000)
    clock.sleep(1e-6)
    assert (clock.monotonic_ns(), clock.unix_ns()) == (1003, 2000)


def test_a_pace_that_cannot_be_kept_is_told_once_with_the_rate_that_is_reached() -> None:
    clock, reached = StepClock(), list[float]()
    pace = Pace(30.0, clock, reached.append)
    for _ in range(200):
        pace.wait()
        clock.sleep(0.1)
    assert reached == [pytest.approx(10.0)]


def test_a_pace_that_is_kept_or_interrupted_once_tells_nothing() -> None:
    clock, reached = StepClock(), list[float]()
    pace = Pace(30.0, clock, reached.append)
    for call in range(200):
        pace.wait()
        clock.sleep(60.0 if call == 50 else 0.03)
    assert reached == []
