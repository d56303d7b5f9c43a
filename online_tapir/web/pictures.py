"""The pictures that the page shows: frames as JPEGs, and what the model sees of an inspected point."""

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.drawing.inspection_pictures import (
    blended,
    correlations_picture,
    cost_overlay,
    crop_around,
    heat_overlay,
    stage_colors,
)
from online_tapir.drawing.painting import paint_stages
from online_tapir.picture import to_jpeg
from online_tapir.records import Inspection

TILE = (280, 210)  # pixels, width and height, of each of the four pictures of an inspected point
CLOSE_UP = 65  # image pixels around the point
TILE_QUALITY = 80
BACKGROUND = (16, 16, 20)

Picture = NDArray[np.uint8]


def frame_jpeg(rgb: Picture, width: int, quality: int) -> bytes:
    """A frame [H, W, 3] as a JPEG of this width; it is never enlarged."""
    height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
    if width < rgb.shape[1]:
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return to_jpeg(rgb, quality)


def inspection_jpeg(rgb: Picture, inspection: Inspection) -> bytes:
    """Four tiles: correlations with the query, heat map, guess and refinements in a close-up, local correlations."""
    height, width = rgb.shape[:2]
    small = np.asarray(cv2.resize(rgb, _within((width, height)), interpolation=cv2.INTER_AREA), np.uint8)
    size = (small.shape[1], small.shape[0])
    crop = crop_around(rgb, inspection.stages[-1].xy, CLOSE_UP)
    scale = TILE[1] / CLOSE_UP
    enlarged = np.asarray(cv2.resize(crop.picture, (TILE[1], TILE[1]), interpolation=cv2.INTER_CUBIC), np.uint8)
    places = crop.inside(np.array([stage.xy for stage in inspection.stages])) * scale
    seen = correlations_picture(inspection.correlations)
    times = max(1, min(TILE[0] // seen.shape[1], TILE[1] // seen.shape[0]))
    tiles = [
        blended(small, cost_overlay(inspection.cost[0], size)),
        blended(small, heat_overlay(inspection.heat, size)),
        paint_stages(enlarged, np.asarray(places, np.float32), stage_colors(inspection.stages)),
        seen.repeat(times, 0).repeat(times, 1),
    ]
    rows = [np.concatenate([_framed(tile) for tile in tiles[row : row + 2]], axis=1) for row in (0, 2)]
    return to_jpeg(np.concatenate(rows), TILE_QUALITY)


def _within(size: tuple[int, int]) -> tuple[int, int]:
    """The largest width and height of this aspect that fit a tile."""
    scale = min(TILE[0] / size[0], TILE[1] / size[1])
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _framed(picture: Picture) -> Picture:
    """A picture in the middle of a tile; what is larger is scaled down."""
    width, height = picture.shape[1], picture.shape[0]
    if width > TILE[0] or height > TILE[1]:
        picture = np.asarray(cv2.resize(picture, _within((width, height)), interpolation=cv2.INTER_AREA), np.uint8)
    tile = np.full((TILE[1], TILE[0], 3), BACKGROUND, np.uint8)
    top, left = (TILE[1] - picture.shape[0]) // 2, (TILE[0] - picture.shape[1]) // 2
    tile[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return tile
