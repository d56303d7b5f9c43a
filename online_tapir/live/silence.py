"""What is said while no frame comes, and how many points were found again when frames came back, or after a restart."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from online_tapir.camera import Health
from online_tapir.live.session import Session
from online_tapir.records import Sink, Tracks
from online_tapir.wire.messages import Heartbeat

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
        if len(session.tracker.ids):
            self._recovery.resumed(session.tracker.ids)

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


@dataclass(slots=True)
class _Absence:
    """Points that are looked for since no frame came."""

    wanted: set[int]
    after_ns: int | None  # when the last frame before it was captured; None: that was in the run before
    back_ns: int | None = None  # when the first new frame was captured
    found: set[int] = field(default_factory=set)

    def __str__(self) -> str:
        if self.after_ns is None:
            before, it = "that were saved", "the first frame"
        else:
            assert self.back_ns is not None
            away_s = (self.back_ns - self.after_ns) / 1e9
            before, it = f"that were visible before a silence of {away_s:.1f} s", "it"
        within = f"within {FOUND_WITHIN_NS / 1e9:g} s of {it}"
        return f"{len(self.found)} of the {len(self.wanted)} points {before} were found again {within}"


class Recovery:
    """Reports, a second after frames came back, how many of the points that were there before are seen again."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._absence: _Absence | None = None

    def resumed(self, ids: NDArray[np.int32]) -> None:
        """Points [N] go on from another run, and no frame has come yet."""
        self._absence = _Absence(set(ids.tolist()), after_ns=None)

    def lost(self, last: Tracks) -> None:
        """The source is away, and `last` was the last that it gave. Called as often as one likes."""
        if self._absence is not None and self._absence.back_ns is not None:  # it has just been back, and is lost again
            self._conclude(self._absence)
        self._absence = _Absence(_visible(last), last.captured_ns)

    def tracked(self, tracks: Tracks) -> None:
        """A frame came."""
        absence = self._absence
        if absence is None:
            return
        if absence.back_ns is None:
            absence.back_ns = tracks.captured_ns
        absence.found |= _visible(tracks) & absence.wanted
        if tracks.captured_ns - absence.back_ns >= FOUND_WITHIN_NS:
            self._conclude(absence)

    def _conclude(self, absence: _Absence) -> None:
        self._report(str(absence))
        self._absence = None


def _visible(tracks: Tracks) -> set[int]:
    return set(tracks.ids[tracks.visible].tolist())
