"""Pairs of views of one photograph: two warped crops with the homography between them, as a camera would see them.

The second view rotates, scales and tilts the first one, so that features can learn to match across such changes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from online_tapir.errors import ConfigError
from online_tapir.scenes.textures import photograph_paths, read_bgr

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]
Rng = np.random.Generator

LONGEST_SIDE = 640  # photographs are kept no larger than this
SIDES = (192, 256, 320)  # of a batch's views, pixels
TURNED = 0.6  # share of the pairs that turn by any angle; the rest by up to a quarter of a radian
GROWN = 2.8  # largest change of scale between the views


@dataclass(frozen=True, eq=False)
class ViewPairs:
    """A batch of pairs of views, float32 RGB in [-1, 1], and points that both show."""

    first: Tensor  # [B, 3, H, W]
    second: Tensor  # [B, 3, H, W]
    first_xy: Tensor  # [B, N, 2] image pixels
    second_xy: Tensor  # [B, N, 2] image pixels
    shared: Tensor  # [B, N] bool: the point is within both views and within the photograph

    def to(self, device: torch.device) -> "ViewPairs":
        """The same pairs on another device."""
        return ViewPairs(*(getattr(self, field.name).to(device) for field in fields(self)))


class Photographs:
    """Photographs in memory, each as a pyramid from which warped views are taken without aliasing."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        if not pictures:
            raise ConfigError("views need at least one photograph; give a folder of jpg or png files")
        self._pyramids = [_pyramid(picture) for picture in pictures]

    @classmethod
    def from_folder(cls, folder: Path) -> "Photographs":
        """The jpg and png files of `folder`. Raises ConfigError where there are none, or one cannot be read."""
        return cls([_read(path) for path in photograph_paths(folder)])

    def pairs(self, rng: Rng, count: int, points: int) -> ViewPairs:
        """`count` pairs of views of one size, with `points` random points each."""
        height, width = (int(rng.choice(SIDES)) for _ in range(2))
        made = [self._pair(rng, height, width, points) for _ in range(count)]
        first, second, first_xy, second_xy, shared = (np.stack(part) for part in zip(*made, strict=True))
        return ViewPairs(
            _as_images(first),
            _as_images(second),
            torch.from_numpy(first_xy.astype(np.float32)),
            torch.from_numpy(second_xy.astype(np.float32)),
            torch.from_numpy(shared),
        )

    def _pair(
        self, rng: Rng, height: int, width: int, points: int
    ) -> tuple[Picture, Picture, Array, Array, NDArray[np.bool_]]:
        pyramid = self._pyramids[int(rng.integers(len(self._pyramids)))]
        rows, columns = pyramid[0].shape[:2]
        scale = min(rows / height, columns / width) * rng.uniform(0.35, 1.0)  # photograph pixels per view pixel
        reach = np.maximum(0, np.array([columns, rows]) - scale * np.array([width, height])) / 2
        centre = np.array([columns, rows]) / 2 + rng.uniform(-1, 1, 2) * reach
        to_photo = _placed(centre, scale, float(rng.uniform(-0.2, 0.2))) @ _centred(height, width)
        between = _change(rng, height, width)  # second view to first
        first_xy = rng.uniform((0, 0), (width, height), (points, 2))
        second_xy = _apply(_inverse(between), first_xy)
        photo_xy = _apply(to_photo, first_xy)
        shared = (
            (second_xy >= 0) & (second_xy < (width, height)) & (photo_xy >= 0) & (photo_xy < (columns, rows))
        ).all(1)
        views = [_warp(pyramid, homography, height, width) for homography in (to_photo, to_photo @ between)]
        first, second = (_as_filmed(rng, view) for view in views)
        return first, second, first_xy, second_xy, np.asarray(shared, np.bool_)


