"""Begins and ends the recordings of one camera while it runs."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from online_tapir.errors import PublishError
from online_tapir.live.sink import Sink
from online_tapir.records import Frame, Queries, Tracks
from online_tapir.sinks.background import WriterSink

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream

Open = Callable[[Path], WriterSink]
CLOSE_SECONDS = 10.0


class Recorder(Sink):
    """A sink of one camera that records nothing until it is asked to, each time into a new folder under `parent`.

    `open_` opens a recording in a folder. `first` is one that runs from the start. The points that are there when a
    recording begins are its first queries, where they are then. A recording ends in the background.
    """

    def __init__(
        self,
        parent: Path,
        open_: Open,
        first: tuple[Path, WriterSink] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._parent = parent
        self._open = open_
        self._now = now
        self._running = first
        self._midway = False  # whether the recording has yet to be told of the points that were there before it
        self._stream: Stream | None = None
        self._ending: list[tuple[threading.Thread, WriterSink]] = []

    @property
    def folder(self) -> str:
        if self._running is not None and self._running[1].ended:
            self._end()
        return "" if self._running is None else str(self._running[0])

    def switch(self, on: bool) -> None:
        """Begins a recording, or ends the one that runs. Raises PublishError if it cannot or if it is so already."""
        if on == bool(self.folder):
            raise PublishError(f"it is being recorded already, into {self.folder}" if on else "nothing is recorded")
        if not on:
            self._end()
            return
        assert self._stream is not None, "a recording is asked for before the stream begins"
        folder = self._parent / f"{self._stream.name}-{self._now():%Y%m%d-%H%M%S}"
        writer = self._open(folder)
        writer.begin(self._stream)
        self._running, self._midway = (folder, writer), True

    def begin(self, stream: "Stream") -> None:
        self._stream = stream
        if self._running is not None:
            self._running[1].begin(stream)

    def named(self, camera: str, queries: Sequence[Queries]) -> None:
        if self._running is not None and not self._midway:
            self._running[1].named(camera, queries)

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        if self._running is None:
            return
        writer = self._running[1]
        if self._midway:
            writer.named(tracks.camera, [_there(tracks, frame.id)])
            self._midway = False
        writer.publish(frame, tracks)

    def close(self) -> None:
        """Ends the recording that runs, and waits for those that are being ended. May be called twice."""
        self._end()
        for thread, writer in self._ending:
            thread.join(CLOSE_SECONDS)
            if thread.is_alive():
                writer.give_up(CLOSE_SECONDS)
        self._ending.clear()

    def _end(self) -> None:
        if self._running is None:
            return
        folder, writer = self._running
        thread = threading.Thread(target=writer.close, name=f"ending {folder}", daemon=True)
        self._running = None
        self._ending = [one for one in self._ending if one[0].is_alive()] + [(thread, writer)]
        thread.start()


def _there(tracks: Tracks, frame_id: int) -> Queries:
    """The points of a frame as its queries; those that have left the picture cannot be named again."""
    inside = ((tracks.xy >= 0) & (tracks.xy < (tracks.width, tracks.height))).all(axis=1)
    return Queries(tracks.ids[inside], tracks.xy[inside], frame_id, dict(tracks.labels))
