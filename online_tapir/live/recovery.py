"""Reports how many points were found again when frames came back, or after a restart."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from online_tapir.records import Tracks

FOUND_WITHIN_NS = 1_000_000_000  # after the first new frame
SAME_SCENE = 0.25  # least share of the points visible at a time; in another scene a tenth or two are


@dataclass(slots=True)
class _Absence:
    """Points that are being looked for since the frames stopped."""

    wanted: set[int]
    after_ns: int | None  # when the last frame before it was captured; None: in an earlier run
    back_ns: int | None = None  # when the first new frame was captured
    found: set[int] = field(default_factory=set)
    frames: int = 0  # since then
    seen: int = 0  # wanted points that were visible on them, summed

    @property
    def elsewhere(self) -> bool:
        """Whether so few points were visible at a time that this is probably another scene."""
        return self.after_ns is None and self.seen < SAME_SCENE * self.frames * len(self.wanted)

    def __str__(self) -> str:
        if self.after_ns is None:
            before, it = "that were saved", "the first frame"
        else:
            assert self.back_ns is not None
            away_s = (self.back_ns - self.after_ns) / 1e9
            before, it = f"that were visible before a silence of {away_s:.1f} s", "it"
        within = f"within {FOUND_WITHIN_NS / 1e9:g} s of {it}"
        advice = "; if this is another scene, start without --resume" if self.elsewhere else ""
        return f"{len(self.found)} of the {len(self.wanted)} points {before} were found again {within}{advice}"


class Recovery:
    """Reports, a second after frames came back, how many of the points from before are visible again."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._absence: _Absence | None = None

    def resumed(self, ids: NDArray[np.int32]) -> None:
        """Points [N] were restored from another run, and no frame has come yet."""
        self._absence = _Absence(set(ids.tolist()), after_ns=None)

    def lost(self, last: Tracks) -> None:
        """The source is lost; `last` are its last tracks. May be called repeatedly."""
        if self._absence is not None and self._absence.back_ns is not None:  # it came back and was lost again
            self._conclude(self._absence)
        self._absence = _Absence(_visible(last), last.captured_ns)

    def tracked(self, tracks: Tracks) -> None:
        """A frame came."""
        absence = self._absence
        if absence is None:
            return
        if absence.back_ns is None:
            absence.back_ns = tracks.captured_ns
        visible = _visible(tracks) & absence.wanted
        absence.found |= visible
        absence.frames += 1
        absence.seen += len(visible)
        if tracks.captured_ns - absence.back_ns >= FOUND_WITHIN_NS:
            self._conclude(absence)

    def _conclude(self, absence: _Absence) -> None:
        self._report(str(absence))
        self._absence = None


def _visible(tracks: Tracks) -> set[int]:
    return set(tracks.ids[tracks.visible].tolist())
