"""Measures what each camera of a rig costs, and how it does.

A rig serves its cameras in turn: one thread takes frames and follows them by flow, and the model answers the cameras
one after the other. So a camera costs a share of that thread, and a share of the model. A rig is full, load 1, when the
thread is busy for 80 % of the time (beyond that frames are lost), or when the model would need four times the time that
there is to answer every frame of every camera: each point is then corrected on every fourth frame, and flow carries it
in between.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from online_tapir.live.status import Rolling, Status
from online_tapir.live.stream import Stream
from online_tapir.records import Frame, Tracks

FULL_THREAD = 0.8  # of its time
FULL_MODEL = 4.0  # times the time there is


@dataclass(frozen=True, slots=True)
class Figures:
    """A camera's last seconds."""

    state: str
    fps: float
    latency_ms: float  # capture to publish, median
    points: int
    cost: float  # as a share of a full rig


class Load(Status):
    """The status of a rig: measures, and shows nothing. The last sink, so that its latencies include the others'.

    `note` takes lines for people; `thread_ns` is the processor time of the thread that calls `publish`.
    """

    def __init__(
        self,
        note: Callable[[str], None],
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        thread_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        super().__init__(monotonic_ns=monotonic_ns)
        self._note = note
        self._thread_ns = thread_ns
        self._lock = threading.Lock()
        self._streams: dict[str, Stream] = {}
        self._latency_ms: dict[str, Rolling] = {}
        self._busy_ns: dict[str, Rolling] = {}  # of the thread, a frame
        self._model_ns: dict[str, Rolling] = {}  # for one answer
        self._before_ns: int | None = None
        self.ended: set[str] = set()  # cameras whose source has ended, or failed for good

    def note(self, text: str) -> None:
        self._note(text)

    def begin(self, stream: Stream) -> None:
        with self._lock:
            self._streams[stream.name] = stream
            for kept in (self._latency_ms, self._busy_ns, self._model_ns):
                kept[stream.name] = Rolling()
            self.ended.discard(stream.name)

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        now_ns, busy_ns = self._monotonic_ns(), self._thread_ns()
        times = tracks.times
        with self._lock:
            camera = tracks.camera
            self._latency_ms[camera].add(now_ns, (now_ns - tracks.captured_ns) / 1e6)
            if self._before_ns is not None:
                self._busy_ns[camera].add(now_ns, busy_ns - self._before_ns)
            model_ns = times.upload + times.encode + times.match + times.refine + times.download
            self._model_ns[camera].add(now_ns, model_ns)
            self._before_ns = busy_ns

    def end(self, stream: Stream) -> None:
        with self._lock:
            self.ended.add(stream.name)
            for kept in (self._streams, self._latency_ms, self._busy_ns, self._model_ns):
                kept.pop(stream.name, None)

    def figures(self) -> dict[str, Figures]:
        """Of every camera that runs. Called from any thread."""
        with self._lock:
            return {name: self._recent(name, stream) for name, stream in self._streams.items()}

    def _recent(self, name: str, stream: Stream) -> Figures:
        latency_ms = self._latency_ms[name]
        fps = latency_ms.rate() if stream.state == "streaming" else 0.0
        median_ms, busy_ns, model_ns = (
            one.percentile(50) if fps else 0.0 for one in (latency_ms, self._busy_ns[name], self._model_ns[name])
        )
        thread, model = fps * busy_ns / 1e9, fps * model_ns / 1e9
        return Figures(stream.state, fps, median_ms, stream.points, max(thread / FULL_THREAD, model / FULL_MODEL))
