"""What the terminal shows during a run and at its end, measured in `publish`: once a frame, after the other sinks.

The line, the notes and the summary go to stderr and the JSON log to stdout, so that a pipe receives data alone. Memory
does not grow with the run: recent figures come from a window, whole-run ones from histograms.
"""

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.live import Live
from rich.text import Text

from online_tapir.live.sink import Sink
from online_tapir.plain_json import without_nan
from online_tapir.records import Frame, StageTimes, Tracks
from online_tapir.streams import Forgiving

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream

WINDOW_NS = 3_000_000_000
LINE_EVERY_NS = 200_000_000  # on a terminal
PLAIN_EVERY_NS = 5_000_000_000  # into a file or a pipe
JSON_EVERY_NS = 1_000_000_000


def percentile(values: ArrayLike, q: float) -> float:
    """The q-th percentile of `values`, by nearest rank; NaN when there are none."""
    ordered = np.sort(np.asarray(values, np.float64))
    return float(ordered[max(math.ceil(len(ordered) * q / 100) - 1, 0)]) if len(ordered) else math.nan


class Rolling:
    """Values of the last `window_ns`, with their times; at most `capacity` of them."""

    def __init__(self, window_ns: int = WINDOW_NS, capacity: int = 4096) -> None:
        self._window_ns = window_ns
        self._samples: deque[tuple[int, float]] = deque(maxlen=capacity)

    def add(self, now_ns: int, value: float) -> None:
        self._samples.append((now_ns, value))
        while now_ns - self._samples[0][0] > self._window_ns:
            self._samples.popleft()

    def rate(self) -> float:
        """Values a second; 0 until two have come at different times."""
        if not self._samples:
            return 0.0
        elapsed_ns = self._samples[-1][0] - self._samples[0][0]
        return (len(self._samples) - 1) * 1e9 / elapsed_ns if elapsed_ns > 0 else 0.0

    def percentile(self, q: float) -> float:
        """The q-th percentile of the values that are not NaN."""
        return percentile([value for _, value in self._samples if not math.isnan(value)], q)


class Histogram:
    """Percentiles of any number of positive values to within 1 %; each bin is 2 % wider than the last."""

    LOW, HIGH, STEP = 1e-4, 1e7, math.log(1.02)

    def __init__(self) -> None:
        self._counts = np.zeros(math.ceil(math.log(self.HIGH / self.LOW) / self.STEP) + 1, np.int64)
        self.count = 0
        self.max = math.nan

    def add(self, values: ArrayLike) -> None:
        """Add one value or many; none may be NaN."""
        array = np.atleast_1d(np.asarray(values, np.float64))
        if not len(array):
            return
        bins = np.log(np.clip(array, self.LOW, self.HIGH) / self.LOW) / self.STEP
        np.add.at(self._counts, bins.astype(np.int64), 1)
        self.count += len(array)
        self.max = float(np.fmax(self.max, array.max()))

    def percentile(self, q: float) -> float:
        """By nearest rank, NaN when empty; `max` is exact and never exceeded."""
        if not self.count:
            return math.nan
        rank = max(math.ceil(self.count * q / 100), 1)
        bin_ = int(np.searchsorted(np.cumsum(self._counts), rank))
        return min(self.LOW * math.exp((bin_ + 0.5) * self.STEP), self.max)


@dataclass(frozen=True)
class RecentFigures:
    """The last few seconds of a run. Latencies are capture to publish; `error_px` is None without ground truth."""

    camera: str
    frame_id: int
    fps: float
    latency_p50_ms: float
    latency_p95_ms: float
    visible: int
    points: int
    dropped: int
    error_px: float | None
    held_px: float | None = None  # the same of what a subscriber holds at the end of each frame's period

    def __str__(self) -> str:
        parts = [
            f"{self.fps:.1f} fps",
            f"p50 {self.latency_p50_ms:.1f} p95 {self.latency_p95_ms:.1f} ms",
            f"{self.visible}/{self.points} visible",
            f"{self.dropped} dropped",
        ]
        if self.error_px is not None:
            parts.append(f"error {self.error_px:.2f} px")
        if self.held_px is not None:
            parts.append(f"held in time {self.held_px:.2f} px")
        return f"{self.camera or 'camera'} #{self.frame_id} · " + " · ".join(parts)


