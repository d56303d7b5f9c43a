"""Metrics of tracks: TAP-Vid's three, plus re-detection, jitter and drift. Uses only numpy.

Average Jaccard, position accuracy and occlusion accuracy follow the section on metrics of TAP-Vid (arXiv 2211.03726).
Positions are pixels of a 256x256 image (`scale_to_256`) and arrays are [N, T]: points, frames. Nothing here runs a
tracker or chooses queries.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Positions: TypeAlias = NDArray[np.floating[Any]]  # [N, T, 2]
Flags: TypeAlias = NDArray[np.bool_]  # [N, T]

THRESHOLDS_PX = (1, 2, 4, 8, 16)
SCORED_SIZE = 256
STILL_PX = 0.01  # a point that moves less is still


@dataclass(frozen=True, slots=True)
class TrackScores:
    """TAP-Vid's metrics of one video, or their mean over videos; shares in [0, 1], NaN if nothing could be scored."""

    average_jaccard: float
    jaccard: tuple[float, ...]  # one for each of THRESHOLDS_PX
    average_position_accuracy: float
    position_accuracy: tuple[float, ...]  # one for each of THRESHOLDS_PX
    occlusion_accuracy: float
    median_error: float  # of truly visible points, pixels at 256x256


@dataclass(frozen=True, slots=True)
class Redetection:
    """How many points came back after an occlusion, and how many of these the tracker found again."""

    found: int
    returned: int

    @property
    def rate(self) -> float:
        """The share found, NaN if no point came back."""
        return _share(self.found, self.returned)

    def __add__(self, other: "Redetection") -> "Redetection":
        return Redetection(self.found + other.found, self.returned + other.returned)


def scale_to_256(xy: Positions, width: int, height: int) -> NDArray[np.float64]:
    """Scales positions xy [..., 2] from pixels of a width x height image (raster coordinates) to a 256x256 image."""
    scaled: NDArray[np.float64] = np.asarray(xy, np.float64) * SCORED_SIZE / np.array([width, height])
    return scaled


def frames_after_query(query_frame: NDArray[np.integer[Any]], frames: int) -> Flags:
    """The frames that query-first scoring counts, [N, T]: those strictly after each point's query_frame [N]."""
    after: Flags = np.arange(frames) > np.asarray(query_frame)[:, None]
    return after


def frames_but_query(query_frame: NDArray[np.integer[Any]], frames: int) -> Flags:
    """The frames that strided scoring counts, [N, T]: all but each point's query_frame [N]."""
    others: Flags = np.arange(frames) != np.asarray(query_frame)[:, None]
    return others


def score(xy: Positions, visible: Flags, true_xy: Positions, true_visible: Flags, scored: Flags) -> TrackScores:
    """TAP-Vid's metrics of one video (arXiv 2211.03726), on the frames that `scored` [N, T] marks.

    `xy`, `true_xy` [N, T, 2] are pixels at 256x256; `visible`, `true_visible` are [N, T]. A position is within a
    threshold if its error is strictly smaller. Position accuracy is the share of truly visible points within the
    threshold, whether predicted visible or not. Jaccard is TP / (truly visible + FP): TP are truly visible, predicted
    visible and within the threshold; FP are predicted visible but truly hidden, or not within it. Averages are over the
    thresholds 1, 2, 4, 8 and 16 px. NaN positions are within no threshold. Raises ValueError if array shapes mismatch.
    """
    _check_shapes(xy, visible, true_xy, true_visible, scored)
    error = _distance(xy, true_xy)  # [N, T]
    seen = true_visible & scored  # [N, T]
    claimed = visible & scored  # [N, T]
    positives = np.count_nonzero(seen)
    jaccard, accuracy = [], []
    for threshold in THRESHOLDS_PX:
        within = seen & (error < threshold)  # [N, T]
        hits = np.count_nonzero(claimed & within)
        false_alarms = np.count_nonzero(claimed & ~within)
        jaccard.append(_share(hits, positives + false_alarms))
        accuracy.append(_share(np.count_nonzero(within), positives))
    agreed = np.count_nonzero((visible == true_visible) & scored)
    return TrackScores(
        average_jaccard=float(np.mean(jaccard)),
        jaccard=tuple(jaccard),
        average_position_accuracy=float(np.mean(accuracy)),
        position_accuracy=tuple(accuracy),
        occlusion_accuracy=_share(agreed, np.count_nonzero(scored)),
        median_error=float(np.median(error[seen])) if positives else math.nan,
    )


def average(scores: Sequence[TrackScores]) -> TrackScores:
    """The mean of each metric over the videos for which it is defined, all with the same weight.

    Raises ValueError if there are no videos.
    """
    if not scores:
        raise ValueError("no scores to average: no video was scored")
    return TrackScores(
        average_jaccard=_mean([s.average_jaccard for s in scores]),
        jaccard=tuple(_mean(column) for column in zip(*(s.jaccard for s in scores), strict=True)),
        average_position_accuracy=_mean([s.average_position_accuracy for s in scores]),
        position_accuracy=tuple(_mean(column) for column in zip(*(s.position_accuracy for s in scores), strict=True)),
        occlusion_accuracy=_mean([s.occlusion_accuracy for s in scores]),
        median_error=_mean([s.median_error for s in scores]),
    )


