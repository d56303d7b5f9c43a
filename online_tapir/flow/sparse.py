"""Sparse pyramidal Lucas-Kanade flow with a forward-backward check, on the luminance of frames.

(B. Lucas, T. Kanade 1981; J.-Y. Bouguet 2001; forward-backward error: Z. Kalal et al. 2010.)
"""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.records import Frame

WINDOW = (21, 21)  # patch around a point, pixels
LEVELS = 2  # pyramid levels above the frame itself; coarse dense flow covers larger motion
LONGEST_SIDE = 960  # pixels; larger frames are halved until they fit
CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01)
COARSE_SIDE = 160  # longer side of the frames for dense flow, which initialises Lucas-Kanade; pixels
COARSE_ERROR = 1.0  # largest forward-backward error of dense flow, pixels of the small frames
LEAST_CONTINUITY = 0.6  # correlation of a frame with the one before, warped onto it; a scene cut has less
PLAIN = 4.0  # variance, squared grey levels; flatter frames get a lower correlation
JUMP = 4.0  # change of mean or contrast, grey levels, from which brightness is matched
LEAST_SIDE = 32  # pixels that dense flow needs for its pyramid; OpenCV's crashes on some smaller ones
LARGEST_ERROR = 1.5  # largest forward-backward error of Lucas-Kanade, pixels of `grey`
ANCHOR_LEVELS = 0  # the guess is near: the frame itself is enough
ANCHOR_ERROR = 0.1  # largest forward-backward error of a point that is found again in its older frame's look
ANCHOR_REACH = 2.0  # pixels of `grey` that it may be from the guess
FLATTEST = 1e-6  # smallest eigenvalue of a patch's gradient matrix for which flow is trusted

Dense = tuple[NDArray[np.float32], NDArray[np.float32], float]  # flow forwards, backwards [h, w, 2], and continuity
Points = NDArray[np.float32]  # [N, 2] image pixels, raster coordinates


