"""Helpers for tests of tracking programs, ours and yours: no camera, no weights, no network, no waiting.

    sink = ListSink()
    run(SyntheticCamera(sliding_pictures(7)), FakeTracker(), Grid(3, 2), [MySink(), sink])
    assert [tracks.frame_id for tracks in sink.tracks] == list(range(7))

`SyntheticCamera` gives arrays as frames, `FakeTracker` follows points without a model, `tiny_model` is a real one with
random weights, `ListSink` keeps all it is given, `make_tracks` builds a record. Nothing here imports pytest.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from online_tapir.camera.base import Camera
from online_tapir.camera.synthetic import SyntheticCamera
from online_tapir.errors import QueryError
from online_tapir.live.sink import Sink
from online_tapir.points.placement import NOWHERE, Grid, PointSource
from online_tapir.records import Frame, Label, Queries, StageTimes, Tracks
from online_tapir.wire.messages import Heartbeat

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream
    from online_tapir.model.config import TapirConfig
    from online_tapir.model.tapir import Tapir
    from online_tapir.tracking.tracker import Tracker

__all__ = [
    "FakeTracker",
    "Grid",
    "ListSink",
    "SyntheticCamera",
    "make_tracks",
    "run",
    "sliding_pictures",
    "tiny_config",
    "tiny_model",
]

Moves = Callable[[NDArray[np.float32], int, int], tuple[ArrayLike, ArrayLike]]


class ListSink(Sink):
    """Keeps everything it is given, in order."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.queries: list[Queries] = []
        self.frames: list[Frame] = []
        self.tracks: list[Tracks] = []
        self.heartbeats: list[Heartbeat] = []
        self.closed = False

    def begin(self, stream: "Stream") -> None:
        self.streams.append(stream)

    def named(self, camera: str, queries: Sequence[Queries]) -> None:
        self.queries.extend(queries)

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        self.frames.append(frame)
        self.tracks.append(tracks)

    def beat(self, heartbeat: Heartbeat) -> None:
        self.heartbeats.append(heartbeat)

    def close(self) -> None:
        self.closed = True


def stays(xy: NDArray[np.float32], named_on: int, now: int) -> tuple[ArrayLike, ArrayLike]:
    """A point that stays where it was named, and visible."""
    return xy, True


class FakeTracker:
    """A tracker's interface without a model. Ids and the window of frames behave as in `Tracker`.

    `moves` says where a point is: from its query xy [1, 2] (image pixels), the frame it was named on and the frame now,
    to its position [1, 2] and whether it is visible. A `DemoScene`'s `truth` makes a perfect tracker.
    """

    device = "nowhere"
    overlaps = False

    def __init__(self, moves: Moves = stays, *, max_points: int = 4096, window: int = 32) -> None:
        self.max_points = max_points
        self.added = 0  # points so far
        self.inspected: int | None = None
        self.labels: dict[int, Label] = {}
        self.answer: Tracks | None = None  # the newest one
        self._moves = moves
        self._queries: dict[int, tuple[NDArray[np.float32], int | None]] = {}
        self._window: deque[int] = deque(maxlen=window)
        self._submitted: deque[Frame] = deque()

    @property
    def ids(self) -> NDArray[np.int32]:
        return np.fromiter(self._queries, np.int32, len(self._queries))

    @property
    def frame_ids(self) -> list[int]:
        return list(self._window)

    @property
    def in_flight(self) -> int:
        return len(self._submitted)

    @property
    def oldest_in_flight(self) -> Frame:
        return self._submitted[0]

    def add(
        self, xy: ArrayLike, frame_id: int | None = None, *, names: Sequence[str] = (), group: str = ""
    ) -> NDArray[np.int32]:
        points = np.asarray(xy, np.float32).reshape(-1, 2)
        ids = np.arange(self.added, self.added + len(points), dtype=np.int32)
        self.added += len(points)
        if names or group:
            self.labels |= {
                id: Label(name, group) for id, name in zip(ids.tolist(), names or [""] * len(ids), strict=True)
            }
        self._queries |= {id: (point, frame_id) for id, point in zip(ids.tolist(), points, strict=True)}
        return ids

    def label(self, id: int, label: Label) -> None:
        if label.name and any(other.name == label.name for one, other in self.labels.items() if one != id):
            raise QueryError(f"there is a point called {label.name!r} already")
        self.labels[id] = label

    def remove(self, ids: ArrayLike) -> None:
        for id in np.asarray(ids).tolist():
            del self._queries[id]
            self.labels.pop(id, None)

    def clear(self) -> None:
        self._queries.clear()

    def check_inspects(self) -> None:
        """As `Tracker.check_inspects`."""

    def inspect(self, id: int | None) -> None:
        if id is not None and id not in self._queries:
            raise QueryError(f"there is no point {id}")
        self.inspected = id

    def submit(self, frame: Frame) -> None:
        self._submitted.append(frame)

    def collect(self) -> Tracks:
        frame = self._submitted.popleft()
        self._window.append(frame.id)
        self._queries = {id: (xy, frame.id if on is None else on) for id, (xy, on) in self._queries.items()}
        moved = [self._moves(xy[None], frame.id if on is None else on, frame.id) for xy, on in self._queries.values()]
        height, width = frame.rgb.shape[:2]
        return make_tracks(
            frame.id,
            np.array([np.asarray(xy).reshape(2) for xy, _ in moved], np.float32).reshape(-1, 2),
            ids=self.ids,
            visible=[bool(np.all(seen)) for _, seen in moved],
            size=(width, height),
            captured_ns=frame.captured_ns,
            captured_unix_ns=frame.captured_unix_ns,
            model="fake",
            labels=dict(self.labels),
        )

    def step(self, frame: Frame) -> Tracks:
        self.submit(frame)
        return self.collect()