def _read(path: Path) -> Picture:
    bgr = read_bgr(path)
    shrink = min(1.0, LONGEST_SIDE / max(bgr.shape[:2]))
    smaller = cv2.resize(bgr, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(smaller[..., ::-1])


def _pyramid(picture: Picture) -> list[Picture]:
    levels = [picture]
    while min(levels[-1].shape[:2]) >= 64:
        half = (levels[-1].shape[1] // 2, levels[-1].shape[0] // 2)
        levels.append(np.asarray(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA), np.uint8))
    return levels


def _centred(height: int, width: int) -> Array:
    return np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]], np.float64)


def _placed(centre: Array, scale: float, angle: float) -> Array:
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[cos, -sin, centre[0]], [sin, cos, centre[1]], [0, 0, 1]])


def _change(rng: Rng, height: int, width: int) -> Array:
    """A random homography [3, 3] from the second view to the first, about their middle."""
    turn = rng.uniform(-math.pi, math.pi) if rng.random() < TURNED else rng.uniform(-0.25, 0.25)
    scale = math.exp(rng.uniform(-1, 1) * math.log(GROWN))
    middle = np.array([width, height]) / 2
    shift = middle + rng.uniform(-0.15, 0.15, 2) * (width, height)
    tilt = np.eye(3)
    tilt[2, :2] = rng.uniform(-0.25, 0.25, 2) / (width, height)
    tilt[0, 1] = rng.uniform(-0.15, 0.15)
    return np.asarray(_placed(shift, scale, float(turn)) @ tilt @ _centred(height, width))


def _apply(homography: Array, xy: Array) -> Array:
    moved = np.concatenate([xy, np.ones((len(xy), 1))], axis=1) @ homography.T
    return np.asarray(moved[:, :2] / moved[:, 2:])


def _inverse(homography: Array) -> Array:
    return np.asarray(np.linalg.inv(homography), np.float64)


def _warp(pyramid: Sequence[Picture], homography: Array, height: int, width: int) -> Picture:
    """The view [H, W, 3]; `homography` maps its pixels to the photograph's, which is mirrored at its border."""
    middle = np.array([[width / 2, height / 2], [width / 2 + 1, height / 2]])
    step = float(np.linalg.norm(np.diff(_apply(homography, middle), axis=0)))
    level = min(max(0, math.floor(math.log2(max(step, 1e-6)) + 0.3)), len(pyramid) - 1)
    rows, columns = pyramid[level].shape[:2]
    shrink = np.diag([columns / pyramid[0].shape[1], rows / pyramid[0].shape[0], 1.0])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV's first pixel has its centre at (0, 0)
    matrix = _inverse(half) @ shrink @ homography @ half
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(
        pyramid[level], matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(warped, np.uint8)


def _as_filmed(rng: Rng, view: Picture) -> Picture:
    """The view with another exposure, white balance, gamma, blur and noise, at random."""
    values: NDArray[Any] = view.astype(np.float32) / 255
    values = np.clip(values, 0, 1) ** np.float32(math.exp(rng.uniform(-0.4, 0.4)))
    gain = rng.uniform(0.75, 1.3) * rng.uniform(0.88, 1.14, 3)
    values = (values - 0.5) * np.float32(rng.uniform(0.6, 1.25)) + np.float32(0.5)
    values = values * gain.astype(np.float32) + np.float32(rng.uniform(-0.08, 0.08))
    if rng.random() < 0.25:
        values = cv2.GaussianBlur(values, (0, 0), float(rng.uniform(0.4, 1.6)))
    if rng.random() < 0.5:
        values = values + rng.standard_normal(view.shape, np.float32) * np.float32(rng.uniform(0, 0.05))
    return np.asarray(np.clip(values * 255 + 0.5, 0, 255), np.uint8)


def _as_images(views: Picture) -> Tensor:
    """[B, H, W, 3] uint8 as float32 [B, 3, H, W] in [-1, 1], channels last in memory."""
    return torch.from_numpy(views).permute(0, 3, 1, 2).float().mul_(2 / 255).sub_(1)
