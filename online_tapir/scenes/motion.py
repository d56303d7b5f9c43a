"""Smooth random motions in closed form: homographies and ripples at any moment, in float64; nothing is rendered here.

The closed form gives exact truth for blurred, dropped and repeated frames too.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from online_tapir.scenes.config import SceneConfig

Array = NDArray[np.float64]
Rng = np.random.Generator


def project(homography: Array, xy: Array) -> Array:
    """Maps points xy [..., M, 2] through homographies [M, 3, 3]."""
    x, y = xy[..., 0], xy[..., 1]  # [..., M]
    moved = homography[:, :, 0] * x[..., None] + homography[:, :, 1] * y[..., None] + homography[:, :, 2]
    return np.asarray(moved[..., :2] / moved[..., 2:])


def wander(rng: Rng, moments: Array, reach: Array, speed: Array) -> Array:
    """Smooth random paths [P, M], with at most speed [P] per frame, within 2 reach [P] of 0; all 0 at a random moment.

    Each is a sum of two sines; slow paths are nearly straight, fast ones oscillate.
    """
    home = rng.choice(moments)
    share = np.array([0.6, 0.4])
    span = reach[:, None] * share * rng.uniform(0.4, 1, (len(reach), 2))  # [P, 2]
    rate = np.minimum(speed[:, None] * share / np.maximum(span, 1e-9), 1.2) * rng.uniform(0.4, 1, span.shape)
    phase = rng.uniform(0, 2 * math.pi, span.shape)
    waves = np.sin(rate[..., None] * moments + phase[..., None]) - np.sin(rate * home + phase)[..., None]
    return np.asarray((span[..., None] * waves).sum(1))


def tempo(rng: Rng, config: SceneConfig, *limits: float) -> Array:
    """One random speed below each limit; most are far below it."""
    return np.asarray(np.array(limits) * rng.random(len(limits)) ** config.speed_tail)


def camera_motion(rng: Rng, config: SceneConfig, moments: Array) -> Array:
    """Homographies [M, 3, 3] from the scene to image pixels: pan, zoom, roll and shake about the frame's centre."""
    side, middle = min(config.height, config.width), (config.width / 2, config.height / 2)
    if config.still or rng.random() < config.still_camera:
        return np.tile(np.eye(3), (len(moments), 1, 1))
    pace, zoom_pace, roll_pace = tempo(rng, config, config.max_camera_speed * side, 0.08, 0.08)
    heading = rng.uniform(0, 2 * math.pi)
    speed = np.array([abs(math.cos(heading)) * pace, abs(math.sin(heading)) * pace, zoom_pace, roll_pace])
    x, y, zoom, roll = wander(rng, moments, np.array([0.5 * side, 0.5 * side, 0.2, 0.3]), speed)
    if rng.random() < 0.4:
        rate, phase = rng.uniform(1, 3, (2, 1)), rng.uniform(0, 2 * math.pi, (2, 1))
        x, y = (x, y) + rng.uniform(0, config.max_shake) * side * np.sin(rate * moments + phase)
    about_middle = _similarity(np.exp(zoom), roll, x + middle[0], y + middle[1])
    about_middle[:, :, 2] -= about_middle[:, :, 0] * middle[0] + about_middle[:, :, 1] * middle[1]
    about_middle[:, 2, 2] = 1
    return about_middle


def journey(rng: Rng, config: SceneConfig, moments: Array) -> Array:
    """Homographies [M, 3, 3] of a steady turn by up to half a circle and growth, about the frame's centre."""
    middle = (config.width / 2, config.height / 2)
    turn = rng.uniform(-math.pi, math.pi)
    growth = rng.uniform(-1, 1) * math.log(config.max_growth)
    span = float(moments.max() - moments.min())
    share = (moments - rng.choice(moments)) / max(span, 1.0)
    about_middle = _similarity(np.exp(growth * share), turn * share, *np.zeros((2, len(moments))))
    about_middle[:, :2, 2] = middle - about_middle[:, :2, :2] @ np.array(middle)
    return about_middle


