"""At most so many a second of what comes at a rate of its own."""

EARLY = 0.25  # of a period: a source whose own rate is the one asked for is not thinned out because it jitters


class Pace:
    """Says which of many moments are taken, so that they come `per_second` times a second at most."""

    def __init__(self, per_second: float | None) -> None:
        """None takes them all."""
        self._period_ns = 0 if per_second is None else round(1e9 / per_second)
        self._due_ns: int | None = None

    def due(self, now_ns: int) -> bool:
        """Whether the moment now_ns is taken. When the clock has been set back, a new count begins."""
        due_ns = now_ns if self._due_ns is None or self._due_ns - now_ns > 2 * self._period_ns else self._due_ns
        if now_ns < due_ns - EARLY * self._period_ns:
            return False
        self._due_ns = max(due_ns + self._period_ns, now_ns)
        return True
