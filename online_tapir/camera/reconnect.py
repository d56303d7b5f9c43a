"""When to reopen a live source that fails, and its state meanwhile; `Capture` does the work."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

from online_tapir.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Reconnect:
    """When a live source has failed, and how often and how soon it is reopened.

    attempts is the number of failed reconnects in a row after which the source's own error is raised: None means no
    limit, 0 no reconnects. Waits double from first_wait_s to longest_wait_s. A source that delivers no frame for
    stall_timeout_s has failed. Raises ConfigError for invalid values.
    """

    attempts: int | None = None
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    stall_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts is not None and self.attempts < 0:
            raise ConfigError(f"{self.attempts} attempts to reconnect were asked for; give 0 or more")
        if not 0 < self.first_wait_s <= self.longest_wait_s < float("inf"):
            raise ConfigError(
                f"waits from {self.first_wait_s:g} to {self.longest_wait_s:g} s before reconnecting were asked for; "
                f"the first must be above 0 and the longest no shorter"
            )
        if not 0 < self.stall_timeout_s < float("inf"):
            raise ConfigError(f"a stall time-out of {self.stall_timeout_s:g} s was asked for; give one above 0")

    def waits(self, jitter: Callable[[], float] = random.random) -> Iterator[float]:
        """Yields the seconds to wait before each attempt.

        Exponential back-off with equal jitter (M. Brooker, "Exponential Backoff And Jitter", 2015): half of each wait
        is fixed and jitter(), in [0, 1), scales the other half, so that many trackers do not hit one camera at once.
        """
        wait_s = self.first_wait_s
        for _ in count() if self.attempts is None else range(self.attempts):
            yield wait_s * (1 + jitter()) / 2
            wait_s = min(2 * wait_s, self.longest_wait_s)


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a source at one moment.

    streaming: frames come. stalled: it is open, or being opened, but has delivered none for too long. lost: it failed,
    or cannot be opened. since_ns (monotonic) is when frames began to come, or when their absence was noticed.
    reconnects counts its returns, corrupt the frames that could not be decoded; reason is the error that stopped it, ""
    while it streams.
    """

    state: Literal["streaming", "stalled", "lost"]
    since_ns: int
    reconnects: int = 0
    corrupt: int = 0
    reason: str = ""
