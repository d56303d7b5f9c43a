"""Paints what the window shows, and finds the points and image pixels under its pixels. Opens no window.

Columns and rows count the window's pixels; x and y are image pixels, (0, 0) the corner of the first pixel.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.drawing.inspection_pictures import blended, heat_overlay, stage_colors
from online_tapir.drawing.painting import Picture, Strips, line_unit, paint_stages, paint_tracks
from online_tapir.records import Frame, Inspection, Tracks

LARGEST = (1280, 720)  # when the window opens; the user may resize it
SMALLEST_WIDTH = 640
FIRST_SIZE = (640, 480)  # before the first frame

ESCAPE = "\x1b"
KEYS = {  # what each does
    "c": "remove all points",
    " ": "pause, or resume",
    "g": "a grid of points over the picture",
    "i": "inspect the point nearest to the mouse; again: stop",
    "h": "show or hide this help",
    "q": "quit",
    ESCAPE: "quit",
}
KEY_NAMES = {" ": "space", ESCAPE: "Esc"}
HELP = (
    "left click: follow this point",
    "right click: remove the nearest point",
    *(f"{KEY_NAMES.get(key, key)}: {does}" for key, does in KEYS.items()),
)

INK = (240, 240, 240)
ALARM = (255, 190, 90)
SHADE = 0.3  # brightness of the picture under a panel
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


@dataclass(frozen=True, slots=True)
class Fit:
    """A frame of size `frame` (width, height), shown at size `shown` in window pixels."""

    frame: tuple[int, int]
    shown: tuple[int, int]

    @classmethod
    def within(cls, frame: tuple[int, int], room: tuple[int, int]) -> "Fit":
        """The largest size that fits into `room` and keeps the frame's proportions."""
        scale = min(room[0] / frame[0], room[1] / frame[1])
        return cls(frame, (max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))))

    @classmethod
    def at_first(cls, frame: tuple[int, int]) -> "Fit":
        """The initial size: pixel for pixel, except for very large and very small frames."""
        scale = max(1.0, SMALLEST_WIDTH / frame[0])
        wanted = (round(frame[0] * scale), round(frame[1] * scale))
        return cls.within(frame, (min(LARGEST[0], wanted[0]), min(LARGEST[1], wanted[1])))

    def to_image(self, column: int, row: int) -> tuple[float, float]:
        """The position in the image, in pixels, under the centre of a window pixel."""
        return (column + 0.5) * self.frame[0] / self.shown[0], (row + 0.5) * self.frame[1] / self.shown[1]


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A published frame, and the frame rate."""

    frame: Frame
    tracks: Tracks
    fps: float


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of the run between two frames; `waiting` are the points that have no track yet."""

    state: str = "streaming"
    ids: frozenset[int] = frozenset()
    waiting: dict[int, tuple[float, float]] = field(default_factory=dict)  # image pixels, by id
    inspected: int | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Everything that one picture of the window is painted from."""

    moment: Shown
    standing: Standing
    fit: Fit
    notice: str = ""
    help: bool = False

    @property
    def tracks(self) -> Tracks:
        """The tracks of the frame, without points removed since and without an inspection that has ended since."""
        tracks = self.moment.tracks
        seen = tracks.inspection
        living = np.array([id in self.standing.ids for id in tracks.ids.tolist()], np.bool_)
        return replace(
            tracks.taken(living),
            inspection=seen if seen is not None and seen.id == self.standing.inspected else None,
        )

    def nearest(self, x: float, y: float) -> int | None:
        """The shown point nearest to (x, y), image pixels; None if there are no points."""
        tracks = self.tracks
        places = self.standing.waiting | dict(zip(tracks.ids.tolist(), tracks.xy.tolist(), strict=True))
        return min(places, key=lambda id: float(np.hypot(places[id][0] - x, places[id][1] - y)), default=None)


def paint_view(view: View, tracks: Tracks, colors: NDArray[np.uint8], trails: Strips) -> Picture:
    """Paints a view, RGB uint8 of the size in its `fit`; `colors` [N, 3] and `trails` belong to its `tracks`."""
    rgb, (width, height) = view.moment.frame.rgb, view.fit.shown
    smaller = width < rgb.shape[1]
    scaled = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    picture = np.asarray(scaled, np.uint8)
    inspection = tracks.inspection
    if inspection is not None:
        picture = blended(picture, heat_overlay(inspection.heat, (width, height)))
    picture = paint_tracks(picture, tracks, colors, trails)
    if inspection is not None:
        xy = np.array([stage.xy for stage in inspection.stages]) * np.divide(view.fit.shown, view.fit.frame)
        picture = paint_stages(picture, xy, stage_colors(inspection.stages))
    for id, (x, y) in view.standing.waiting.items():
        if id not in tracks.ids:
            column, row = int(x * width / view.fit.frame[0]), int(y * height / view.fit.frame[1])
            cv2.drawMarker(picture, (column, row), INK, cv2.MARKER_CROSS, round(12 * line_unit(picture)), 1)
    if view.help:
        _panel(picture, HELP, top=0)
    elif view.standing.inspected is not None:
        _panel(picture, [_report(view.standing.inspected, inspection)], top=0)
    _panel(picture, [_figures(view, tracks)])
    if view.notice or view.standing.state != "streaming":
        _panel(picture, [view.notice or view.standing.state.upper()], ALARM, above=1)
    return picture


def waiting_picture() -> Picture:
    """What is shown before the first frame."""
    picture = np.full((*FIRST_SIZE[::-1], 3), 40, np.uint8)
    _panel(picture, ["waiting for the first frame; q: quit"])
    return picture


def _figures(view: View, tracks: Tracks) -> str:
    visible = int(tracks.visible.sum())
    figures = (
        f"{view.moment.fps:.1f} fps",
        f"{visible} of {len(tracks.ids)} points visible",
        *filter(None, [tracks.search]),
        "h: help",
    )
    return "   ".join((f"{tracks.camera or 'camera'} #{tracks.frame_id}", *figures))


def _report(id: int, inspection: Inspection | None) -> str:
    """The probabilities of each stage for an inspected point, as text."""
    if inspection is None:
        return f"point {id}: shown from the next frame on"
    stages = [
        f"{stage.name}: {stage.occlusion:.0%} / {stage.uncertainty:.0%}{'' if stage.visible else ' hidden'}"
        for stage in inspection.stages
    ]
    return "   ".join((f"point {id}, occluded / uncertain", *stages))


def _panel(
    picture: Picture,
    lines: Sequence[str],
    ink: tuple[int, int, int] = INK,
    *,
    top: int | None = None,
    above: int = 0,
) -> None:
    """Writes `lines` on a darkened band of `picture`: from row `top` down, or `above` lines above the bottom."""
    scale = FONT_SCALE * min(max(line_unit(picture), 1.0), 2.0)
    (letter, _), _ = cv2.getTextSize("n", FONT, scale, 1)
    (margin, capital), _ = cv2.getTextSize("M", FONT, scale, 1)
    step = round(1.9 * capital)
    columns = max(8, (picture.shape[1] - 2 * margin) // letter)
    wrapped = [part for line in lines for part in textwrap.wrap(line, columns)]
    height = step * len(wrapped)
    first = picture.shape[0] - height - step * above if top is None else top
    band = picture[max(first, 0) : first + height]
    band[:] = (band * SHADE).astype(np.uint8)
    for row, line in enumerate(wrapped):
        foot = (margin, first + step * row + round(0.72 * step))
        cv2.putText(picture, line, foot, FONT, scale, ink, 1, cv2.LINE_AA)
