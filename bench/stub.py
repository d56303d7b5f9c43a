"""Stand-ins that cost next to nothing: a tracker, a model, a run that stands on its first frame."""

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from online_tapir.errors import QueryError
from online_tapir.records import Frame, Tracks

if TYPE_CHECKING:
    from online_tapir.live.session import Session
    from online_tapir.model.config import TapirConfig
    from online_tapir.model.tapir import Tapir

SIZE = (49, 33)  # width and height


def tiny_config() -> "TapirConfig":
    """The smallest model that has every part."""
    from online_tapir.model.config import TapirConfig

    return TapirConfig(
        name="tiny",
        stem_width=8,
        widths=(8, 8, 8, 8),
        blocks=(1, 1, 1, 1),
        extra_convs=0,
        match_width=4,
        mixer_width=8,
        mixer_depth=1,
        iterations=1,
        initial_resolution=(32, 32),
    )


def tiny_model() -> "Tapir":
    """A model of `tiny_config` with random weights."""
    from online_tapir.model.tapir import Tapir

    return Tapir(tiny_config()).eval().requires_grad_(False)


def one_frame_session(points: int = 4096) -> "Session":
    """A run that has tracked frame 0, of SIZE, with room for so many points and none there."""
    from online_tapir.camera import SyntheticCamera
    from online_tapir.live.session import Session

    rgb = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    tracker: Any = StubTracker(points)
    session = Session(SyntheticCamera([rgb]), tracker, threading.Event())
    frame = Frame(0, 0, 0, rgb)
    session.tracked(frame, tracker.step(frame))
    return session


class StubTracker:
    """A tracker's ways and none of its work: points stand where they were named, and every third is hidden.

    Ids and the window of frames are kept as `Tracker` does; so may the same be asked of it, between frames.
    """

    def __init__(self, max_points: int, window: int = 32) -> None:
        self.max_points = max_points
        self.inspected: int | None = None
        self._submitted: deque[Frame] = deque()
        self._window: deque[int] = deque(maxlen=window)
        self._xy: dict[int, NDArray[np.float32]] = {}
        self._next_id = 0

    @property
    def ids(self) -> NDArray[np.int32]:
        return np.fromiter(self._xy, np.int32, len(self._xy))

    @property
    def frame_ids(self) -> list[int]:
        return list(self._window)

    def add(self, xy: NDArray[np.float32], frame_id: int | None = None) -> NDArray[np.int32]:
        ids = np.arange(self._next_id, self._next_id + len(xy), dtype=np.int32)
        self._next_id += len(xy)
        self._xy.update(zip(ids.tolist(), np.asarray(xy, np.float32), strict=True))
        return ids

    def remove(self, ids: NDArray[np.int32]) -> None:
        for id in np.asarray(ids).tolist():
            del self._xy[id]

    def clear(self) -> None:
        self._xy.clear()

    def inspect(self, id: int | None) -> None:
        if id is not None and id not in self._xy:
            raise QueryError(f"there is no point {id}")
        self.inspected = id

    def submit(self, frame: Frame) -> None:
        self._submitted.append(frame)

    def collect(self) -> Tracks:
        return self.step(self._submitted.popleft())

    def step(self, frame: Frame) -> Tracks:
        self._window.append(frame.id)
        count = len(self._xy)
        hidden = self.ids % 3 == 0
        xy = np.array(list(self._xy.values()), np.float32).reshape(count, 2)
        half = np.full(count, 0.5, np.float32)
        height, width = frame.rgb.shape[:2]
        stamps = frame.id, frame.captured_ns, frame.captured_unix_ns
        return Tracks(*stamps, width, height, self.ids, xy, ~hidden, half, half, model="stub")
