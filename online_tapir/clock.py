"""Clocks to pass in, so that tests need not wait; nothing here knows what a frame is."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

NS = 1_000_000_000
JUDGED = 32  # calls
SLOW = 1.1  # periods between two calls


class Clock(Protocol):
    """A source of time that a test can replace."""

    def monotonic_ns(self) -> int: ...

    def unix_ns(self) -> int: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock."""

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def unix_ns(self) -> int:
        return time.time_ns()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class StepClock:
    """A clock for tests: it stands still until `sleep`, which returns at once and advances it."""

    def __init__(self, monotonic_ns: int = 0, unix_ns: int = 0) -> None:
        self._monotonic_ns = monotonic_ns
        self._unix_ns = unix_ns

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def unix_ns(self) -> int:
        return self._unix_ns

    def sleep(self, seconds: float) -> None:
        step_ns = round(seconds * NS)
        self._monotonic_ns += step_ns
        self._unix_ns += step_ns


class Stopwatch:
    """Nanoseconds from lap to lap."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ns = clock.monotonic_ns()

    def lap(self) -> int:
        now_ns = self._clock.monotonic_ns()
        elapsed_ns, self._last_ns = now_ns - self._last_ns, now_ns
        return elapsed_ns


class Pace:
    """Limits its caller to fps calls a second; a late caller passes at once, but does not catch up in a burst.

    Once half of JUDGED calls in a row are SLOW, calls `behind` with the rate that is reached.
    """

    def __init__(self, fps: float, clock: Clock, behind: Callable[[float], None] | None = None) -> None:
        self._behind = behind
        self._called_ns: list[int] = []
        self._period_ns = round(NS / fps)
        self._clock = clock
        self._due_ns: int | None = None

    def wait(self) -> None:
        now_ns = self._clock.monotonic_ns()
        due_ns = now_ns if self._due_ns is None else self._due_ns
        if now_ns > due_ns + self._period_ns:
            due_ns = now_ns
        if due_ns > now_ns:
            self._clock.sleep((due_ns - now_ns) / NS)
        self._due_ns = due_ns + self._period_ns
        if self._behind is not None:
            self._judge(now_ns)

    def _judge(self, now_ns: int) -> None:
        """By the median interval: a pause in between does not count."""
        self._called_ns.append(now_ns)
        if len(self._called_ns) <= JUDGED:
            return
        intervals = sorted(later - earlier for earlier, later in pairwise(self._called_ns))
        self._called_ns.clear()
        median_ns = intervals[JUDGED // 2]
        if median_ns > SLOW * self._period_ns and self._behind is not None:
            self._behind(NS / median_ns)
            self._behind = None


MakePace = Callable[[float], Pace]  # of a rate
