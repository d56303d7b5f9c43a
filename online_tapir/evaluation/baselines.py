"""Baselines: OpenCV's classical trackers behind this project's tracker interface, for a fair comparison.

`LucasKanade` tracks points until they fail its forward-backward check, `LucasKanadeWithRecovery` also searches for lost
points, and `DenseFlow` chains DIS optical flow. They use greyscale images and track each point independently. They keep
no past frames, so they refuse late queries.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from online_tapir.errors import FrameError, QueryError
from online_tapir.picture import rgb_to_rgb8
from online_tapir.records import Tracks

Grey = NDArray[np.uint8]  # [H, W]
Points = NDArray[np.float32]  # [N, 2]
Flags = NDArray[np.bool_]  # [N]

PATCH = 21  # pixels; side of the Lucas-Kanade window and of a remembered patch
PLAIN = 2.0  # grey levels; a patch with a smaller standard deviation has too little texture to match
HALF_PIXEL = np.float32(0.5)  # OpenCV's origin is the centre of the first pixel; that of image pixels is its corner


class PointTracker(Protocol):
    """A streaming point tracker: takes points and frames; returns every live point on each frame."""

    def add(self, xy: ArrayLike, frame_id: int | None = None) -> NDArray[np.int32]:
        """Queues points xy [N, 2] (image pixels) to start on the next frame given to `step`; returns their ids [N]."""
        ...

    def step(self, rgb: NDArray[np.uint8]) -> Tracks:
        """Tracks all points onto a frame [H, W, 3]; returns one row per live point, in order of id."""
        ...


class _GreyTracker:
    """Bookkeeping shared by OpenCV's trackers: queued points, ids, the last frame. Subclasses do the tracking."""

    name: str

    def __init__(self) -> None:
        self._queued: list[Points] = []
        self._ids_given = 0
        self._ids: NDArray[np.int32] = np.zeros(0, np.int32)  # [N]
        self._frame_id = -1
        self._grey: Grey | None = None
        self._xy: Points = np.zeros((0, 2), np.float32)
        self._visible: Flags = np.zeros(0, bool)

    def add(self, xy: ArrayLike, frame_id: int | None = None) -> NDArray[np.int32]:
        """Queues points xy [N, 2] (image pixels) for the next frame given to `step`; returns their ids [N].

        Raises QueryError for any frame but the next one, and for arrays of another shape.
        """
        if frame_id not in (None, self._frame_id + 1):
            raise QueryError(
                f"points are queried on frame {frame_id}, and {self.name} starts points only on the next frame; "
                f"give frame {self._frame_id + 1} or none"
            )
        points = np.array(xy, np.float32)
        if points.ndim != 2 or points.shape[1] != 2:
            raise QueryError(f"points are [N, 2] image pixels, x before y, not {list(points.shape)}")
        self._queued.append(points)
        self._ids_given += len(points)
        return self._last_ids(len(points))

    def step(self, rgb: NDArray[np.uint8]) -> Tracks:
        """Tracks all points onto the next frame, rgb uint8 [H, W, 3], and starts the queued ones there.

        Raises FrameError for an invalid image or a change of size, QueryError for a queued point outside the frame.
        """
        grey: Grey = cv2.cvtColor(rgb_to_rgb8(rgb), cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
        if self._grey is not None and self._grey.shape != grey.shape:
            raise FrameError(
                f"a frame of {_size(grey)} follows frames of {_size(self._grey)}; {self.name} needs one size: "
                "resize the frames, or start a new tracker"
            )
        new = np.concatenate([np.zeros((0, 2), np.float32), *self._queued])  # [N, 2]
        self._queued.clear()  # even if they are refused below
        if not _inside(new, grey).all():
            outside = new[~_inside(new, grey)][0]
            raise QueryError(
                f"point {outside.tolist()} lies outside the frame of {_size(grey)}; give image pixels, x, y"
            )
        if self._grey is not None and len(self._xy):
            self._xy, self._visible = self._follow(self._grey, grey)
        self._grey = grey
        self._frame_id += 1
        self._ids = np.concatenate([self._ids, self._last_ids(len(new))])
        self._xy = np.concatenate([self._xy, new])
        self._visible = np.concatenate([self._visible, np.ones(len(new), bool)])
        return self._tracks()

    def _last_ids(self, count: int) -> NDArray[np.int32]:
        return np.arange(self._ids_given - count, self._ids_given, dtype=np.int32)

    def _follow(self, before: Grey, now: Grey) -> tuple[Points, Flags]:
        """The positions on frame `now` of the points tracked up to `before`, and which of them are visible."""
        raise NotImplementedError

    def _tracks(self) -> Tracks:
        assert self._grey is not None
        height, width = self._grey.shape
        return Tracks(
            frame_id=self._frame_id,
            captured_ns=0,
            captured_unix_ns=0,
            width=width,
            height=height,
            ids=self._ids.copy(),
            xy=self._xy.copy(),
            visible=self._visible.copy(),
            occlusion=(~self._visible).astype(np.float32),
            uncertainty=np.zeros(len(self._xy), np.float32),
            model=self.name,
        )


class LucasKanade(_GreyTracker):
    """Pyramidal Lucas-Kanade with a 21x21 window, as most programs use it: a point that fails the check stays lost.

    The check is forward-backward (Kalal et al., ICPR 2010): tracked onto the new frame and back, a point must return
    to within `within_px` of where it was. A lost point stays at its last visible position, hidden.
    """

    name = "Lucas-Kanade"

    def __init__(self, within_px: float = 2.0) -> None:
        super().__init__()
        self._within_px = within_px

    def _follow(self, before: Grey, now: Grey) -> tuple[Points, Flags]:
        xy, visible = self._xy.copy(), self._visible.copy()
        alive = np.flatnonzero(visible)
        followed, sure = _lucas_kanade(before, now, xy[alive], self._within_px)
        xy[alive[sure]] = followed[sure]
        visible[alive[~sure]] = False
        return xy, visible


@dataclass(frozen=True, slots=True, eq=False)
class _Sight:
    """A past frame and where every point was on it."""

    grey: Grey  # [H, W]
    xy: Points  # [N, 2]
    visible: Flags  # [N]

    def saw(self, point: int) -> bool:
        return point < len(self.visible) and bool(self.visible[point])


class LucasKanadeWithRecovery(_GreyTracker):
    """Pyramidal Lucas-Kanade that searches for lost points and resumes those whose patch matches again.

    A point that fails the forward-backward check is lost. It keeps its last position and a frame from up to `memory`
    frames earlier, on which no occluder reached into its patch yet. From then on, normalised cross-correlation searches
    for that patch in a square around the last position, which grows by `reach_px_per_frame` up to `reach_px`. The best
    match, if above `match`, is refined by Lucas-Kanade from the earlier frame. It is accepted if it passes the
    forward-backward check and still matches there.
    """

    name = "Lucas-Kanade with recovery"

    def __init__(
        self,
        within_px: float = 2.0,
        match: float = 0.7,
        reach_px: int = 64,
        reach_px_per_frame: int = 12,
        memory: int = 3,
    ) -> None:
        super().__init__()
        self._within_px = within_px
        self._match = match
        self._reach_px = reach_px
        self._reach_px_per_frame = reach_px_per_frame
        self._recent: deque[_Sight] = deque(maxlen=memory)
        self._lost: dict[int, tuple[_Sight, int]] = {}  # point: what to search for, the last frame it was visible on

    def _follow(self, before: Grey, now: Grey) -> tuple[Points, Flags]:
        self._recent.append(_Sight(before, self._xy, self._visible))
        xy, visible = self._xy.copy(), self._visible.copy()
        alive = np.flatnonzero(visible)
        followed, sure = _lucas_kanade(before, now, xy[alive], self._within_px)
        xy[alive[sure]] = followed[sure]
        visible[alive[~sure]] = False
        for point in alive[~sure].tolist():
            self._lost[point] = (next(sight for sight in self._recent if sight.saw(point)), self._frame_id)
        for point in list(self._lost):
            found = self._search(now, point, xy[point])
            if found is not None:
                xy[point], visible[point] = found, True
                del self._lost[point]
        return xy, visible

    def _search(self, now: Grey, point: int, last_xy: Points) -> Points | None:
        """The position [2] of a lost point on this frame; None unless it is found reliably."""
        sight, last_seen = self._lost[point]
        reach = min(self._reach_px, self._reach_px_per_frame * (self._frame_id + 1 - last_seen))
        guess = _best_match(sight.grey, sight.xy[point], now, last_xy, reach, self._match)
        if guess is None:
            return None
        start = sight.xy[point : point + 1]  # [1, 2]
        found, sure = _lucas_kanade(sight.grey, now, start, self._within_px, guess[None])
        alike = _likeness(sight.grey, start[0], now, found[0]) > self._match
        return found[0] if sure[0] and alike else None


class DenseFlow(_GreyTracker):
    """DIS optical flow (Kroeger et al., ECCV 2016), medium preset, computed both ways and chained frame by frame.

    A point moves by the flow at its position. It is visible until it leaves the frame, or until the two flows disagree
    there by `within_px` and by `within_share` of the motion. It then stays hidden, as it may be following its occluder.
    """

    name = "DIS flow"

    def __init__(self, within_px: float = 2.0, within_share: float = 0.05) -> None:
        super().__init__()
        self._within_px = within_px
        self._within_share = within_share
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def _follow(self, before: Grey, now: Grey) -> tuple[Points, Flags]:
        there = self._flow.calc(before, now, None)  # [H, W, 2] float32
        back = self._flow.calc(now, before, None)  # [H, W, 2]
        motion = _sample(there, self._xy)  # [N, 2]
        xy = self._xy + motion
        disagreement = np.linalg.norm(motion + _sample(back, xy), axis=1)
        allowed = np.maximum(self._within_px, self._within_share * np.linalg.norm(motion, axis=1))
        return xy, self._visible & (disagreement < allowed) & _inside(xy, now)


def _lucas_kanade(
    before: Grey, now: Grey, xy: Points, within_px: float, guess: Points | None = None
) -> tuple[Points, Flags]:
    """Tracks points xy [N, 2] from `before` to `now`, starting at `guess`; also returns which pass the check."""
    if not len(xy):
        return xy, np.zeros(0, bool)
    settings: dict[str, Any] = {
        "winSize": (PATCH, PATCH),
        "maxLevel": 2,
        "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
        "minEigThreshold": 1e-6,
    }
    start = xy - HALF_PIXEL
    first = start if guess is None else guess - HALF_PIXEL
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, now, start, first.copy(), **settings)
    back, returned, _ = cv2.calcOpticalFlowPyrLK(now, before, there, there + start - first, **settings)
    sure = (found[:, 0] == 1) & (returned[:, 0] == 1) & (np.linalg.norm(back - start, axis=1) < within_px)
    moved = there + HALF_PIXEL  # [N, 2]
    return moved, sure & _inside(moved, now)