@dataclass(frozen=True)
class Summary:
    """A whole run. `error_px` is the median over all truly visible points; None without ground truth."""

    frames: int
    seconds: float
    fps: float
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    latency_max_ms: float
    dropped: int
    points: int  # on the last frame
    stages_ms: dict[str, float]  # median of each
    error_px: float | None
    occlusion_accuracy: float | None  # share of correct visibilities, 0 to 1
    held_px: float | None = None  # the error of what a subscriber holds at the end of each frame's period

    def __str__(self) -> str:
        if not self.frames:
            return "no frames"
        lines = [
            f"{self.frames} frames in {self.seconds:.1f} s: {self.fps:.1f} fps, {self.dropped} dropped, "
            f"{self.points} points at the end",
            f"latency, capture to publish: p50 {self.latency_p50_ms:.1f} ms, p95 {self.latency_p95_ms:.1f}, "
            f"p99 {self.latency_p99_ms:.1f}, max {self.latency_max_ms:.1f}",
            "stages, median ms: " + ", ".join(f"{stage} {ms:.2f}" for stage, ms in self.stages_ms.items()),
        ]
        if self.error_px is not None:
            accuracy = "" if self.occlusion_accuracy is None else f", occlusion right {self.occlusion_accuracy:.1%}"
            lines.append(f"median error on visible points: {self.error_px:.2f} px of the frame{accuracy}")
        if self.held_px is not None:
            lines.append(f"of what a subscriber holds at the end of each frame's period: {self.held_px:.2f} px")
        return "\n".join(lines)


class RunStatistics:
    """The figures of a run, from its tracks and their errors."""

    def __init__(self) -> None:
        self._latency_ms = Histogram()
        self._stages_ms = {field.name: Histogram() for field in fields(StageTimes)}
        self._error_px = Histogram()
        self._recent_latency_ms = Rolling()
        self._recent_error_px = Rolling()
        self._held_px = Histogram()
        self._recent_held_px = Rolling()
        self._judged = 0
        self._judged_rightly = 0
        self._frames = 0
        self._first_ns = 0
        self._last_ns = 0
        self._last: Tracks | None = None

    @property
    def frames(self) -> int:
        return self._frames

    def add(self, now_ns: int, tracks: Tracks) -> None:
        latency_ms = (now_ns - tracks.captured_ns) / 1e6
        self._latency_ms.add(latency_ms)
        self._recent_latency_ms.add(now_ns, latency_ms)
        for stage, histogram in self._stages_ms.items():
            histogram.add(getattr(tracks.times, stage) / 1e6)
        self._first_ns = self._first_ns if self._frames else now_ns
        self._last_ns = now_ns
        self._frames += 1
        self._last = tracks

    def recent(self) -> RecentFigures:
        assert self._last is not None, "nothing has been added"
        last = self._last
        error_px, held_px = self._recent_error_px.percentile(50), self._recent_held_px.percentile(50)
        return RecentFigures(
            camera=last.camera,
            frame_id=last.frame_id,
            fps=self._recent_latency_ms.rate(),
            latency_p50_ms=self._recent_latency_ms.percentile(50),
            latency_p95_ms=self._recent_latency_ms.percentile(95),
            visible=int(last.visible.sum()),
            points=len(last.ids),
            dropped=last.dropped,
            error_px=None if math.isnan(error_px) else error_px,
            held_px=None if math.isnan(held_px) else held_px,
        )

    def summary(self) -> Summary:
        seconds = (self._last_ns - self._first_ns) / 1e9
        return Summary(
            frames=self._frames,
            seconds=seconds,
            fps=(self._frames - 1) / seconds if seconds else 0.0,
            latency_p50_ms=self._latency_ms.percentile(50),
            latency_p95_ms=self._latency_ms.percentile(95),
            latency_p99_ms=self._latency_ms.percentile(99),
            latency_max_ms=self._latency_ms.max,
            dropped=self._last.dropped if self._last else 0,
            points=len(self._last.ids) if self._last else 0,
            stages_ms={stage: histogram.percentile(50) for stage, histogram in self._stages_ms.items()},
            error_px=self._error_px.percentile(50) if self._error_px.count else None,
            occlusion_accuracy=self._judged_rightly / self._judged if self._judged else None,
            held_px=self._held_px.percentile(50) if self._held_px.count else None,
        )

    def judge_held(self, now_ns: int, error_px: NDArray[np.floating[Any]]) -> None:
        errors = error_px[np.isfinite(error_px)]
        self._held_px.add(errors)
        self._recent_held_px.add(now_ns, percentile(errors, 50))

    def judge(self, now_ns: int, tracks: Tracks, error_px: NDArray[np.floating[Any]]) -> None:
        assert len(error_px) == len(tracks.ids), f"{len(error_px)} errors for {len(tracks.ids)} points"
        known = ~np.isinf(error_px)
        truly_visible = ~np.isnan(error_px[known])  # [K]
        errors = error_px[known][truly_visible]
        self._error_px.add(errors)
        self._recent_error_px.add(now_ns, percentile(errors, 50))
        self._judged += len(truly_visible)
        self._judged_rightly += int((truly_visible == tracks.visible[known]).sum())