def make_tracks(
    frame_id: int = 0,
    xy: ArrayLike = ((20.5, 12.5),),
    *,
    ids: ArrayLike | None = None,
    visible: ArrayLike = True,
    occlusion: ArrayLike = 0.0,
    uncertainty: ArrayLike = 0.0,
    size: tuple[int, int] = (49, 33),
    captured_ns: int = 0,
    **others: Any,
) -> Tracks:
    """Tracks of points xy [N, 2] on a frame of `size` (width, height); scalars stand for all points.

    `ids` count from 0 unless given; `others` are further fields of `Tracks`.
    """
    places = np.asarray(xy, np.float32).reshape(-1, 2)
    count = len(places)

    def each(values: ArrayLike, dtype: Any) -> NDArray[Any]:
        return np.broadcast_to(np.asarray(values, dtype), count).copy()

    return Tracks(
        frame_id=frame_id,
        captured_ns=captured_ns,
        captured_unix_ns=others.pop("captured_unix_ns", captured_ns),
        width=size[0],
        height=size[1],
        ids=np.arange(count, dtype=np.int32) if ids is None else np.asarray(ids, np.int32),
        xy=places,
        visible=each(visible, np.bool_),
        occlusion=each(occlusion, np.float32),
        uncertainty=each(uncertainty, np.float32),
        times=others.pop("times", StageTimes()),
        **others,
    )


def sliding_pictures(count: int, height: int = 64, width: int = 96, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Pictures uint8 RGB [H, W, 3] of a smooth texture that slides by 1 row and 3 columns a frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 4 + 8 + count, width // 4 + 8 + count, 3), dtype=np.uint8)
    texture = cv2.resize(coarse, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(texture[i : i + height, 3 * i : 3 * i + width]) for i in range(count)]


def tiny_config(**changes: Any) -> "TapirConfig":
    """The configuration of a small model that has every part; `changes` are fields of `TapirConfig`."""
    from online_tapir.model.config import TapirConfig

    tiny = TapirConfig(
        name="tiny",
        stem_width=8,
        widths=(8, 16, 24, 24),
        blocks=(1, 1, 1, 1),
        extra_convs=1,
        match_width=4,
        mixer_width=32,
        mixer_depth=2,
        iterations=2,
        initial_resolution=(64, 96),
        peak_inputs=True,
        motion_inputs=True,
    )
    return replace(tiny, **changes)


def tiny_model(config: "TapirConfig | None" = None, seed: int = 0) -> "Tapir":
    """A model with random weights, determined by the seed; every part of it affects the outputs."""
    import torch

    from online_tapir.model.tapir import Tapir

    torch.manual_seed(seed)
    model = Tapir(config or tiny_config()).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def run(
    camera: Camera,
    tracker: "Tracker | FakeTracker",
    points: PointSource = NOWHERE,
    sinks: Iterable[Sink] = (),
    *,
    stop: threading.Event | None = None,
    frames: int | None = None,
    pipeline: bool = False,
    **how: Any,
) -> "Stream":
    """Runs a camera through a tracker into sinks until it ends, as the program does; returns its stream.

    `how` are further arguments of `Stream` and of its `Capture`: replenish, heartbeat_s, inspect, reopen, report, ...
    """
    from online_tapir.camera.capture import Capture
    from online_tapir.live.roster import Member
    from online_tapir.live.run import Run
    from online_tapir.live.stream import Stream

    stop = stop or threading.Event()
    follower: Any = tracker
    source = {name: how.pop(name) for name in ("reopen", "reconnect") if name in how}
    capture = Capture(camera, report=how.get("report", print), **source)
    stream = Stream(capture, follower, stop, points=points, **how)
    Run([Member(stream)], list(sinks), stop, frames=frames, pipeline=pipeline).go()
    return stream