def _best_match(was: Grey, was_xy: Points, now: Grey, last_xy: Points, reach: int, least: float) -> Points | None:
    """Where the patch around was_xy [2] correlates best, within `reach` pixels of last_xy [2]; None below `least`."""
    column, row = np.floor(was_xy).astype(int)
    patch = _cut(was, column, row, PATCH // 2)  # [PATCH, PATCH]
    if patch.std() < PLAIN:
        return None
    column_now, row_now = np.floor(last_xy).astype(int)
    area = _cut(now, column_now, row_now, reach + PATCH // 2)  # [2 reach + PATCH, 2 reach + PATCH]
    _, best, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(area, patch, cv2.TM_CCOEFF_NORMED))
    if best < least:
        return None
    moved = np.array([column_now - column + x - reach, row_now - row + y - reach], np.float32)
    return was_xy + moved


def _cut(grey: Grey, column: int, row: int, radius: int) -> Grey:
    """The square of 2 radius + 1 pixels around a pixel, with replicated borders."""
    height, width = grey.shape
    rows = np.clip(np.arange(row - radius, row + radius + 1), 0, height - 1)
    columns = np.clip(np.arange(column - radius, column + radius + 1), 0, width - 1)
    return grey[np.ix_(rows, columns)]


def _likeness(was: Grey, was_xy: Points, now: Grey, xy: Points) -> float:
    """The normalised correlation, in [-1, 1], of the patches around was_xy [2] and xy [2]."""
    size = (PATCH, PATCH)
    patch_was = cv2.getRectSubPix(was, size, (was_xy - HALF_PIXEL).tolist())
    patch_now = cv2.getRectSubPix(now, size, (xy - HALF_PIXEL).tolist())
    return float(cv2.matchTemplate(patch_now, patch_was, cv2.TM_CCOEFF_NORMED)[0, 0])


def _sample(flow: NDArray[np.float32], xy: Points) -> Points:
    """Samples a flow [H, W, 2] at points xy [N, 2], bilinearly, with replicated borders: [N, 2]."""
    x, y = (xy - HALF_PIXEL).T[..., None]  # [N, 1] each
    sampled = cv2.remap(flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # [N, 1, 2]
    return np.asarray(sampled, np.float32)[:, 0]


def _inside(xy: Points, grey: Grey) -> Flags:
    height, width = grey.shape
    inside: Flags = np.all((xy >= 0) & (xy < [width, height]), axis=-1)
    return inside


def _size(grey: Grey) -> str:
    return f"{grey.shape[1]}x{grey.shape[0]}"