def layer_motion(rng: Rng, config: SceneConfig, moments: Array, radius: float, background: bool) -> Array:
    """Homographies [M, 3, 3] from a layer's coordinates to the scene; `radius` pixels is its half extent at scale 1."""
    side = min(config.height, config.width)
    calm = 0.3 if background else 1.0  # a background deforms and rotates less than the sprites
    lively = 0.0 if config.still or rng.random() < config.still_layer else calm
    place = np.full(2, 0.5) if background else rng.uniform(0.05, 0.95, 2)

    swift = config.max_speed * side * (0.5 if background else 1.0) * (lively > 0)
    pace, turn_pace, grow_pace = tempo(rng, config, swift, config.max_turn * lively, 0.15 * lively)
    heading, roam = rng.uniform(0, 2 * math.pi), side * rng.uniform(0.2, 1.0)
    shear, tilt = calm * config.max_shear, calm * config.max_perspective
    speed = np.array([abs(math.cos(heading)) * pace, abs(math.sin(heading)) * pace, turn_pace, grow_pace]
                     + [0.05 * lively * shear] * 2 + [0.1 * lively * tilt] * 2)  # fmt: skip
    grow = calm * math.log(config.max_scale) / 2
    reach = np.array([roam, roam, math.pi * calm, grow, shear / 4, shear / 4, tilt / 8, tilt / 8])
    paths = wander(rng, moments, reach, speed)
    paths[4:] += np.array([shear / 2] * 2 + [tilt / 4] * 2)[:, None] * rng.uniform(-1, 1, (4, 1))
    x, y, turn, grown, slant, squash, tilt_x, tilt_y = paths

    pose = _similarity(radius * np.exp(grown), turn, x + place[0] * config.width, y + place[1] * config.height)
    bend = np.zeros_like(pose)
    bend[:, 0, 0], bend[:, 0, 1], bend[:, 1, 1] = np.exp(squash), slant, np.exp(-squash)
    bend[:, 2, 0], bend[:, 2, 1], bend[:, 2, 2] = tilt_x, tilt_y, 1
    return np.asarray(pose @ bend)


def _similarity(scale: Array, angle: Array, x: Array, y: Array) -> Array:
    """Homographies [M, 3, 3] that scale and rotate about the origin, then translate it to (x, y); arguments are [M]."""
    matrix = np.zeros((len(x), 3, 3))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 0, 2] = cos, -sin, x
    matrix[:, 1, 0], matrix[:, 1, 1], matrix[:, 1, 2] = sin, cos, y
    matrix[:, 2, 2] = 1
    return matrix


@dataclass(frozen=True, eq=False)
class Ripple:
    """A smooth displacement of a layer's coordinates: e_t(v) = sum over k of sway_k sin(wave_k . v + phase_tk)."""

    sway: Array  # [K, 2]
    wave: Array  # [K, 2]
    phase: Array  # [M, K]

    def __call__(self, v: Array) -> Array:
        """e at v [..., M, 2], whose second to last axis is the moments."""
        return np.asarray(np.sin(v @ self.wave.T + self.phase) @ self.sway)

    @property
    def reach(self) -> float:
        """An upper bound on the displacement."""
        return float(np.linalg.norm(self.sway, axis=1).sum())


def make_ripple(rng: Rng, config: SceneConfig, moments: Array) -> Ripple | None:
    """A ripple with Lipschitz constant (at most the sum of |sway_k| |wave_k|) up to max_ripple; or None."""
    if rng.random() >= config.elastic or config.max_ripple == 0:
        return None
    count = int(rng.integers(1, 3))
    rate = rng.uniform(1.5, 6, count)
    length = config.max_ripple * rng.uniform(0.2, 1.0) / count / rate
    pace = np.zeros(count) if config.still else rng.uniform(-0.7, 0.7, count) * rng.random()
    phase = rng.uniform(0, 2 * math.pi, count) + moments[:, None] * pace
    return Ripple(_arrows(rng, length), _arrows(rng, rate), phase)


def _arrows(rng: Rng, lengths: Array) -> Array:
    """Vectors [K, 2] of given lengths [K] in random directions."""
    angle = rng.uniform(0, 2 * math.pi, len(lengths))
    return np.asarray(lengths[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1))


def shutter(rng: Rng, config: SceneConfig) -> Array:
    """The moments [K] averaged into one image, relative to the image's own moment, the middle one; K is odd."""
    if rng.random() >= config.motion_blur:
        return np.zeros(1)
    return np.linspace(-0.5, 0.5, 3 if rng.random() < 0.7 else 5) * rng.uniform(0.2, 0.9)


def clock(rng: Rng, config: SceneConfig) -> tuple[Array, NDArray[np.int64]]:
    """The moments [T] at which images are taken, and the index of the image that each frame shows [T].

    After a dropped frame the moment advances by two; a repeated frame has the moment and image of the one before.
    """
    steps = np.ones(config.frames)
    if rng.random() < config.stutter:
        steps = rng.choice([0.0, 1.0, 2.0], config.frames, p=[0.12, 0.76, 0.12])
    steps[0] = 0.0
    shown = np.maximum.accumulate(np.where(steps > 0, np.arange(config.frames), 0))
    slow, fast = config.pace
    pace = slow if slow == fast else slow * (fast / slow) ** rng.random()
    return np.cumsum(steps) * pace, shown
