"""A rendered scene with the true position of every point on every frame, and a camera that films it.

Stickers of paper, cloth and stone drift over a map, turn, tilt, pass over one another and cast soft shadows. Each layer
is a plane that one homography per frame places; picture and truth are computed from the same matrices. A frame depends
on (seed, t) alone: there are no files, and nothing is kept from frame to frame.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from online_tapir.camera import demo_textures
from online_tapir.clock import Clock, Pace, SystemClock

Array = NDArray[np.float32]
Matrix = NDArray[np.float64]  # [3, 3] homography between raster coordinates
Picture = NDArray[np.uint8]
Points = NDArray[np.float64]  # [N, 2]

PERIOD = 1800  # frames after which the scene repeats: one minute at 30 fps
SHADOW = 0.45  # share of the light missing in the middle of a shadow
RADIUS = 0.19  # of a sticker, as a fraction of the frame's shorter side
OUTLINE = 64  # corners of the polygon that bounds a sticker

TEXTURES: tuple[Callable[[int, Generator], Array], ...] = (
    demo_textures.weave,
    demo_textures.terrazzo,
    demo_textures.agate,
    demo_textures.printed_dots,
    demo_textures.mosaic,
)


@dataclass(frozen=True, slots=True)
class Wave:
    """middle + swing * sin(2 pi (cycles t / PERIOD + phase)); `cycles` is whole, so it repeats smoothly."""

    middle: float
    swing: float
    cycles: int
    phase: float

    def at(self, t: int) -> float:
        return self.middle + self.swing * math.sin(2 * math.pi * (self.cycles * t / PERIOD + self.phase))


STILL = Wave(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Motion:
    """How a layer's texture moves in the picture."""

    center: tuple[float, float]  # of the texture, in its own pixels
    x: Wave
    y: Wave
    angle: Wave
    scale: Wave
    tilt_x: Wave
    tilt_y: Wave

    def at(self, t: int) -> Matrix:
        """The homography from texture to picture on frame t."""
        scale, angle = self.scale.at(t), self.angle.at(t)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        place = np.array([[cos, -sin, self.x.at(t)], [sin, cos, self.y.at(t)], [0, 0, 1]])
        tilt = np.array([[1, 0, 0], [0, 1, 0], [self.tilt_x.at(t), self.tilt_y.at(t), 1]])
        return np.asarray(place @ tilt @ shift(-self.center[0], -self.center[1]))


@dataclass(frozen=True, slots=True, eq=False)
class Sticker:
    """A plane of irregular shape."""

    rgba: Picture  # [S, S, 4], colours already multiplied by alpha
    light: Picture  # [S, S] light that its shadow lets through, 255 is all
    outline: Points  # [OUTLINE, 2] texture pixels, just outside the shape
    shadow_outline: Points  # [OUTLINE, 2] the same for its shadow
    shadow_at: tuple[float, float]  # the shadow's offset from the sticker, picture pixels
    motion: Motion


class Anchors(NamedTuple):
    """Points on layers: 0 is the ground, i + 1 sticker i."""

    layer: NDArray[np.intp]  # [N]
    places: Points  # [N, 2] pixels of their layers' textures

    def joined(self, more: "Anchors") -> "Anchors":
        return Anchors(np.concatenate([self.layer, more.layer]), np.concatenate([self.places, more.places]))


