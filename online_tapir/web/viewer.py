"""What one viewer gets: one picture at a time, the newest, as large and as sharp as its link and its screen take it.

A picture that is drawn is acknowledged, and only then the next one leaves. So a slow link gets fewer pictures, never
older ones. Plain logic: no sockets, no threads.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LADDER = ((1.0, 85), (1.0, 70), (0.75, 70), (0.5, 65), (0.35, 60))  # share of the wanted width, JPEG quality
SLOW_MS, QUICK_MS = 120.0, 45.0  # from sending to acknowledgement: go down, go up
RECENT = 8  # acknowledgements that decide
STEADY = 30  # quick ones in a row before it goes up
LEAST_WIDTH, MOST_WIDTH = 64, 1920
FIRST_WIDTH = 960


@dataclass(frozen=True, slots=True)
class Picture:
    """How a frame is sent: its width in pixels, the rest follows, and its JPEG quality."""

    width: int
    quality: int


class Viewer:
    """One viewer: which cameras it looks at, what it has seen, and what its link holds."""

    def __init__(self) -> None:
        self.camera: str | None = None  # None: all of them, in turn
        self.in_flight = False
        self.latency_ms: float | None = None  # of the last picture: from its capture to its acknowledgement
        self._width = FIRST_WIDTH
        self._rung = 0
        self._quick = 0
        self._waits_ms: deque[float] = deque(maxlen=RECENT)
        self._seen: dict[str, int] = {}  # number of the last moment sent, by camera
        self._turns: dict[str, int] = {}  # when each camera was last served
        self._sent = 0
        self._sent_ns = 0
        self._captured_ns = 0

    def look(self, camera: str | None, width: int) -> None:
        """Looks at one camera or at all, at this many pixels of width."""
        self.camera = camera
        self._width = min(max(width, LEAST_WIDTH), MOST_WIDTH)
        self._seen.clear()  # a picture that is there already is sent again, in its new size

    def next(self, newest: Mapping[str, int]) -> str | None:
        """The camera whose newest moment is due; `newest` are the numbers of the moments. None: nothing new."""
        wanted: Sequence[str] = list(newest) if self.camera is None else [self.camera]
        fresh = [name for name in wanted if name in newest and self._seen.get(name) != newest[name]]
        return min(fresh, key=lambda name: self._turns.get(name, -1), default=None)

    def picture(self, frame_width: int) -> Picture:
        """How the next frame of this width is sent."""
        share, quality = LADDER[self._rung]
        return Picture(max(LEAST_WIDTH, min(round(self._width * share), frame_width)), quality)

    def send(self, camera: str, number: int, captured_ns: int, now_ns: int) -> int:
        """Notes that moment `number` of a camera leaves now; returns the number to acknowledge."""
        self._seen[camera] = number
        self._sent += 1
        self._turns[camera] = self._sent
        self._sent_ns, self._captured_ns, self.in_flight = now_ns, captured_ns, True
        return self._sent

    def acknowledge(self, number: int, now_ns: int) -> bool:
        """Notes that a picture was drawn; False if it is not the one in flight."""
        if not self.in_flight or number != self._sent:
            return False
        self.in_flight = False
        self.latency_ms = (now_ns - self._captured_ns) / 1e6
        self._adapt((now_ns - self._sent_ns) / 1e6)
        return True

    def _adapt(self, wait_ms: float) -> None:
        self._waits_ms.append(wait_ms)
        self._quick = self._quick + 1 if wait_ms < QUICK_MS else 0
        mean_ms = sum(self._waits_ms) / len(self._waits_ms)
        if len(self._waits_ms) == RECENT and mean_ms > SLOW_MS and self._rung < len(LADDER) - 1:
            self._rung += 1
        elif self._quick >= STEADY and self._rung > 0:
            self._rung -= 1
        else:
            return
        self._quick = 0
        self._waits_ms.clear()
