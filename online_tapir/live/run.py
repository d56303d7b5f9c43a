"""A run: each frame goes from its camera's mailbox through the tracker to the sinks, for every stream."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress

from online_tapir.errors import CameraError, OnlineTapirError
from online_tapir.live.roster import Member, Roster
from online_tapir.live.sink import Sink
from online_tapir.live.stream import Stream
from online_tapir.mailbox import Closed
from online_tapir.records import Frame, Queries, Tracks

POLL_SECONDS = 0.05  # longest delay before a stop or a request is noticed while no frame comes


class Run:
    """The members' streams, the sinks that serve them all, those of their own, and the loop.

    `go` returns when every source has ended, `stop` is set or `frames` frames have been tracked. With `pipeline`, a
    frame that is already waiting is submitted before the one being computed is collected, where that saves time.
    Cameras of the `roster` join and leave meanwhile.
    """

    def __init__(
        self,
        members: Sequence[Member],
        sinks: Sequence[Sink],
        stop: threading.Event,
        *,
        roster: Roster | None = None,
        frames: int | None = None,
        pipeline: bool = False,
    ) -> None:
        self._first = members
        self._sinks = sinks
        self._stop = stop
        self._roster = roster or Roster()
        self._frames = frames
        self._pipeline = pipeline
        self._arrived = threading.Event()  # a frame, the end of a source, or news of the roster
        self._own: dict[Stream, Sequence[Sink]] = {}
        self._open: dict[Stream, ExitStack] = {}  # the streams that run, in the order in which they are served

    def go(self) -> None:
        """Runs the loop; closes the cameras, not the sinks. Raises the error of a camera that no other outlived."""
        self._roster.notify = self._arrived.set
        with ExitStack() as closing:
            closing.callback(self._close)
            for member in self._first:
                self._join(member)
            for stream, frame in self._arrivals():
                try:
                    stream.submit(frame)
                    ahead = self._pipeline and stream.tracker.overlaps and stream.frame_waits
                    ready = [stream.collect() for _ in range(stream.in_flight - (1 if ahead else 0))]
                except OnlineTapirError as error:  # its points do not fit its pictures, for instance
                    if self._is_last:
                        raise
                    self._fail(stream, error)
                    continue
                for collected in ready:
                    self._publish(stream, *collected)
            for stream in self._open:
                self._publish_all(stream)

    def _close(self) -> None:
        with ExitStack() as cameras:
            for opened in self._open.values():
                cameras.push(opened)

    def _join(self, member: Member) -> None:
        stream = member.stream
        self._own[stream] = member.sinks
        for sink in self._sinks_of(stream):
            sink.begin(stream)
        self._open[stream] = opened = ExitStack()
        opened.enter_context(stream.capturing(self._arrived))

    def _fail(self, stream: Stream, error: OnlineTapirError) -> None:
        """Lets a stream go that cannot go on, while others stay."""
        stream.tell(f"{stream.name}: {error}; the other cameras go on")
        self._leave(stream, str(error))

    def _leave(self, stream: Stream, reason: str = "") -> None:
        """Publishes what is in flight and lets the stream go, for a `reason` if it failed, while others stay."""
        with suppress(OnlineTapirError) if reason else nullcontext():
            self._publish_all(stream)
        for sink in self._sinks_of(stream):
            sink.end(stream)
        opened = self._open.pop(stream)
        del self._own[stream]
        self._roster.left(stream, reason, opened)

    def _sinks_of(self, stream: Stream) -> Iterator[Sink]:
        """The stream's own sinks, then those of the run: the last of these measure the others."""
        yield from self._own[stream]
        yield from self._sinks

    def _publish_all(self, stream: Stream) -> None:
        while stream.in_flight:
            self._publish(stream, *stream.collect())

    def _publish(self, stream: Stream, frame: Frame, named: list[Queries], tracks: Tracks) -> None:
        """Hands a frame that was collected, the points that begin on it and its tracks to every sink."""
        started_ns = time.monotonic_ns()
        for sink in self._sinks_of(stream):
            sink.named(stream.name, named)
        for sink in self._sinks_of(stream):
            sink.publish(frame, tracks)
        stream.published(frame, tracks, took_ns=time.monotonic_ns() - started_ns)

    def _arrivals(self) -> Iterator[tuple[Stream, Frame]]:
        """Yields frames as they arrive, each stream in turn, until every source has ended or the run stops."""
        taken = 0
        while taken != self._frames and not self._stop.is_set():
            self._arrived.wait(POLL_SECONDS)
            self._arrived.clear()
            self._meet()
            for stream in tuple(self._open):
                for sink in self._sinks_of(stream):
                    sink.serve(stream)
                if self._stop.is_set() or taken == self._frames:
                    return
                try:
                    frame = stream.take()
                except Closed:
                    if self._is_last:
                        return
                    stream.tell(f"{stream.name} has ended; the other cameras go on")
                    self._leave(stream)
                    continue
                except CameraError as error:
                    if self._is_last:
                        raise
                    self._fail(stream, error)
                    continue
                if frame is None:
                    self._beat(stream)
                else:
                    taken += 1
                    yield stream, frame
            if not self._open and not self._roster.expected:
                return

    @property
    def _is_last(self) -> bool:
        """Whether nothing is left to do once the stream that is served has ended."""
        return len(self._open) == 1 and not self._roster.expected

    def _meet(self) -> None:
        """Takes in the cameras that are ready, and lets those go that should leave."""
        for member in self._roster.arrivals():
            self._join(member)
        leavers = self._roster.leavers()
        for stream in tuple(self._open) if leavers else ():
            if stream.name in leavers:
                self._leave(stream)

    def _beat(self, stream: Stream) -> None:
        heartbeat = stream.heartbeat_due()
        if heartbeat is not None:
            for sink in self._sinks_of(stream):
                sink.beat(heartbeat)
