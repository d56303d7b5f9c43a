"""What is done about a live source that fails, and what is known of it meanwhile; `Capture` is who does it."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

from online_tapir.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Reconnect:
    """When a live source has failed, and how often and how soon it is opened again.

    attempts is how many openings in a row may be in vain before the source's own error is raised: None any number, 0
    none at all. Waits double from first_wait_s to longest_wait_s. A source that gives no frame for stall_timeout_s has
    failed. Raises ConfigError for what cannot be.
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
                f"the first is above 0 and the longest no shorter"
            )
        if not 0 < self.stall_timeout_s < float("inf"):
            raise ConfigError(f"a stall time-out of {self.stall_timeout_s:g} s was asked for; give one above 0")

    def waits(self, jitter: Callable[[], float] = random.random) -> Iterator[float]:
        """Seconds to wait before each attempt, as many as there are attempts.

        Exponential back-off with equal jitter (M. Brooker, "Exponential Backoff And Jitter", 2015): half of each wait
        is certain and jitter(), in [0, 1), draws of the rest, so that many trackers do not knock on one camera at once.
        """
        wait_s = self.first_wait_s
        for _ in count() if self.attempts is None else range(self.attempts):
            yield wait_s * (1 + jitter()) / 2
            wait_s = min(2 * wait_s, self.longest_wait_s)


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a source at one moment.

    streaming: frames come. stalled: it is open, and has given none for too long. lost: it failed, or cannot be opened.
    since_ns (monotonic) is when frames began to come, or were found to have ceased. reconnects counts its returns,
    corrupt the frames that could not be decoded; reason is the error that stopped it, "" while it streams.
    """

    state: Literal["streaming", "stalled", "lost"]
    since_ns: int
    reconnects: int = 0
    corrupt: int = 0
    reason: str = ""
