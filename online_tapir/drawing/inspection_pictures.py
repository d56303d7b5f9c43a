"""Draws an `Inspection`: its maps in colour, its patches as tiles, and a crop around the point.

Pictures are RGB or RGBA uint8 [h, w, C]; sizes are (width, height). Does not depend on the viewer or the window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.drawing.painting import DIM, Picture, hues
from online_tapir.records import Correlations, Stage

Overlay = NDArray[np.uint8]  # RGBA [h, w, 4], straight (not premultiplied) alpha
WidthHeight = tuple[int, int]  # width, height

COST_COLORS = cv2.COLORMAP_TURBO
HEAT_COLORS = cv2.COLORMAP_INFERNO
OPAQUE = 0.85  # largest alpha of an overlay
HEAT_GAMMA = 0.4  # so that a rival peak at 1% of the maximum still shows, at a sixth of full strength
COST_GAMMA = 2.0  # fades the many places that look a little like the query

FIRST_HUE, LAST_HUE = 0.06, 0.5  # hues of the stages: orange to cyan

OUTSIDE = (38, 38, 44)  # fills a crop beyond the picture's border
BACKGROUND = (16, 16, 20)


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A square crop of a picture."""

    picture: Picture  # [side, side, 3]
    corner: tuple[int, int]  # image pixels (x, y) of its top-left corner; may lie outside the picture

    def inside(self, xy: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Converts image positions xy [..., 2] to positions in the crop; both are raster coordinates."""
        return np.asarray(xy - np.array(self.corner), np.float32)


def crop_around(rgb: Picture, xy: Sequence[float] | NDArray[np.floating[Any]], side: int) -> Crop:
    """Copies `side` x `side` pixels of rgb [H, W, 3] around the pixel that contains xy (image pixels).

    With an odd side that pixel is the centre. Beyond the picture's border the crop is filled with `OUTSIDE`.
    """
    height, width = rgb.shape[:2]
    pixel = np.floor(np.nan_to_num(np.asarray(xy, np.float64)))
    column, row = np.clip(pixel, -side, [width + side, height + side]).astype(int).tolist()
    left, top = column - side // 2, row - side // 2
    if min(left, top) >= 0 and left + side <= width and top + side <= height:
        return Crop(rgb[top : top + side, left : left + side].copy(), (left, top))
    picture = np.full((side, side, 3), OUTSIDE, np.uint8)
    there = rgb[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    into = picture[max(-top, 0) :, max(-left, 0) :]
    into[: there.shape[0], : there.shape[1]] = there
    return Crop(picture, (left, top))


def cost_shares(cost: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales a correlation map [H, W] to 0..1: 0 up to its median, where most of a picture is, 1 at its maximum."""
    middle, best = float(np.median(cost)), float(cost.max())
    return np.asarray(((cost - middle) / max(best - middle, 1e-6)).clip(0, 1), np.float32)


def heat_shares(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales a probability map [H, W] to 0..1: relative to its maximum, with a gamma that makes rival peaks visible."""
    return np.asarray((heat / max(float(heat.max()), 1e-12)).clip(0, 1) ** HEAT_GAMMA, np.float32)


def cost_overlay(cost: NDArray[np.float32], size: WidthHeight) -> Overlay:
    """Upsamples correlations [H, W] to an overlay of `size`: opaque at the best place, transparent where ordinary."""
    shares = _upsampled(cost_shares(cost), size)
    return _overlay(shares, shares**COST_GAMMA, COST_COLORS)


def heat_overlay(heat: NDArray[np.float32], size: WidthHeight) -> Overlay:
    """Upsamples position probabilities [H, W] to an overlay of `size`: the likelier, the more opaque."""
    shares = _upsampled(heat_shares(heat), size)
    return _overlay(shares, shares, HEAT_COLORS)


def stage_colors(stages: Sequence[Stage]) -> NDArray[np.uint8]:
    """RGB [S, 3]: orange for the first guess, cyan for the last refinement; dimmed where the stage says hidden."""
    light = np.where([stage.visible for stage in stages], 1.0, DIM)[:, None]
    return np.asarray(light * stage_hues(len(stages)), np.uint8)


def stage_hues(count: int) -> NDArray[np.uint8]:
    """The undimmed colours of `count` stages, RGB [count, 3]."""
    return np.asarray(255 * hues(np.linspace(FIRST_HUE, LAST_HUE, count)), np.uint8)


def blended(picture: Picture, overlay: Overlay) -> Picture:
    """Blends an overlay [h, w, 4] over a `picture` [h, w, 3] of the same size."""
    alpha = overlay[..., 3:].astype(np.float32) / 255
    return np.asarray(picture * (1 - alpha) + overlay[..., :3] * alpha + 0.5, np.uint8)


def patches_picture(patches: NDArray[np.float32], tile: int) -> Picture:
    """Draws correlation patches [L, S, S] as a row of `tile`-pixel tiles, fine to coarse; every sample is a square.

    Each tile is scaled from its own minimum to its own maximum: feature magnitudes differ between levels.
    """
    gap = _gap(patches, tile)
    picture = np.full((tile, len(patches) * (tile + gap) - gap, 3), BACKGROUND, np.uint8)
    for level, patch in enumerate(patches):
        low, high = float(patch.min()), float(patch.max())
        shares = np.asarray((patch - low) / max(high - low, 1e-6), np.float32)
        colored = cv2.resize(_colored(shares, COST_COLORS), (tile, tile), interpolation=cv2.INTER_NEAREST)
        left = level * (tile + gap)
        picture[:, left : left + tile] = colored
    return picture


def correlations_picture(correlations: Sequence[Correlations]) -> Picture:
    """Draws the correlations at one pixel per sample: a row of patches per refinement, levels fine to coarse.

    The left block compares with the query, the right one with the point's last sight, if the model keeps it.
    """
    width, height = correlations_size(correlations)
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    for seen, middles in zip(correlations, correlations_middles(correlations), strict=True):
        side = seen.query.shape[-1]
        for block, patches in enumerate(_compared(seen)):
            left, top = (middles[block * len(patches)] - side / 2).astype(int)
            row = patches_picture(patches, side)
            picture[top : top + side, left : left + row.shape[1]] = row
    return picture


def correlations_middles(correlations: Sequence[Correlations]) -> NDArray[np.float32]:
    """The patch centres in `correlations_picture`: [R, M, 2] for R refinements, raster coordinates."""
    if not correlations:
        return np.zeros((0, 0, 2), np.float32)
    levels, side, blocks = *correlations[0].query.shape[:2], len(_compared(correlations[0]))
    step = side + _gap(correlations[0].query, side)
    y, block, level = np.mgrid[: len(correlations), :blocks, :levels]
    x = level * step + block * (levels * step + side // 2)
    corners = np.stack([x, y * step], axis=-1).reshape(len(correlations), -1, 2)
    return np.asarray(corners + side / 2, np.float32)


def correlations_size(correlations: Sequence[Correlations]) -> WidthHeight:
    """Width and height of `correlations_picture`."""
    if not correlations:
        return 1, 1
    last = correlations_middles(correlations)[-1, -1] + correlations[0].query.shape[-1] / 2
    return int(last[0]), int(last[1])


def _compared(seen: Correlations) -> list[NDArray[np.float32]]:
    return [patches for patches in (seen.query, seen.recent) if patches is not None]


def _gap(patches: NDArray[np.float32], tile: int) -> int:
    """Pixels between tiles: the width of one sample."""
    samples: int = patches.shape[-1]
    return max(1, tile // samples)


def _upsampled(values: NDArray[np.float32], size: WidthHeight) -> NDArray[np.float32]:
    """Resamples values [H, W] bilinearly at the pixel centres of a picture of `size`: [h, w]."""
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _colored(shares: NDArray[np.float32], colormap: int) -> Picture:
    """Applies an OpenCV colormap to shares 0..1 [h, w]."""
    return _color_table(colormap)[(shares * 255).astype(np.uint8)]


@cache
def _color_table(colormap: int) -> NDArray[np.uint8]:
    """RGB [256, 3]; cached because OpenCV rebuilds its table on every call, even for a tiny picture."""
    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], colormap)
    return np.array(bgr.reshape(256, 3)[:, ::-1])


def _overlay(shares: NDArray[np.float32], alpha: NDArray[np.float32], colormap: int) -> Overlay:
    opacity = (alpha * (OPAQUE * 255)).astype(np.uint8)
    return np.dstack([_colored(shares, colormap), opacity])
