"""Thins out a stream of moments to a maximum rate."""

EARLY = 0.25  # tolerance, as a share of the period: jitter does not thin out a source that has the wanted rate


class RateLimit:
    """Picks moments from a stream, at most `per_second` of them a second."""

    def __init__(self, per_second: float | None) -> None:
        """None takes them all."""
        self._period_ns = 0 if per_second is None else round(1e9 / per_second)
        self._due_ns: int | None = None

    def due(self, now_ns: int) -> bool:
        """Whether to take the moment now_ns. Starts over if the clock was set back."""
        due_ns = now_ns if self._due_ns is None or self._due_ns - now_ns > 2 * self._period_ns else self._due_ns
        if now_ns < due_ns - EARLY * self._period_ns:
            return False
        self._due_ns = max(due_ns + self._period_ns, now_ns)
        return True
