"""What is said while no frame comes, and how many points were found again when frames came back."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from online_tapir.camera import Health
from online_tapir.control.session import Session
from online_tapir.records import Sink, Tracks
from online_tapir.sinks.wire import Heartbeat

FOUND_WITHIN_NS = 1_000_000_000  # after the first new frame


@runtime_checkable
class Beating(Protocol):
    """A sink that also passes heartbeats on; must not block."""

    def beat(self, heartbeat: Heartbeat) -> None: ...


class Silence:
    """Sends a heartbeat when nothing has left for `session.heartbeat_s`, and reports what a silence has cost."""

    def __init__(
        self,
        session: Session,
        sinks: Sequence[Sink],
        report: Callable[[str], None],
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._session = session
        self._sinks = [sink for sink in sinks if isinstance(sink, Beating)]
        self._recovery = Recovery(report)
        self._monotonic_ns = monotonic_ns
        self._last_ns = monotonic_ns()

    def goes_on(self, health: Health) -> None:
        """No frame is published now; called again and again until one is."""
        session = self._session
        session.health = health
        if session.state != "streaming" and session.tracks is not None:
            self._recovery.lost(session.tracks)
        now_ns = self._monotonic_ns()
        if now_ns - self._last_ns < session.heartbeat_s * 1e9:
            return
        self._last_ns = now_ns
        for sink in self._sinks:
            sink.beat(session.heartbeat())

    def is_over(self, tracks: Tracks) -> None:
        """A frame has been published."""
        self._last_ns = self._monotonic_ns()
        self._recovery.tracked(tracks)


class Recovery:
    """Reports, a second after frames came back, how many of the points that were visible before are so again."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._last: Tracks | None = None  # before the source was lost
        self._back_ns: int | None = None  # when its first new frame was captured
        self._found: set[int] = set()

    def lost(self, last: Tracks) -> None:
        """The source is away, and `last` was the last that it gave. Called as often as one likes."""
        if self._back_ns is not None:  # it has just been back, and is lost again
            self._conclude()
        self._last = last

    def tracked(self, tracks: Tracks) -> None:
        """A frame came."""
        if self._last is None:
            return
        if self._back_ns is None:
            self._back_ns = tracks.captured_ns
        self._found |= _visible(tracks) & _visible(self._last)
        if tracks.captured_ns - self._back_ns >= FOUND_WITHIN_NS:
            self._conclude()

    def _conclude(self) -> None:
        assert self._last is not None
        assert self._back_ns is not None
        away_s = (self._back_ns - self._last.captured_ns) / 1e9
        self._report(
            f"{len(self._found)} of the {len(_visible(self._last))} points that were visible before a silence of "
            f"{away_s:.1f} s were found again within {FOUND_WITHIN_NS / 1e9:g} s of it"
        )
        self._last, self._back_ns, self._found = None, None, set()


def _visible(tracks: Tracks) -> set[int]:
    return set(tracks.ids[tracks.visible].tolist())
