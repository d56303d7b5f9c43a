"""An `Inspection` made visible: its maps in colour, its patches as tiles, and the picture around a point.

Plain pictures for any screen, RGB or RGBA uint8 [h, w, C]; sizes are (width, height). Knows no viewer and no window.
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

Overlay = NDArray[np.uint8]  # RGBA [h, w, 4], alpha not multiplied in
Size = tuple[int, int]  # width, height

COST_COLORS = cv2.COLORMAP_TURBO
HEAT_COLORS = cv2.COLORMAP_INFERNO
OPAQUE = 0.85  # alpha of an overlay where it is strongest
HEAT_GAMMA = 0.4  # a rival peak of a hundredth of the best one's probability is still seen, as a sixth
COST_GAMMA = 2.0  # most places look a little like the query; those fade

FIRST_HUE, LAST_HUE = 0.06, 0.5  # of the stages: orange to cyan

OUTSIDE = (38, 38, 44)  # of a crop, where there is no picture
BACKGROUND = (16, 16, 20)


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A square piece of a picture."""

    picture: Picture  # [side, side, 3]
    corner: tuple[int, int]  # image pixels (x, y) of its top-left corner; may lie outside

    def inside(self, xy: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Positions xy [..., 2] of the image as positions in the crop, both in raster coordinates."""
        return np.asarray(xy - np.array(self.corner), np.float32)


def crop_around(rgb: Picture, xy: Sequence[float] | NDArray[np.floating[Any]], side: int) -> Crop:
    """A copy of `side` x `side` pixels of rgb [H, W, 3] round the pixel that holds xy (image pixels).

    With an odd side that pixel is the middle one. Beyond the border of the picture the crop is `OUTSIDE`.
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


def query_patch(rgb: Picture, xy: Sequence[float] | NDArray[np.floating[Any]], side: int) -> Picture:
    """What lies round xy (image pixels) on the frame it was named on: a copy, [side, side, 3] (see `crop_around`)."""
    return crop_around(rgb, xy, side).picture


def cost_shares(cost: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map of correlations [H, W] as 0..1: from its median, as most of a picture is, up to its best place."""
    middle, best = float(np.median(cost)), float(cost.max())
    return np.asarray(((cost - middle) / max(best - middle, 1e-6)).clip(0, 1), np.float32)


def heat_shares(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map of probabilities [H, W] as 0..1: their share of the greatest, brightened so that rivals show."""
    return np.asarray((heat / max(float(heat.max()), 1e-12)).clip(0, 1) ** HEAT_GAMMA, np.float32)


def cost_overlay(cost: NDArray[np.float32], size: Size) -> Overlay:
    """Correlations [H, W] upsampled over a picture of `size`; opaque where they are best, clear where ordinary."""
    shares = _upsampled(cost_shares(cost), size)
    return _overlay(shares, shares**COST_GAMMA, COST_COLORS)


def heat_overlay(heat: NDArray[np.float32], size: Size) -> Overlay:
    """Probabilities [H, W] of a position, upsampled over a picture of `size`; the likelier, the more opaque."""
    shares = _upsampled(heat_shares(heat), size)
    return _overlay(shares, shares, HEAT_COLORS)


def cost_picture(cost: NDArray[np.float32], size: Size) -> Picture:
    """Correlations [H, W] in colour, upsampled to `size`: dark blue is ordinary and worse, red the best place."""
    return _colored(_upsampled(cost_shares(cost), size), COST_COLORS)


def heat_picture(heat: NDArray[np.float32], size: Size) -> Picture:
    """Probabilities [H, W] in colour, upsampled to `size`: black is nowhere, pale yellow the likeliest place."""
    return _colored(_upsampled(heat_shares(heat), size), HEAT_COLORS)


def stage_colors(stages: Sequence[Stage]) -> NDArray[np.uint8]:
    """RGB [S, 3]: orange for the first guess, cyan for the last refinement; dimmed where the point is held hidden."""
    light = np.where([stage.visible for stage in stages], 1.0, DIM)[:, None]
    return np.asarray(light * stage_hues(len(stages)), np.uint8)


def stage_hues(count: int) -> NDArray[np.uint8]:
    """The colours of so many stages, RGB [S, 3]."""
    return np.asarray(255 * hues(np.linspace(FIRST_HUE, LAST_HUE, count)), np.uint8)


def blended(picture: Picture, overlay: Overlay) -> Picture:
    """`picture` [h, w, 3] with an overlay [h, w, 4] of its size over it."""
    alpha = overlay[..., 3:].astype(np.float32) / 255
    return np.asarray(picture * (1 - alpha) + overlay[..., :3] * alpha + 0.5, np.uint8)


def dimmed(picture: Picture, light: float) -> Picture:
    """`picture` grey and with this share of its light, so that colours over it are read."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.repeat((grey * light).astype(np.uint8)[..., None], 3, axis=2)


def patches_picture(patches: NDArray[np.float32], tile: int) -> Picture:
    """Correlation patches [L, S, S] as tiles of `tile` pixels side by side, fine to coarse, every sample a square.

    Each has its own scale, from its least to its best: features of different levels are of different sizes.
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
    """All that the refinements saw, a pixel a sample: a row of patches for each, its levels fine to coarse.

    On the left they are compared with the query, on the right with the last sight of the point, where the model has it.
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
    """Where the middles of the patches are in that picture: [R, M, 2] for R refinements, raster coordinates."""
    if not correlations:
        return np.zeros((0, 0, 2), np.float32)
    levels, side, blocks = *correlations[0].query.shape[:2], len(_compared(correlations[0]))
    step = side + _gap(correlations[0].query, side)
    y, block, level = np.mgrid[: len(correlations), :blocks, :levels]
    x = level * step + block * (levels * step + side // 2)
    corners = np.stack([x, y * step], axis=-1).reshape(len(correlations), -1, 2)
    return np.asarray(corners + side / 2, np.float32)


def correlations_size(correlations: Sequence[Correlations]) -> Size:
    """Width and height of that picture."""
    if not correlations:
        return 1, 1
    last = correlations_middles(correlations)[-1, -1] + correlations[0].query.shape[-1] / 2
    return int(last[0]), int(last[1])


def _compared(seen: Correlations) -> list[NDArray[np.float32]]:
    return [patches for patches in (seen.query, seen.recent) if patches is not None]


def _gap(patches: NDArray[np.float32], tile: int) -> int:
    """Pixels between tiles: a sample's."""
    samples: int = patches.shape[-1]
    return max(1, tile // samples)


def _upsampled(values: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """Values [H, W] over the whole of a picture, bilinear at the centres of its pixels: [h, w]."""
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _colored(shares: NDArray[np.float32], colormap: int) -> Picture:
    """Shares 0..1 [h, w] in the colours of one of OpenCV's maps."""
    return _color_table(colormap)[(shares * 255).astype(np.uint8)]


@cache
def _color_table(colormap: int) -> NDArray[np.uint8]:
    """RGB [256, 3]; OpenCV makes its own anew for every picture, however small."""
    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], colormap)
    return np.array(bgr.reshape(256, 3)[:, ::-1])


def _overlay(shares: NDArray[np.float32], alpha: NDArray[np.float32], colormap: int) -> Overlay:
    opacity = (alpha * (OPAQUE * 255)).astype(np.uint8)
    return np.dstack([_colored(shares, colormap), opacity])