def redetection(
    xy: Positions,
    visible: Flags,
    true_xy: Positions,
    true_visible: Flags,
    query_frame: NDArray[np.integer[Any]],
    hidden_frames: tuple[int, int] = (5, 20),
    within_px: float = 4.0,
) -> Redetection:
    """Counts the points that came back after an occlusion, and those of them found again.

    A point comes back if, after its query frame, it is truly hidden for 5 to 20 consecutive frames (`hidden_frames`,
    inclusive) and then truly visible on at least the next 5. It is found again if, on at least two of the third, fourth
    and fifth of these, it is predicted visible and within 4 px (`within_px`, at 256x256). This allows a delay of two
    frames, and one lucky frame is not enough. A point that comes back twice counts twice. Shapes as for `score`.
    """
    _check_shapes(xy, visible, true_xy, true_visible)
    right = visible & (_distance(xy, true_xy) < within_px)  # [N, T]
    shortest, longest = hidden_frames
    found = returned = 0
    for n, first in enumerate(query_frame):
        for hidden, back, gone in _occlusions(true_visible[n], int(first)):
            if shortest <= back - hidden <= longest and gone - back >= 5:
                returned += 1
                found += int(np.count_nonzero(right[n, back + 2 : back + 5]) >= 2)
    return Redetection(found, returned)


def frames_after_return(true_visible: Flags, query_frame: NDArray[np.integer[Any]], hidden_frames: int = 5) -> Flags:
    """The frames [N, T] on which a point has come back: from its first visible frame after an absence on.

    An absence is `hidden_frames` or more truly hidden frames in a row after the query frame. `score` on these frames
    gives the Average Jaccard of re-detection, AJ_RD: what a tracker is worth for points that it has had to find again.
    """
    returned = np.zeros_like(true_visible)
    for n, first in enumerate(query_frame):
        hidden = 0
        for frame in range(int(first) + 1, true_visible.shape[1]):
            if true_visible[n, frame] and hidden >= hidden_frames:
                returned[n, frame:] = True
                break
            hidden = 0 if true_visible[n, frame] else hidden + 1
    return returned


def jitter(xy: Positions, true_xy: Positions, true_visible: Flags, scored: Flags) -> NDArray[np.float64]:
    """Jitter of each still point, [N]: the standard deviation of its position over time, in pixels.

    It covers both axes: the root-mean-square distance from the point's mean position, over frames that are `scored` and
    on which the point is truly visible. NaN for a point that truly moves, or has fewer than 5 such frames. Shapes as
    for `score`.
    """
    return _over_still_points(lambda error: np.sqrt(np.sum(np.var(error, axis=0))), xy, true_xy, true_visible, scored)


def drift(xy: Positions, true_xy: Positions, true_visible: Flags, scored: Flags) -> NDArray[np.float64]:
    """Drift of each still point by the end, [N]: the length of its mean error over 5 frames, in pixels.

    These are the last 5 frames that are `scored` and on which the point is truly visible; the mean removes jitter.
    NaN for a point that truly moves, or has fewer than 5 such frames. Shapes as for `score`.
    """
    return _over_still_points(
        lambda error: np.linalg.norm(np.mean(error[-5:], axis=0)), xy, true_xy, true_visible, scored
    )


def _over_still_points(
    measure: Callable[[Positions], np.floating[Any]],  # of the errors [T, 2] of one point
    xy: Positions,
    true_xy: Positions,
    true_visible: Flags,
    scored: Flags,
) -> NDArray[np.float64]:
    """The result of `measure` for each still point, [N]; NaN for the others."""
    _check_shapes(xy, scored, true_xy, true_visible)
    seen = true_visible & scored  # [N, T]
    measured = np.full(len(xy), math.nan)  # [N]
    for n in range(len(xy)):
        truth = true_xy[n, seen[n]]  # [T, 2]
        if len(truth) >= 5 and np.ptp(truth, axis=0).max() < STILL_PX:
            measured[n] = measure(np.asarray(xy[n, seen[n]], np.float64) - truth)
    return measured


def _occlusions(true_visible: NDArray[np.bool_], first: int) -> list[tuple[int, int, int]]:
    """Occlusions of a point [T] after frame `first`: first hidden frame, next visible frame, end of that span."""
    changes = first + 1 + np.flatnonzero(np.diff(true_visible[first:].astype(np.int8)))
    ends = [*changes.tolist(), len(true_visible)]
    hides = 0 if true_visible[first] else 1  # changes alternate; index of the first one that hides the point
    return [(ends[i], ends[i + 1], ends[i + 2]) for i in range(hides, len(ends) - 2, 2)]


def _distance(xy: Positions, true_xy: Positions) -> NDArray[np.float64]:
    """Distances [N, T]; infinite where a position is NaN."""
    distance = np.linalg.norm(np.asarray(xy, np.float64) - true_xy, axis=-1)
    return np.where(np.isnan(distance), np.inf, distance)


def _share(part: int | np.signedinteger[Any], whole: int | np.signedinteger[Any]) -> float:
    return float(part / whole) if whole else math.nan


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _check_shapes(xy: Positions, visible: Flags, true_xy: Positions, *flags: Flags) -> None:
    shapes = [visible.shape, *(flag.shape for flag in flags)]
    wanted = (*visible.shape, 2)
    if visible.ndim != 2 or xy.shape != wanted or true_xy.shape != wanted or len(set(shapes)) > 1:
        raise ValueError(
            f"positions {xy.shape} and {true_xy.shape} do not fit flags {shapes}; "
            "give positions [N, T, 2] and flags [N, T]"
        )
