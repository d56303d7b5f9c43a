"""Tracks painted onto a picture: points coloured by identity, trails of the last second, rings where they are hidden.

Knows no screen, no file and no viewer.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.records import Tracks

Picture = NDArray[np.uint8]
Strips = tuple[list[NDArray[np.float32]], NDArray[np.intp]]  # polylines [L, 2], and the row of `tracks.ids` of each

TRAIL_NS = 1_000_000_000
TRAIL_FRAMES = 120  # at most, whatever the frame rate

DIM = 0.55  # what is hidden
RIM = (12, 12, 16)  # a dark rim keeps points legible on any picture
RIM_WIDTH = 1.5  # this and the next for a picture whose shorter side is 480 pixels
RADIUS = 4.5
TRAIL_WIDTH = 1.5

_SHIFT = 4  # OpenCV draws at sixteenths of a pixel
_FAR = 2**15  # pixels; beyond, its arithmetic overflows


class Trails:
    """Where each point was seen during the last second."""

    def __init__(self) -> None:
        self._times_ns: NDArray[np.int64] = np.zeros(0, np.int64)  # [T]
        self._ids: NDArray[np.int32] = np.zeros(0, np.int32)  # [N]
        self._past: NDArray[np.float32] = np.zeros(
            (0, 0, 2), np.float32
        )  # [T, N, 2], NaN where hidden or not yet there

    def follow(self, tracks: Tracks) -> Strips:
        """Take in one frame; returns polylines [L, 2] in image pixels and, for each, its row in `tracks.ids`.

        A trail breaks where its point was hidden, and is gone with its point.
        """
        age_ns = tracks.captured_ns - self._times_ns
        recent = np.flatnonzero((age_ns > 0) & (age_ns <= TRAIL_NS))[-TRAIL_FRAMES + 1 :]
        past = np.full((len(recent) + 1, len(tracks.ids), 2), np.nan, np.float32)  # [T, N, 2]
        _, now_rows, then_rows = np.intersect1d(tracks.ids, self._ids, assume_unique=True, return_indices=True)
        past[:-1, now_rows] = self._past[recent][:, then_rows]
        past[-1, tracks.visible] = tracks.xy[tracks.visible]
        self._times_ns = np.append(self._times_ns[recent], tracks.captured_ns)
        self._ids = tracks.ids.copy()
        self._past = past
        return _polylines(past)


def _polylines(past: NDArray[np.float32]) -> Strips:
    """The unbroken stretches of two frames and more in `past` [T, N, 2], and the column each is from."""
    seen = np.pad(np.isfinite(past[..., 0]), ((1, 1), (0, 0)))  # [T + 2, N]
    columns, begins = np.nonzero((seen[1:] & ~seen[:-1]).T)
    _, ends = np.nonzero((~seen[1:] & seen[:-1]).T)
    long = ends - begins > 1
    stretches = zip(columns[long], begins[long], ends[long], strict=True)
    return [past[begin:end, column] for column, begin, end in stretches], columns[long]


def identity_colors(ids: NDArray[np.int32], visible: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """RGB [N, 3]: a hue for each identity, the golden ratio apart so that neighbours differ; hidden ones dimmed."""
    hue = ids * 0.618033988749895 % 1.0  # [N]
    phase = hue[:, None] + np.array([0, 1 / 3, 2 / 3])  # [N, 3]
    light = 0.62 + 0.38 * np.cos(2 * np.pi * phase)
    rgb: NDArray[np.uint8] = (255 * light * np.where(visible, 1.0, DIM)[:, None]).astype(np.uint8)
    return rgb


def paint_tracks(picture: Picture, tracks: Tracks, trails: Strips | None = None) -> Picture:
    """A copy of `picture` with the points of `tracks` and their `trails` (as `Trails.follow` gives them) on it.

    picture is the frame of `tracks`, RGB uint8 [h, w, 3], at its own size or scaled; points and lines are drawn at the
    picture's size. A disc is a visible point; a dimmed ring is where a hidden one is believed to be.
    """
    painted = picture.copy()
    height, width = picture.shape[:2]
    scale = np.array([width / tracks.width, height / tracks.height])
    unit = line_unit(picture)
    colors = [tuple(color) for color in identity_colors(tracks.ids, tracks.visible).tolist()]
    strips, owners = trails or ([], ())
    for strip, owner in zip(strips, owners, strict=True):
        line = _fixed_point(strip * scale)
        cv2.polylines(painted, [line], False, colors[owner], max(1, round(TRAIL_WIDTH * unit)), cv2.LINE_AA, _SHIFT)
    places = _fixed_point(tracks.xy * scale)
    for row in np.argsort(tracks.visible, kind="stable"):  # visible ones above the hidden
        draw = _disc if tracks.visible[row] else _ring
        draw(painted, places[row].tolist(), colors[row], unit)
    return painted


def line_unit(picture: Picture) -> float:
    """How much wider lines are on `picture` than on one whose shorter side is 480 pixels."""
    return float(np.clip(min(picture.shape[:2]) / 480, 0.5, 8))


def _disc(painted: Picture, place: list[int], color: tuple[int, ...], unit: float) -> None:
    """A point drawn into `painted`, as the ring below is."""
    rim, radius = (round(r * unit * 2**_SHIFT) for r in (RADIUS + RIM_WIDTH, RADIUS))
    cv2.circle(painted, place, rim, RIM, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    cv2.circle(painted, place, radius, color, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _ring(painted: Picture, place: list[int], color: tuple[int, ...], unit: float) -> None:
    radius, width = round((RADIUS + RIM_WIDTH) * unit * 2**_SHIFT), max(1, round(RIM_WIDTH * unit))
    cv2.circle(painted, place, radius, RIM, width + 2, cv2.LINE_AA, _SHIFT)
    cv2.circle(painted, place, radius, color, width, cv2.LINE_AA, _SHIFT)


def _fixed_point(xy: NDArray[Any]) -> NDArray[np.int32]:
    """Raster coordinates [N, 2] as OpenCV draws them: it counts from the centre of the first pixel, in sixteenths."""
    sixteenths: NDArray[np.int32] = ((np.clip(xy, -_FAR, _FAR) - 0.5) * 2**_SHIFT).round().astype(np.int32)
    return sixteenths