class DemoScene:
    """Renders a frame by its number and gives the true tracks of its points; seed and size determine the scene.

    Coordinates are image pixels, (0, 0) the corner of the first pixel.
    """

    def __init__(self, width: int = 640, height: int = 480, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.width = width
        self.height = height
        # The ground is 1.5 times as large as the picture, so that its motion never shows an edge.
        ground_size = (math.ceil(1.5 * width), math.ceil(1.5 * height))
        self._ground = to_uint8(demo_textures.survey_map(*ground_size, rng))
        self._ground_motion = ground_motion(width, height, ground_size, rng)
        self._stickers = [make_sticker(i, width, height, rng) for i in range(len(TEXTURES))]  # lowest first

    def render(self, t: int) -> Picture:
        """Frame t as RGB uint8 [height, width, 3]."""
        size = (self.width, self.height)
        matrix = for_opencv(self._ground_motion.at(t))[:2]
        rgb = np.asarray(cv2.warpAffine(self._ground, matrix, size, borderMode=cv2.BORDER_REFLECT), np.uint8)
        for sticker in self._stickers:
            matrix = sticker.motion.at(t)
            darken(rgb, sticker, shift(*sticker.shadow_at) @ matrix)
            paste(rgb, sticker, matrix)
        return rgb

    def truth(self, xy: ArrayLike, at: int, to: int) -> tuple[Array, NDArray[np.bool_]]:
        """Where the points seen at xy [N, 2] on frame `at` are on frame `to`: xy float32 [N, 2], visible bool [N].

        A point belongs to the topmost layer at its place. It is visible when it lies in the picture and no other layer
        is above it there.
        """
        return self.seen(self.anchor(xy, at), to)

    def anchor(self, xy: ArrayLike, at: int) -> Anchors:
        """The layers of the points seen at xy [N, 2] on frame `at`, and their places on these, for `seen`."""
        here: Points = np.asarray(xy, np.float64).reshape(-1, 2)
        layer = self._topmost(here, at)
        places = np.empty_like(here)
        for i, motion in enumerate(self._motions()):
            places[layer == i] = transform(np.asarray(np.linalg.inv(motion.at(at))), here[layer == i])
        return Anchors(layer, places)

    def seen(self, anchors: Anchors, t: int) -> tuple[Array, NDArray[np.bool_]]:
        """Where points are on frame t, and whether they are visible, as in `truth`."""
        there = np.empty_like(anchors.places)
        for i, motion in enumerate(self._motions()):
            mine = anchors.layer == i
            there[mine] = transform(motion.at(t), anchors.places[mine])
        inside = ((there >= 0) & (there <= (self.width, self.height))).all(axis=1)
        return there.astype(np.float32), inside & (self._topmost(there, t) == anchors.layer)

    def _motions(self) -> list[Motion]:
        return [self._ground_motion, *(sticker.motion for sticker in self._stickers)]

    def _topmost(self, xy: Points, t: int) -> NDArray[np.intp]:
        """The topmost layer at each point [N]: 0 is the ground, i + 1 sticker i."""
        layer = np.zeros(len(xy), np.intp)
        for i, sticker in enumerate(self._stickers):
            layer[is_opaque(sticker, transform(np.asarray(np.linalg.inv(sticker.motion.at(t))), xy))] = i + 1
        return layer


class DemoCamera:
    """Films a DemoScene: its n-th frame, from 0, is `scene.render(n)`, so under Capture a frame's id is the scene's t.

    With fps > 0 it is a live camera, paced by clock; with fps=0 it renders on demand, and nothing is dropped.
    """

    def __init__(
        self, width: int = 640, height: int = 480, *, seed: int = 0, fps: float = 30.0, clock: Clock | None = None
    ) -> None:
        self.scene = DemoScene(width, height, seed)
        self.name = "demo"
        self.live = fps > 0
        self.size = (width, height)
        self.fps = fps
        self._pace = Pace(fps, clock or SystemClock()) if fps > 0 else None
        self._t = -1

    @property
    def description(self) -> str:
        rate = f"{self.fps:.4g} fps" if self.live else "the rate it is read"
        return f"demo: {self.size[0]}x{self.size[1]} at {rate}, rendered, with known truth"

    def grab(self) -> bool:
        if self._pace is not None:
            self._pace.wait()
        self._t += 1
        return True

    def retrieve(self) -> Picture:
        return self.scene.render(self._t)

    def read(self) -> Picture | None:
        return self.retrieve() if self.grab() else None

    def close(self) -> None:
        """Nothing to release."""


def ground_motion(width: int, height: int, size: tuple[int, int], rng: Generator) -> Motion:
    """A slow pan, zoom and sway within the ground's edges."""
    phase = rng.random(4)
    sway = 0.05 * min(width, height) / max(width, height)  # radians; less for a long picture, or an edge would show
    return Motion(
        center=(size[0] / 2, size[1] / 2),
        x=Wave(width / 2, 0.15 * width, 2, phase[0]),
        y=Wave(height / 2, 0.15 * height, 3, phase[1]),
        angle=Wave(0, sway, 4, phase[2]),
        scale=Wave(1.0, 0.08, 3, phase[3]),
        tilt_x=STILL,
        tilt_y=STILL,
    )


def make_sticker(index: int, width: int, height: int, rng: Generator) -> Sticker:
    """Sticker `index`, counted from the ground up: cut from its texture, with a paper rim, a shadow and a path."""
    radius = RADIUS * min(width, height) * rng.uniform(0.9, 1.1)
    blur = 0.05 * radius * (1 + 0.3 * index)  # the higher, the softer
    size = math.ceil(2 * (1.3 * radius + 3 * blur)) + 4
    bumps = [(k, rng.uniform(0.5, 1) * amount, rng.random()) for k, amount in ((2, 0.09), (3, 0.1), (5, 0.05))]
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5 - size / 2
    inward = (edge(np.arctan2(y, x), radius, bumps) - np.hypot(x, y)).astype(
        np.float32
    )  # [S, S] pixels inside the edge
    alpha = np.clip(inward + 0.5, 0, 1)
    rim = np.clip(0.06 * radius - inward + 0.5, 0, 1)
    rgb = demo_textures.over(TEXTURES[index % len(TEXTURES)](size, rng), demo_textures.PAPER, rim)
    shadow = cv2.GaussianBlur(alpha, (0, 0), blur)
    around = np.linspace(0, 2 * np.pi, OUTLINE, endpoint=False)
    circle = np.stack([np.cos(around), np.sin(around)], 1)
    outline = edge(around, radius, bumps)[:, None] * circle
    lift = 0.07 * radius * (1 + 0.3 * index)
    return Sticker(
        rgba=to_uint8(np.dstack([rgb * alpha[..., None], 255 * alpha])),
        light=to_uint8(255 * (1 - SHADOW * shadow)),
        outline=(outline * 1.01 + 2 * circle + size / 2),
        shadow_outline=(outline + 3 * blur * circle + size / 2),
        shadow_at=(lift, 1.4 * lift),
        motion=sticker_motion(index, width, height, radius, size, rng),
    )


def sticker_motion(index: int, width: int, height: int, radius: float, size: int, rng: Generator) -> Motion:
    """A slow Lissajous figure around its own centre, so that the stickers meet and part again."""
    phase = rng.random(6)
    around = 2 * math.pi * (index / len(TEXTURES) + 0.1 * rng.random())
    tilt = 0.16 / radius
    cycles = rng.permutation([3, 4, 5, 6, 7])
    return Motion(
        center=(size / 2, size / 2),
        x=Wave(width * (0.5 + 0.27 * math.cos(around)), 0.2 * width, int(cycles[0]), phase[0]),
        y=Wave(height * (0.5 + 0.24 * math.sin(around)), 0.19 * height, int(cycles[1]), phase[1]),
        angle=Wave(rng.uniform(-0.5, 0.5), 0.3, int(cycles[2]), phase[2]),
        scale=Wave(0.92, 0.13, int(cycles[3]), phase[3]),
        tilt_x=Wave(0, tilt, int(cycles[4]), phase[4]),
        tilt_y=Wave(0, tilt, int(cycles[0]), phase[5]),
    )


def edge(angle: NDArray[Any], radius: float, bumps: list[tuple[int, float, float]]) -> NDArray[Any]:
    """How far the edge of a shape is from its centre in each direction: a circle with (count, height, phase) bumps."""
    swing = sum(height * np.cos(count * angle + 2 * np.pi * phase) for count, height, phase in bumps)
    return np.asarray(radius * (1 + swing))


def darken(rgb: Picture, sticker: Sticker, matrix: Matrix) -> None:
    """Lay the sticker's shadow on rgb, in place."""
    if (box := bounding_box(transform(matrix, sticker.shadow_outline), rgb)) is None:
        return
    left, top, right, bottom = box
    into = for_opencv(shift(-left, -top) @ matrix)
    light = cv2.warpPerspective(sticker.light, into, (right - left, bottom - top), borderValue=255)
    under = rgb[top:bottom, left:right]
    cv2.multiply(under, cv2.cvtColor(light, cv2.COLOR_GRAY2RGB), dst=under, scale=1 / 255)


def paste(rgb: Picture, sticker: Sticker, matrix: Matrix) -> None:
    """Lay the sticker itself on rgb, in place."""
    if (box := bounding_box(transform(matrix, sticker.outline), rgb)) is None:
        return
    left, top, right, bottom = box
    into = for_opencv(shift(-left, -top) @ matrix)
    rgba = cv2.warpPerspective(sticker.rgba, into, (right - left, bottom - top))
    under = rgb[top:bottom, left:right]
    through = cv2.cvtColor(255 - rgba[..., 3], cv2.COLOR_GRAY2RGB)
    cv2.multiply(under, through, dst=under, scale=1 / 255)
    cv2.add(under, cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), dst=under)


