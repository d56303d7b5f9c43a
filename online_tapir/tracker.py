"""A tracker of many points on one stream: frames in, tracks out, points added and removed between frames.

Knows no camera and no sink, and is not thread-safe: one thread calls it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from online_tapir.clock import Stopwatch, SystemClock
from online_tapir.errors import ConfigError, FrameError, QueryError
from online_tapir.model import coordinates
from online_tapir.model.config import LOWRES_STRIDE
from online_tapir.model.coordinates import Size
from online_tapir.model.estimate import Estimate, visibility
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import FeaturePyramid, Tapir
from online_tapir.model.window import FeatureWindow, RememberedFrame
from online_tapir.picture import MIN_SIDE, rgb_to_rgb8
from online_tapir.points import check_inside
from online_tapir.records import Frame, StageTimes, Tracks

Resolution = Size | Literal["frame"] | None


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """Points that wait for the next step: their ids [P], where [P, 2] (image pixels), and on which frame."""

    ids: NDArray[np.int32]
    xy: NDArray[np.float32]
    frame_id: int | None  # None: the next frame


class Tracker:
    """Follows points through the frames given to `step`.

    `max_points` rows are made once, at the first frame; points come and go in them without another allocation. The last
    `window` frames' features are kept, so that a point may be added on a frame that has passed. `resolution` is where
    points are refined: None, the model's initial resolution alone; (height, width), one of your own; "frame", the
    paper's geometric steps from the initial one to the first frame's own size.
    """

    def __init__(self, model: Tapir, max_points: int = 256, window: int = 32, resolution: Resolution = None) -> None:
        if max_points < 1:
            raise ConfigError(f"max_points={max_points} leaves no room for a point; give at least 1")
        if window < 1:
            raise ConfigError(f"window={window} frames is too short; give at least 1")
        self.model = model
        self.max_points = max_points
        self._resolution = resolution
        self._window = FeatureWindow(window)
        self._state: TrackState | None = None
        self._refinement: list[Size] = []
        self._rows = np.empty(0, np.int32)  # the id at each row of the state
        self._queries: list[Query] = []
        self._next_id = 0
        self._frames = 0
        self._last_frame: RememberedFrame | None = None
        self._clock = SystemClock()
        first = next(model.parameters())
        self._device, self._dtype = first.device, first.dtype

    @property
    def ids(self) -> NDArray[np.int32]:
        """The points that live or wait for the next step, ascending."""
        waiting = [query.ids for query in self._queries]
        return np.sort(np.concatenate([self._rows, *waiting]))

    @property
    def frame_ids(self) -> list[int]:
        """The frames that a query may name, oldest first."""
        return self._window.ids

    @property
    def bytes_per_point(self) -> int:
        """What the state holds of each point; 0 before the first frame."""
        return self._state.bytes_per_point if self._state is not None else 0

    def add(self, xy: ArrayLike, frame_id: int | None = None) -> NDArray[np.int32]:
        """Queues points xy [P, 2] (image pixels of frame `frame_id`, or of the next frame); returns their ids [P].

        The next `step` answers for them; a point on a past frame is carried through the window to it first. Raises
        QueryError where a point is outside the frame, there is no room, or the frame has left the window.
        """
        points = np.asarray(xy, np.float32)
        if points.ndim != 2 or points.shape[1] != 2:
            raise QueryError(f"points come as [P, 2], x before y; these are {list(points.shape)}")
        where = self._last_frame if frame_id is None else self._window.find(frame_id)
        if where is not None:
            check_inside(points, where.size[1], where.size[0])
        live = len(self.ids)
        if live + len(points) > self.max_points:
            raise QueryError(
                f"{len(points)} points asked for beside the {live} there are, but there is room for {self.max_points}; "
                f"remove some or raise --max-points"
            )
        ids = np.arange(self._next_id, self._next_id + len(points), dtype=np.int32)
        self._next_id += len(points)
        self._queries.append(Query(ids, points.copy(), frame_id))
        return ids

    @torch.inference_mode()
    def remove(self, ids: ArrayLike) -> None:
        """Forgets points. QueryError, and nothing removed, where one of them is not there."""
        wanted = np.unique(np.asarray(ids, np.int32))
        unknown = np.setdiff1d(wanted, self.ids)
        if len(unknown):
            raise QueryError(f"there is no point {unknown[0]}; it was removed before, or never added")
        self._queries = [_without(query, wanted) for query in self._queries]
        for row in sorted(np.flatnonzero(np.isin(self._rows, wanted)), reverse=True):
            self._vacate(int(row))

    def clear(self) -> None:
        """Forgets every point; the window of frames stays."""
        self._rows = self._rows[:0]
        self._queries.clear()

    @torch.inference_mode()
    def step(self, rgb: NDArray[np.uint8] | Frame) -> Tracks:
        """Tracks every point on the next frame, uint8 RGB [H, W, 3] or a Frame; any size, any aspect.

        Raises FrameError for what is no such picture or comes out of order, QueryError where a point waiting for this
        frame is outside it (such points are dropped, the others wait on).
        """
        watch = Stopwatch(self._clock)
        frame = self._frame_of(rgb)
        number = self._frames
        current = RememberedFrame(frame.id, number, (frame.rgb.shape[0], frame.rgb.shape[1]))
        age_ns = self._clock.monotonic_ns() - frame.captured_ns
        self._refuse_outside(current)
        image = self._upload(frame.rgb)
        self._prepare(current)
        upload_ns = watch.lap()

        pyramid = self.model.encode(image, self._refinement)
        encode_ns = watch.lap()

        self._answer_late_queries()
        pyramid = self._window.push(current, pyramid)
        self._answer_queries(pyramid, current)
        self._frames, self._last_frame = number + 1, current
        state = self._live_state()
        first = self.model.match(pyramid, state).estimate
        match_ns = watch.lap()

        best = self.model.refine(pyramid, first, state, number & 1)[-1]
        refine_ns = watch.lap()

        ids, xy, occlusion, distance = self._download(best, current)
        above = self.model.config.visible_above
        times = StageTimes(max(0, age_ns), upload_ns, encode_ns, match_ns, refine_ns, watch.lap())
        return Tracks(
            frame_id=frame.id,
            captured_ns=frame.captured_ns,
            captured_unix_ns=frame.captured_unix_ns,
            width=current.size[1],
            height=current.size[0],
            ids=ids,
            xy=xy,
            visible=visibility(torch.from_numpy(occlusion), torch.from_numpy(distance), above).numpy(),
            occlusion=_probability(occlusion),
            uncertainty=_probability(distance),
            model=self.model.config.name,
            times=times,
        )

    def _frame_of(self, rgb: NDArray[np.uint8] | Frame) -> Frame:
        """The next frame; a bare array is stamped now and numbered after the last."""
        last = self._last_frame.id if self._last_frame is not None else -1
        if not isinstance(rgb, Frame):
            return Frame(last + 1, self._clock.monotonic_ns(), self._clock.unix_ns(), rgb_to_rgb8(rgb))
        if rgb.id <= last:
            raise FrameError(f"frame {rgb.id} came after frame {last}; give frames in the order of their ids")
        return Frame(rgb.id, rgb.captured_ns, rgb.captured_unix_ns, rgb_to_rgb8(rgb.rgb))

    def _upload(self, rgb: NDArray[np.uint8]) -> Tensor:
        """The picture as the model takes it: [1, 3, H, W] in [-1, 1] on its device."""
        pixels = torch.from_numpy(rgb if rgb.flags.writeable else rgb.copy())
        image = pixels.to(self._device).permute(2, 0, 1)[None]  # channels-last, as it lies
        return image.to(self._dtype).mul_(2 / 255).sub_(1)

    def _prepare(self, frame: RememberedFrame) -> None:
        """Makes the state at the first frame, when the resolutions to refine at are known."""
        if self._state is not None:
            return
        initial = self.model.config.initial_resolution
        if self._resolution is None:
            self._refinement = [initial]
        elif self._resolution == "frame":
            self._refinement = coordinates.refinement_resolutions(initial, frame.size, LOWRES_STRIDE)
        else:
            height, width = self._resolution
            if height % LOWRES_STRIDE or width % LOWRES_STRIDE or min(height, width) < 2 * LOWRES_STRIDE:
                raise ConfigError(f"resolution {height}x{width} is not a multiple of {LOWRES_STRIDE} of at least 16x16")
            self._refinement = [(height, width)]
        self._state = TrackState.empty(
            self.model.config, len(self._refinement), self.max_points, self._device, self._dtype
        )

    def _live_state(self) -> TrackState:
        assert self._state is not None
        return self._state.rows(0, len(self._rows))

    def _refuse_outside(self, frame: RememberedFrame) -> None:
        """Drops queries for the next frame that lie outside it, now that its size is known, and says so."""
        for query in [query for query in self._queries if query.frame_id is None]:
            try:
                check_inside(query.xy, frame.size[1], frame.size[0])
            except QueryError:
                self._queries.remove(query)
                raise

    def _answer_late_queries(self) -> None:
        """Begins the points that name a past frame, and carries them through the window up to its newest frame."""
        late = sorted({query.frame_id for query in self._queries if query.frame_id is not None})
        for frame_id in late:
            frame = self._window.find(frame_id)
            queries = [query for query in self._queries if query.frame_id == frame_id]
            start = len(self._rows)
            self._begin(queries, self._window.pyramid(frame), frame)
            self._carry(start, len(self._rows), self._window.since(frame))
        self._queries = [query for query in self._queries if query.frame_id is None]

    def _answer_queries(self, pyramid: FeaturePyramid, frame: RememberedFrame) -> None:
        self._begin(self._queries, pyramid, frame)
        self._queries.clear()

    def _begin(self, queries: Sequence[Query], pyramid: FeaturePyramid, frame: RememberedFrame) -> None:
        """Gives the points of `queries`, which lie on `frame`, rows of their own after the live ones."""
        if not queries:
            return
        assert self._state is not None
        xy = torch.from_numpy(np.concatenate([query.xy for query in queries])).to(self._device)
        self._state.begin(len(self._rows), *self.model.describe(pyramid, xy, frame.size))
        self._rows = np.concatenate([self._rows, *(query.ids for query in queries)])

    def _carry(self, start: int, stop: int, frames: Sequence[RememberedFrame]) -> None:
        """Tracks rows start..stop alone through frames of the window: no backbone runs again."""
        assert self._state is not None
        state = self._state.rows(start, stop)
        for frame in frames:
            pyramid = self._window.pyramid(frame)
            self.model.refine(pyramid, self.model.match(pyramid, state).estimate, state, frame.number & 1)

    def _vacate(self, row: int) -> None:
        """Removes a row; the last one moves into its place, so that live rows stay together."""
        last = len(self._rows) - 1
        if row != last:
            assert self._state is not None
            self._state.move(last, row)
            self._rows[row] = self._rows[last]
        self._rows = self._rows[:last]

    def _download(
        self, estimate: Estimate, frame: RememberedFrame
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Ids ascending, image positions [N, 2] and both logits [N], in one copy to the host."""
        xy = coordinates.rescale(estimate.xy[0], self.model.config.initial_resolution, frame.size)
        logits = torch.stack([estimate.occlusion[0], estimate.expected_distance[0]], dim=1)
        host = torch.cat([xy, logits], dim=1).float().cpu().numpy()  # [N, 4]
        order = np.argsort(self._rows)
        host = host[order]
        return self._rows[order], np.ascontiguousarray(host[:, :2]), host[:, 2].copy(), host[:, 3].copy()


def warm_up(model: Tapir, points: int) -> None:
    """Tracks `points` points on two made-up frames, so that what happens once (compiling, caching) is over."""
    tracker = Tracker(model, max_points=points, window=1)
    tracker.add(np.full((points, 2), MIN_SIDE / 2))
    for _ in range(2):
        tracker.step(np.zeros((MIN_SIDE, MIN_SIDE, 3), np.uint8))


def _without(query: Query, ids: NDArray[np.int32]) -> Query:
    keep = ~np.isin(query.ids, ids)
    return Query(query.ids[keep], query.xy[keep], query.frame_id)


def _probability(logit: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-logit.clip(-80, 80))), np.float32)
