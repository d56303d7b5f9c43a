"""Paints tracks onto a picture: coloured points, trails of the last second, rings where points are hidden.

Does not depend on any window, file or viewer, and picks the colours of the points for all of them.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from online_tapir.drawing.look import DEFAULT_COLOR, ColorMode
from online_tapir.records import Tracks

Picture = NDArray[np.uint8]
Strips = tuple[list[NDArray[np.float32]], NDArray[np.intp]]  # polylines [L, 2], and the row of each in `tracks.ids`
RGB = tuple[int, int, int]

COLOR_KEYS: dict[ColorMode, str] = {  # as a viewer's caption explains them
    "row": "coloured by starting row",
    "identity": "coloured by identity",
    "visibility": "green: certainly visible, red: not",
    "uncertainty": "cyan: certain, magenta: not",
    "speed": "blue: still, red: half the picture a second",
}

RAINBOW = 0.8  # share of the hue circle: red at the top of the picture, violet at the bottom
GOLDEN_RATIO = 0.618033988749895  # hue step from one id to the next, so that neighbours differ
SEEN, UNSEEN = (90, 230, 120), (255, 70, 60)
CERTAIN, UNCERTAIN = (80, 235, 255), (255, 60, 210)
COLDEST = 0.62  # the hue of a still point
FASTEST = 0.5  # picture widths a second
SPEED_RATE = 0.4  # weight of the newest frame in a point's speed
LONGEST_PAUSE_S = 1.0  # speeds are not updated across a longer gap

TRAIL_NS = 1_000_000_000
TRAIL_FRAMES = 120  # at most, at any frame rate

DIM = 0.55  # brightness of hidden points
RIM = (12, 12, 16)  # a dark rim keeps points legible on any picture
RIM_WIDTH = 1.5  # this and the sizes below: pixels, on a picture whose shorter side is 480
RADIUS = 4.5
TRAIL_WIDTH = 1.5
BOX, BOX_WIDTH = (250, 250, 250), 1.5  # of an object
STAGE_RADIUS, STAGE_RIM_WIDTH = 2.2, 0.6
STAGE_LINE = (240, 240, 245)
INSPECTED_RADIUS = 10.0  # of the ring around an inspected point

_SHIFT = 4  # OpenCV draws at sixteenths of a pixel
_FAR = 2**15  # pixels; beyond, OpenCV's arithmetic overflows


class Trails:
    """Where each point was seen during the last second."""

    def __init__(self) -> None:
        self._times_ns: NDArray[np.int64] = np.zeros(0, np.int64)  # [T]
        self._ids: NDArray[np.int32] = np.zeros(0, np.int32)  # [N]
        self._past: NDArray[np.float32] = np.zeros(
            (0, 0, 2), np.float32
        )  # [T, N, 2], NaN where hidden or not yet there

    def follow(self, tracks: Tracks) -> Strips:
        """Adds one frame; returns polylines [L, 2] in image pixels and the row of each in `tracks.ids`.

        A trail breaks where its point was hidden, and disappears with its point.
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
    """The unbroken stretches of two or more frames in `past` [T, N, 2], and the column of each."""
    seen = np.pad(np.isfinite(past[..., 0]), ((1, 1), (0, 0)))  # [T + 2, N]
    columns, begins = np.nonzero((seen[1:] & ~seen[:-1]).T)
    _, ends = np.nonzero((~seen[1:] & seen[:-1]).T)
    long = ends - begins > 1
    stretches = zip(columns[long], begins[long], ends[long], strict=True)
    return [past[begin:end, column] for column, begin, end in stretches], columns[long]


class Palette:
    """The colours of the points of a stream in one `ColorMode`; every mode dims hidden points.

    Remembers the starting row and the speed of each point until the point is gone. Calling it again for the same frame
    returns the same colours.
    """

    def __init__(self, mode: ColorMode = DEFAULT_COLOR) -> None:
        self.mode = mode
        self._captured_ns = 0
        self._ids: NDArray[np.int32] = np.zeros(0, np.int32)  # [N]
        self._rows: NDArray[np.float32] = np.zeros(0, np.float32)  # [N] starting rows, as a share of the height
        self._xy: NDArray[np.float32] = np.zeros((0, 2), np.float32)  # [N, 2] pixels
        self._speeds: NDArray[np.float32] = np.zeros(0, np.float32)  # [N] picture widths a second, smoothed

    def colors(self, tracks: Tracks) -> NDArray[np.uint8]:
        """RGB [N, 3], one row per point of `tracks`."""
        self._follow(tracks)
        light = np.where(tracks.visible, 1.0, DIM)[:, None]
        shades = self._shades(tracks)
        for id, label in tracks.labels.items():
            if label.color is not None:
                shades[tracks.ids == id] = np.array([label.color >> shift & 255 for shift in (16, 8, 0)]) / 255
        rgb: NDArray[np.uint8] = (255 * shades * light).astype(np.uint8)
        return rgb

    def _shades(self, tracks: Tracks) -> NDArray[np.float64]:
        """The undimmed colours, 0..1, [N, 3]."""
        match self.mode:
            case "row":
                return hues(self._rows * RAINBOW)
            case "identity":
                return hues(tracks.ids * GOLDEN_RATIO % 1.0)
            case "visibility":
                certain = (1 - tracks.occlusion) * (1 - tracks.uncertainty)
                return blend(UNSEEN, SEEN, certain)
            case "uncertainty":
                return blend(CERTAIN, UNCERTAIN, tracks.uncertainty)
            case "speed":
                return hues((1 - np.sqrt(np.clip(self._speeds / FASTEST, 0, 1))) * COLDEST)

    def _follow(self, tracks: Tracks) -> None:
        elapsed_s = (tracks.captured_ns - self._captured_ns) / 1e9
        xy = np.nan_to_num(tracks.xy)  # [N, 2]
        rows = np.clip(xy[:, 1] / max(tracks.height, 1), 0, 1).astype(np.float32)  # [N]
        speeds = np.zeros(len(rows), np.float32)
        _, now, then = np.intersect1d(tracks.ids, self._ids, assume_unique=True, return_indices=True)
        rows[now], speeds[now] = self._rows[then], self._speeds[then]
        if 0 < elapsed_s < LONGEST_PAUSE_S:
            moved = np.linalg.norm(xy[now] - self._xy[then], axis=1) / max(tracks.width, 1)
            speeds[now] += SPEED_RATE * (moved / elapsed_s - speeds[now])
        self._captured_ns, self._ids, self._xy = tracks.captured_ns, tracks.ids.copy(), xy
        self._rows, self._speeds = rows, speeds