def is_opaque(sticker: Sticker, xy: Points) -> NDArray[np.bool_]:
    """Whether the sticker is opaque at its texture pixels xy [N, 2]: bool [N]."""
    x, y = np.floor(xy).astype(np.intp).T
    size = len(sticker.rgba)
    within = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    return np.asarray(within & (sticker.rgba[y * within, x * within, 3] > 127))


def bounding_box(xy: Points, rgb: Picture) -> tuple[int, int, int, int] | None:
    """Bounding box of xy [N, 2] clipped to rgb, in pixels: left, top, right, bottom; None when it is empty."""
    height, width = rgb.shape[:2]
    left, top = np.maximum(np.floor(xy.min(axis=0)), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(xy.max(axis=0)), (width, height)).astype(int).tolist()
    return (left, top, right, bottom) if left < right and top < bottom else None


def transform(matrix: Matrix, xy: Points) -> Points:
    """Maps xy [N, 2] through a homography."""
    uvw = xy @ matrix[:, :2].T + matrix[:, 2]  # [N, 3]
    return np.asarray(uvw[:, :2] / uvw[:, 2:])


def shift(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def for_opencv(matrix: Matrix) -> Matrix:
    """The same homography in OpenCV's coordinates, where pixel centres are integers."""
    return shift(-0.5, -0.5) @ matrix @ shift(0.5, 0.5)


def to_uint8(values: NDArray[Any]) -> Picture:
    return np.asarray(np.clip(np.round(values), 0, 255), np.uint8)
