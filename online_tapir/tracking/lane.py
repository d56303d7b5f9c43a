"""One stream's points and frames: which point is in which row, and what waits for a frame."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from online_tapir.clock import SystemClock
from online_tapir.model.config import Size, TapirConfig
from online_tapir.model.state import TrackState
from online_tapir.records import Frame, Tracks
from online_tapir.tracking.answers import answers
from online_tapir.tracking.feature_window import FeatureRings, FeatureWindow
from online_tapir.tracking.frames import accepted
from online_tapir.tracking.inspection import inspection
from online_tapir.tracking.ledger import Ledger
from online_tapir.tracking.step import Picture, Reading, Wanted
from online_tapir.tracking.window import RememberedFrame


@dataclass(frozen=True, slots=True, eq=False)
class Submitted:
    """A frame whose tracks have not been collected yet."""

    frame: Frame
    size: Size
    ids: NDArray[np.int32]  # [N] of the rows that were tracked on it
    inspected: int | None  # one of them
    age_ns: int  # when it was submitted
    late_ns: int  # time spent on queries on past frames


class Lane:
    """A stream's place among others that share a model: its rows of the state, its slots of the rings."""

    def __init__(self, index: int, capacity: int, rings: FeatureRings) -> None:
        self.index = index
        self.points = Ledger(capacity)
        self.window = FeatureWindow(rings, index)
        self.frames = 0
        self.last_frame: RememberedFrame | None = None
        self.loaded: tuple[Sequence[Size], TrackState] | None = None  # rows of a file, and what they were refined at
        self.submitted: deque[Submitted] = deque()
        self.results: deque[Reading] = deque()  # of the oldest of `submitted`
        self._inspected: int | None = None  # may have been removed since
        self._clock = SystemClock()

    @property
    def rows(self) -> slice:
        """The rows of the state that its points are in."""
        return self.rows_from(0)

    def rows_from(self, start: int) -> slice:
        """The rows of its points from the one numbered `start` on."""
        base = self.index * self.points.capacity
        return slice(base + start, base + self.points.live)

    @property
    def inspected(self) -> int | None:
        there = self._inspected is not None and self._inspected in self.points.ids
        return self._inspected if there else None

    def inspect(self, id: int | None) -> None:
        if id is not None:
            self.points.check(np.array([id], np.int64))
        self._inspected = id

    def accept(self, rgb: NDArray[np.uint8] | Frame) -> Frame:
        """The next frame; a bare array is stamped now and numbered after the last.

        Raises FrameError for what is no picture or out of order, QueryError if a query for this frame is outside it,
        which is then dropped.
        """
        frame = accepted(rgb, self.last_frame, self._clock)
        height, width = frame.rgb.shape[:2]
        self.points.refuse_outside(width, height)
        return frame

    def picture(self, frame: Frame) -> Picture:
        """The frame as it goes into the window."""
        size = (frame.rgb.shape[0], frame.rgb.shape[1])
        return Picture(self.index, frame.rgb, RememberedFrame(frame.id, self.frames, size), self.window)

    def took(self, frame: RememberedFrame) -> None:
        """The frame is in the window."""
        self.frames, self.last_frame = frame.number + 1, frame

    def submit(self, frame: Frame, age_ns: int, late_ns: int) -> Wanted:
        """What to track on the frame that was taken last."""
        assert self.last_frame is not None
        inspected = self.inspected
        row = None if inspected is None else self.rows.start + self.points.row_of(inspected)
        rows = self.points.rows.copy()
        self.submitted.append(Submitted(frame, self.last_frame.size, rows, inspected, age_ns, late_ns))
        return Wanted(self.index, self.rows, self.last_frame.number & 1, row)

    def collect(self, config: TapirConfig) -> Tracks:
        """The tracks of the oldest frame, whose results are there."""
        asked, reading = self.submitted.popleft(), self.results.popleft()
        order = np.argsort(asked.ids)
        seen = None
        if reading.sight is not None and asked.inspected is not None:
            seen = inspection(asked.inspected, reading.sight, config, asked.size)
        times = reading.times
        return Tracks(
            frame_id=asked.frame.id,
            model_frame_id=asked.frame.id,
            captured_ns=asked.frame.captured_ns,
            captured_unix_ns=asked.frame.captured_unix_ns,
            width=asked.size[1],
            height=asked.size[0],
            ids=asked.ids[order],
            **answers(reading.values[order], config.initial_resolution, config.visible_above, asked.size)._asdict(),
            model=config.name,
            input="{1}x{0}".format(*config.initial_resolution),
            times=replace(times, capture=asked.age_ns, match=times.match + asked.late_ns),
            inspection=seen,
            labels=self.points.labels,
        )

    def reset(self) -> None:
        """Begins a new stream; no frame is in flight."""
        self.lose()
        self.points.renew()
        self.window.forget()
        self.frames, self.last_frame, self._inspected = 0, None, None

    def lose(self) -> None:
        """Gives up every point and every frame in flight: their state is lost."""
        self.submitted.clear()
        self.results.clear()
        self.points.clear()
        self.loaded = None