class Status(Sink):
    """Counts but shows nothing: the status of `--quiet`, and the base of the others."""

    def __init__(self, *, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._monotonic_ns = monotonic_ns
        self._statistics: dict[str, RunStatistics] = {}  # by camera
        self._left: set[str] = set()  # cameras that no longer run: only the summary tells of them
        self._shown_ns: int | None = None

    every_ns: int | None = None  # between two updates of the display; None: never shown

    def judge(self, tracks: Tracks, error_px: NDArray[np.floating[Any]]) -> None:
        """Adds the position errors of a frame, before the frame is published.

        `error_px` [N] is the distance of each point from its true position in image pixels: NaN where it is truly
        hidden, infinite where the truth is unknown.
        """
        self._of(tracks).judge(self._monotonic_ns(), tracks, error_px)

    def judge_held(self, tracks: Tracks, error_px: NDArray[np.floating[Any]]) -> None:
        """Adds the errors [N], as `judge` takes them, of the tracks held at the end of some frame's period."""
        self._of(tracks).judge_held(self._monotonic_ns(), error_px)

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        """Counts one published frame, and updates the display when that is due."""
        now_ns = self._monotonic_ns()
        self._of(tracks).add(now_ns, tracks)
        if self.every_ns is None or (self._shown_ns is not None and now_ns - self._shown_ns < self.every_ns):
            return
        self._shown_ns = now_ns
        running = [one for name, one in self._statistics.items() if name not in self._left]
        self._show([one.recent() for one in running if one.frames])

    def begin(self, stream: "Stream") -> None:
        self._left.discard(stream.name)

    def end(self, stream: "Stream") -> None:
        self._left.add(stream.name)

    def note(self, text: str) -> None:
        """Show a message once; may be called from any thread."""

    def summaries(self) -> dict[str, Summary]:
        """The whole run, by camera."""
        return {camera: one.summary() for camera, one in self._statistics.items()}

    def summary(self) -> Summary:
        """The whole run of a single camera, or of the first."""
        return next(iter(self.summaries().values()), RunStatistics().summary())

    def _of(self, tracks: Tracks) -> RunStatistics:
        return self._statistics.setdefault(tracks.camera, RunStatistics())

    def finish(self) -> None:
        """Show the summary, then close."""
        self.close()

    def close(self) -> None:
        """Release the terminal. May be called twice."""

    def _show(self, recent: Sequence[RecentFigures]) -> None:
        raise NotImplementedError("a status with every_ns must override _show")


class PlainStatus(Status):
    """A line every few seconds, for a log file or a pipe."""

    every_ns = PLAIN_EVERY_NS

    def __init__(self, console: Console, *, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(monotonic_ns=monotonic_ns)
        self._console = console

    def note(self, text: str) -> None:
        self._print(text)

    def finish(self) -> None:
        self.close()
        several = self.summaries() if len(self._statistics) > 1 else {}
        for camera, summary in several.items():
            self._print(f"{camera}: {summary}")
        if not several:
            self._print(str(self.summary()))

    def _show(self, recent: Sequence[RecentFigures]) -> None:
        for one in recent:
            self._print(str(one))

    def _print(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


class StatusLine(PlainStatus):
    """A line for each camera at the bottom of a terminal, always current; notes scroll by above it."""

    every_ns = LINE_EVERY_NS

    def __init__(self, console: Console, *, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(console, monotonic_ns=monotonic_ns)
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def close(self) -> None:
        self._live.stop()

    def _show(self, recent: Sequence[RecentFigures]) -> None:
        self._live.start()
        lines = "\n".join(map(str, recent))
        self._live.update(Text(lines, style="cyan", no_wrap=True, overflow="ellipsis"), refresh=True)


class JsonStatus(Status):
    """One JSON object a second, with `event` "status", "note" or, at the end, "summary"; unknown values are null."""

    every_ns = JSON_EVERY_NS

    def __init__(
        self,
        out: TextIO,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(monotonic_ns=monotonic_ns)
        self._out = out
        self._unix_ns = unix_ns

    def note(self, text: str) -> None:
        self._write("note", {"text": text})

    def finish(self) -> None:
        if not self._statistics:
            self._write("summary", asdict(self.summary()))
        for camera, summary in self.summaries().items():
            self._write("summary", {"camera": camera, **asdict(summary)})

    def _show(self, recent: Sequence[RecentFigures]) -> None:
        for one in recent:
            self._write("status", asdict(one))

    def _write(self, event: str, body: dict[str, Any]) -> None:
        line = {"event": event, "unix_ns": self._unix_ns(), **body}
        self._out.write(json.dumps(without_nan(line, 4), ensure_ascii=False) + "\n")
        self._out.flush()


def open_status(*, quiet: bool = False, json_log: bool = False) -> Status:
    """The status for these flags; a live line only if stderr is a terminal."""
    if json_log:
        return JsonStatus(cast(TextIO, Forgiving(sys.stdout)))
    if quiet:
        return Status()
    console = Console(file=cast(TextIO, Forgiving(sys.stderr)))
    return StatusLine(console) if console.is_terminal else PlainStatus(console)
