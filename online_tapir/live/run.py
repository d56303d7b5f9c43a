"""A run: each frame goes from its camera's mailbox through the tracker to the sinks, for every stream."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from online_tapir.live.sink import Sink
from online_tapir.live.stream import Stream
from online_tapir.mailbox import Closed
from online_tapir.records import Frame

POLL_SECONDS = 0.05  # longest delay before a stop or a request is noticed while no frame comes


class Run:
    """Streams, the sinks that serve them all, those of their `own`, and the loop.

    `go` returns when every source has ended, `stop` is set or `frames` frames have been tracked. With `pipeline`, a
    frame that is already waiting is submitted before the one being computed is collected.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        sinks: Sequence[Sink],
        stop: threading.Event,
        *,
        own: Mapping[Stream, Sequence[Sink]] | None = None,
        frames: int | None = None,
        pipeline: bool = False,
    ) -> None:
        self._streams = streams
        self._sinks = sinks
        self._own = own or {}
        self._stop = stop
        self._frames = frames
        self._pipeline = pipeline
        self._arrived = threading.Event()  # a frame, or the end of a source

    def go(self) -> None:
        """Runs the loop; closes the cameras, not the sinks. Raises the error of a camera that cannot be reopened."""
        with ExitStack() as opened:
            for stream in self._streams:
                for sink in self._sinks_of(stream):
                    sink.begin(stream)
                opened.enter_context(stream.capturing(self._arrived))
            for stream, frame in self._arrivals():
                stream.submit(frame)
                while stream.in_flight > (1 if self._pipeline and stream.frame_waits else 0):
                    self._publish(stream)
            for stream in self._streams:
                while stream.in_flight:
                    self._publish(stream)

    def _sinks_of(self, stream: Stream) -> Iterator[Sink]:
        """The stream's own sinks, then those of the run: the last of these measure the others."""
        yield from self._own.get(stream, ())
        yield from self._sinks

    def _publish(self, stream: Stream) -> None:
        """Hands the oldest frame in flight and its tracks to every sink."""
        frame, named, tracks = stream.collect()
        started_ns = time.monotonic_ns()
        for sink in self._sinks_of(stream):
            sink.named(stream.name, named)
        for sink in self._sinks_of(stream):
            sink.publish(frame, tracks)
        stream.published(frame, tracks, took_ns=time.monotonic_ns() - started_ns)

    def _arrivals(self) -> Iterator[tuple[Stream, Frame]]:
        """Yields frames as they arrive, each stream in turn, until every source has ended or the run stops."""
        left, taken = list(self._streams), 0
        while left and taken != self._frames:
            self._arrived.wait(POLL_SECONDS)
            self._arrived.clear()
            for stream in tuple(left):
                for sink in self._sinks_of(stream):
                    sink.serve(stream)
                if self._stop.is_set() or taken == self._frames:
                    return
                try:
                    frame = stream.take()
                except Closed:
                    left.remove(stream)
                    continue
                if frame is None:
                    self._beat(stream)
                else:
                    taken += 1
                    yield stream, frame

    def _beat(self, stream: Stream) -> None:
        heartbeat = stream.heartbeat_due()
        if heartbeat is not None:
            for sink in self._sinks_of(stream):
                sink.beat(heartbeat)