def hues(hue: ArrayLike) -> NDArray[np.float64]:
    """Converts hues [N], 0..1 around the circle from red, to light RGB 0..1, [N, 3]."""
    phase = np.asarray(hue, np.float64)[:, None] + np.array([0, 2 / 3, 1 / 3])
    shades: NDArray[np.float64] = 0.62 + 0.38 * np.cos(2 * np.pi * phase)
    return shades


def blend(low: RGB, high: RGB, share: NDArray[np.float32]) -> NDArray[np.float64]:
    """Interpolates from `low` to `high`: RGB 0..1, [N, 3] for shares [N]."""
    shades: NDArray[np.float64] = (np.array(low) + np.subtract(high, low) * np.clip(share, 0, 1)[:, None]) / 255
    return shades


def paint_tracks(picture: Picture, tracks: Tracks, colors: NDArray[np.uint8], trails: Strips | None = None) -> Picture:
    """Paints the points of `tracks` and their `trails` (from `Trails.follow`) on a copy of `picture`.

    colors [N, 3] come from a `Palette`. picture is the frame of `tracks`, RGB uint8 [h, w, 3], at its own size or
    scaled; points and lines are drawn at the picture's size. A disc marks a visible point, a dimmed ring the estimated
    place of a hidden one.
    """
    painted = picture.copy()
    height, width = picture.shape[:2]
    scale = np.array([width / tracks.width, height / tracks.height])
    unit = line_unit(picture)
    inks = [tuple(color) for color in colors.tolist()]
    strips, owners = trails or ([], ())
    for strip, owner in zip(strips, owners, strict=True):
        line = _fixed_point(strip * scale)
        cv2.polylines(painted, [line], False, inks[owner], max(1, round(TRAIL_WIDTH * unit)), cv2.LINE_AA, _SHIFT)
    for one in tracks.objects:
        if one.box is not None:
            outline = _fixed_point(one.box * scale)
            cv2.polylines(painted, [outline], True, BOX, max(1, round(BOX_WIDTH * unit)), cv2.LINE_AA, _SHIFT)
    places = _fixed_point(tracks.xy * scale)
    for row in np.argsort(tracks.visible, kind="stable"):  # visible ones on top of the hidden
        draw = _disc if tracks.visible[row] else _ring
        draw(painted, places[row].tolist(), inks[row], unit)
    return painted


def paint_stages(picture: Picture, xy: NDArray[np.float32], colors: NDArray[np.uint8]) -> Picture:
    """Paints where each stage of the model put one point, xy [S, 2] in pixels of `picture`, on a copy of it.

    A line joins their small discs, of colors [S, 3]; a ring marks the last, which is the published position.
    """
    painted = picture.copy()
    unit = line_unit(picture)
    places = _fixed_point(xy)
    cv2.polylines(painted, [places], False, STAGE_LINE, max(1, round(unit)), cv2.LINE_AA, _SHIFT)
    for place, color in zip(places.tolist(), colors.tolist(), strict=True):
        _disc(painted, place, color, unit, STAGE_RADIUS, STAGE_RIM_WIDTH)
    radius, width = round(INSPECTED_RADIUS * unit * 2**_SHIFT), max(1, round(RIM_WIDTH * unit))
    cv2.circle(painted, places[-1].tolist(), radius, colors[-1].tolist(), width, cv2.LINE_AA, _SHIFT)
    return painted


def line_unit(picture: Picture) -> float:
    """The scale of lines on `picture`, relative to one whose shorter side is 480 pixels."""
    return float(np.clip(min(picture.shape[:2]) / 480, 0.5, 8))


def _disc(
    painted: Picture,
    place: list[int],
    color: Sequence[int],
    unit: float,
    radius: float = RADIUS,
    rim_width: float = RIM_WIDTH,
) -> None:
    """Draws a point into `painted`, in place."""
    outer, inner = (round(r * unit * 2**_SHIFT) for r in (radius + rim_width, radius))
    cv2.circle(painted, place, outer, RIM, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    cv2.circle(painted, place, inner, color, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _ring(painted: Picture, place: list[int], color: tuple[int, ...], unit: float) -> None:
    radius, width = round((RADIUS + RIM_WIDTH) * unit * 2**_SHIFT), max(1, round(RIM_WIDTH * unit))
    cv2.circle(painted, place, radius, RIM, width + 2, cv2.LINE_AA, _SHIFT)
    cv2.circle(painted, place, radius, color, width, cv2.LINE_AA, _SHIFT)


def _fixed_point(xy: NDArray[Any]) -> NDArray[np.int32]:
    """Converts raster coordinates [N, 2] to OpenCV's: sixteenths of a pixel from the centre of the first pixel."""
    sixteenths: NDArray[np.int32] = ((np.clip(xy, -_FAR, _FAR) - 0.5) * 2**_SHIFT).round().astype(np.int32)
    return sixteenths