@dataclass(frozen=True, slots=True, eq=False)
class FlowFrame:
    """A frame as flow sees it."""

    id: int
    grey: NDArray[np.uint8]  # [h, w] luminance; OpenCV's Python binding does not accept prebuilt pyramids
    small: NDArray[np.uint8]  # the same, no larger than COARSE_SIDE
    shrunk: int  # the frame's size over that of `grey`
    size: tuple[int, int]  # of the frame: width, height
    towards: dict[int, Dense] = field(
        default_factory=dict
    )  # what was found between this frame and others, by their ids

    @classmethod
    def of(cls, frame: Frame) -> "FlowFrame":
        grey = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY)
        height, width = grey.shape
        shrunk = 1
        while max(height, width) > LONGEST_SIDE * shrunk:
            shrunk *= 2
        if shrunk > 1:
            grey = cv2.resize(grey, (width // shrunk, height // shrunk), interpolation=cv2.INTER_AREA)
        less = min(1.0, COARSE_SIDE / max(grey.shape))
        small_size = (max(LEAST_SIDE, round(grey.shape[1] * less)), max(LEAST_SIDE, round(grey.shape[0] * less)))
        small = cv2.resize(grey, small_size, interpolation=cv2.INTER_AREA)
        return cls(frame.id, np.asarray(grey, np.uint8), np.asarray(small, np.uint8), shrunk, (width, height))


def carry(source: FlowFrame, target: FlowFrame, xy: Points) -> tuple[Points, NDArray[np.bool_]]:
    """Carries points xy [N, 2] from `source` to `target`; also returns which of them passed the checks [N].

    Coarse dense flow initialises Lucas-Kanade, so that it also follows fast and blurred motion. Points that do not pass
    keep their positions: those outside the picture, those that flow loses, and all of them after a scene cut or
    between frames of different sizes.
    """
    target = _as_bright_as(source, target)
    inside = ((xy >= 0) & (xy < source.size)).all(axis=1) & np.isfinite(xy).all(axis=1)
    passed = np.zeros(len(xy), np.bool_)
    if source.size != target.size or not inside.any():
        return xy.copy(), passed
    start = ((xy[inside] / source.shrunk) - 0.5).astype(np.float32)[:, None]  # OpenCV's first pixel lies at (0, 0)
    dense = source.towards.get(target.id)
    if dense is None and source.id in target.towards:  # the same way back
        forwards, backwards, continuity = target.towards[source.id]
        dense = backwards, forwards, continuity
    if dense is None:
        dense = source.towards[target.id] = _dense_both_ways(source, target)
    forwards, backwards, continuity = dense
    if continuity < LEAST_CONTINUITY:
        return xy.copy(), passed
    coarse = _at(forwards, source, start)
    there, found = _flow(source, target, start, start + coarse)
    back, again = _flow(target, source, there, there - coarse)
    good = found & again & (np.linalg.norm(back - start, axis=2)[:, 0] < LARGEST_ERROR)
    rough = start + coarse
    agrees = np.linalg.norm(coarse + _at(backwards, target, rough), axis=2)[:, 0] < COARSE_ERROR / _scale(source)[0]
    there[~good] = rough[~good]  # where the fine flow fails, the coarse one is better than none
    moved = ((there[:, 0] + 0.5) * source.shrunk).astype(np.float32)
    within = ((moved >= 0) & (moved < source.size)).all(axis=1)
    good = (good | agrees) & within
    carried = xy.astype(np.float32, copy=True)
    indices = np.flatnonzero(inside)[good]
    carried[indices] = moved[good]
    passed[indices] = True
    return carried, passed


def anchored(key: FlowFrame, target: FlowFrame, xy: Points, guess: Points) -> tuple[Points, NDArray[np.bool_]]:
    """Where points xy [N, 2] of an older frame `key` are on `target`, near `guess` [N, 2]; also which were found [N].

    Unlike flow from frame to frame this does not drift, as long as a point looks like it did on `key`. What is not
    found keeps its guess.
    """
    target = _as_bright_as(key, target)
    found = np.zeros(len(xy), np.bool_)
    inside = ((xy >= 0) & (xy < key.size) & (guess >= 0) & (guess < target.size)).all(axis=1)
    if key.size != target.size or not inside.any():
        return guess.copy(), found
    start, near = ((points[inside] / key.shrunk - 0.5).astype(np.float32)[:, None] for points in (xy, guess))
    there, good = _flow(key, target, start, near, ANCHOR_LEVELS)
    back, again = _flow(target, key, there, start, ANCHOR_LEVELS)
    good &= again & (np.linalg.norm(back - start, axis=2)[:, 0] < ANCHOR_ERROR)
    good &= np.linalg.norm(there - near, axis=2)[:, 0] < ANCHOR_REACH
    moved = ((there[:, 0] + 0.5) * key.shrunk).astype(np.float32)
    good &= ((moved >= 0) & (moved < target.size)).all(axis=1)
    placed = guess.astype(np.float32, copy=True)
    rows = np.flatnonzero(inside)[good]
    placed[rows] = moved[good]
    found[rows] = True
    return placed, found


def _as_bright_as(source: FlowFrame, target: FlowFrame) -> FlowFrame:
    """`target` with the mean and the contrast of `source`, if the exposure jumped: flow assumes constant brightness."""
    (mean, deviation), (new_mean, new_deviation) = (
        (float(frame.small.mean()), float(frame.small.std())) for frame in (source, target)
    )
    if abs(new_mean - mean) < JUMP and abs(new_deviation - deviation) < JUMP:
        return target
    gain = deviation / max(new_deviation, 1.0)
    table = np.clip((np.arange(256) - new_mean) * gain + mean, 0, 255).astype(np.uint8)
    return replace(target, grey=np.asarray(cv2.LUT(target.grey, table)), small=np.asarray(cv2.LUT(target.small, table)))


def _continuity(source: FlowFrame, target: FlowFrame, backwards: NDArray[np.float32]) -> float:
    """Correlation of the target with the source warped onto it, -1 to 1: low after a cut, and for a black frame."""
    height, width = target.small.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    warped = cv2.remap(
        source.small, x + backwards[..., 0], y + backwards[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    one, other = (values.astype(np.float32) - values.mean() for values in (warped, target.small))
    # Not np.linalg.norm: it starts OpenBLAS's threads, which then spin on the model's cores for milliseconds.
    length = float(np.sqrt(np.square(one).sum() * np.square(other).sum()))
    return float((one * other).sum() / max(length, PLAIN * one.size))


def _dense_both_ways(source: FlowFrame, target: FlowFrame) -> Dense:
    forwards, backwards = _dense(source, target), _dense(target, source)
    return forwards, backwards, _continuity(source, target, backwards)


def _dense(source: FlowFrame, target: FlowFrame) -> NDArray[np.float32]:
    """Dense inverse search (T. Kroeger et al. 2016) between the small frames: [h, w, 2] of their pixels."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    return np.asarray(search.calc(source.small, target.small, np.empty((0, 0), np.float32)), np.float32)


def _scale(frame: FlowFrame) -> NDArray[np.float32]:
    """The size of `small` over that of `grey`, (x, y)."""
    (height, width), (rows, columns) = frame.small.shape, frame.grey.shape
    return np.array([width / columns, height / rows], np.float32)


def _at(dense: NDArray[np.float32], frame: FlowFrame, xy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dense flow at points [N, 1, 2] of `grey` (OpenCV's coordinates): [N, 1, 2] of its pixels."""
    height, width = dense.shape[:2]
    scale = _scale(frame)
    column, row = np.floor((xy[:, 0] + 0.5) * scale).astype(int).clip(0, (width - 1, height - 1)).T
    return np.asarray(dense[row, column] / scale, np.float32)[:, None]


def _flow(
    source: FlowFrame,
    target: FlowFrame,
    start: NDArray[np.float32],
    guess: NDArray[np.float32],
    levels: int = LEVELS,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Lucas-Kanade from `guess`: where points [N, 1, 2] (OpenCV's coordinates of `grey`) go, and which were found."""
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        source.grey,
        target.grey,
        start,
        guess.astype(np.float32, copy=True),
        winSize=WINDOW,
        maxLevel=levels,
        criteria=CRITERIA,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        minEigThreshold=FLATTEST,
    )
    return np.asarray(there, np.float32), np.asarray(found[:, 0], np.bool_)
