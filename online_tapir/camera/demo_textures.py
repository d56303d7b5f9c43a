"""The procedural textures of the demo (paper, cloth, stone), from a random generator; nothing here moves.

A texture is float32 RGB [S, S, 3] in 0..255. Each is irregular on purpose: a point in an exact repeat is ambiguous.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float32]
Color = tuple[int, int, int]

INK: Color = (38, 44, 62)
PAPER: Color = (243, 236, 220)
TEAL: Color = (40, 104, 110)
SAGE: Color = (158, 182, 152)
MUSTARD: Color = (228, 172, 66)
CORAL: Color = (222, 106, 82)
BRICK: Color = (150, 58, 52)
SKY: Color = (130, 176, 198)
PLUM: Color = (92, 62, 96)
SAND: Color = (226, 210, 176)

SEA_LEVEL = 0.42  # of the map's relief


def survey_map(width: int, height: int, rng: Generator) -> Array:
    """A map of an invented coast: tinted heights, shaded hills, contour lines and a worn grid. [height, width, 3]"""
    relief = noise(width, height, cells=4, octaves=5, rng=rng)  # [H, W] 0..1
    tints = [(0.0, (84, 134, 160)), (SEA_LEVEL, SKY), (0.45, SAND), (0.56, SAGE), (0.75, (205, 190, 150)), (1.0, PAPER)]
    rgb = blend(relief, tints)
    scale = min(width, height) / 12
    dy, dx = np.gradient(relief * scale)
    land = np.clip((relief - SEA_LEVEL) / 0.08, 0.1, 1)
    rgb *= (1 + land * np.clip(1.3 * (dx + dy), -0.26, 0.26))[
        ..., None
    ]  # hills lit from the upper left; the sea is flat
    levels = relief * 22
    to_line = np.abs(levels - np.round(levels)) / (
        22 * np.hypot(dx, dy) / scale + 1e-4
    )  # pixels to the nearest contour
    rgb = over(rgb, (92, 84, 84), 0.55 * np.clip(1.2 - to_line, 0, 1))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    pitch = min(width, height) / 5
    to_grid = np.minimum(_to_multiple(x, pitch), _to_multiple(y, pitch))
    rgb = over(rgb, PAPER, 0.5 * np.clip(1.3 - to_grid, 0, 1))
    return _grain(rgb, 9, rng)


def terrazzo(size: int, rng: Generator) -> Array:
    """Stone chips of every size in pale cement."""
    chip, edge = voronoi(size, 90, rng)  # [S, S] which chip, pixels to its border
    colors = np.array([CORAL, TEAL, MUSTARD, INK, SKY, SAGE, BRICK], np.float32)[rng.integers(0, 7, 90)]
    colors *= rng.uniform(0.85, 1.12, (90, 1)).astype(np.float32)
    gap = rng.uniform(0.008, 0.022, 90).astype(np.float32)[chip] * size
    rgb = over(_plain(size, PAPER), colors[chip], np.clip(edge - gap, 0, 1))
    return _grain(rgb, 16, rng)


def weave(size: int, rng: Generator) -> Array:
    """Cloth woven of broad dyed ribbons of many shades."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    pitch = size / 13
    column, row = (x // pitch).astype(int), (y // pitch).astype(int)
    across, along = x / pitch % 1 - 0.5, y / pitch % 1 - 0.5
    warp = np.array([INK, (56, 74, 112), TEAL], np.float32)[rng.integers(0, 3, 14)] * rng.uniform(0.9, 1.35, (14, 1))
    weft = np.array([PAPER, SAND, SKY, CORAL], np.float32)[rng.choice(4, 14, p=[0.4, 0.25, 0.2, 0.15])]
    on_top = ((column + row) % 2 == 0)[..., None]
    rgb = np.where(on_top, warp[column], weft[row]).astype(np.float32)
    bulge = np.where(
        on_top[..., 0],
        np.cos(np.pi * across) * (0.75 + 0.25 * np.cos(np.pi * along)),
        np.cos(np.pi * along) * (0.75 + 0.25 * np.cos(np.pi * across)),
    )
    thread = np.where(on_top[..., 0], np.sin(x * 2.1), np.sin(y * 2.1))
    rgb *= (0.52 + 0.5 * np.sqrt(np.clip(bulge, 0, 1)) + 0.05 * thread)[..., None].astype(np.float32)
    return _grain(rgb, 14, rng)


def printed_dots(size: int, rng: Generator) -> Array:
    """A coarse halftone print of a noise landscape on mustard paper, slightly out of register with its second ink."""
    rgb = _plain(size, MUSTARD)
    for color, angle, offset in ((BRICK, 0.35, 0.0), (INK, 0.95, 0.4)):
        y, x = np.mgrid[:size, :size].astype(np.float32)
        pitch = size / 17
        u = (x * np.cos(angle) + y * np.sin(angle)) / pitch + offset
        v = (y * np.cos(angle) - x * np.sin(angle)) / pitch + offset
        radius = 0.62 * noise(size, size, cells=4, octaves=2, rng=rng) ** 1.3
        to_center = np.hypot(u - np.round(u), v - np.round(v))
        rgb = over(rgb, color, 0.92 * np.clip((radius - to_center) * pitch + 0.5, 0, 1))
    return _grain(rgb, 12, rng)


def agate(size: int, rng: Generator) -> Array:
    """A polished slice of banded stone: rings round a centre, bent by noise."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    bend = noise(size, size, cells=4, octaves=4, rng=rng)
    depth = 1.7 * np.hypot(x - 0.05, y + 0.04) + 0.75 * (bend - 0.5)
    stops = np.linspace(-0.35, 1.5, 24)
    pale, deep = (PAPER, SKY, SAND, (176, 204, 204)), (TEAL, PLUM, (34, 74, 96), CORAL)
    shades = [(pale, deep)[i % 2][rng.integers(0, 4)] for i in range(24)]
    rgb = blend(depth, list(zip(stops, shades, strict=True)))
    rgb *= (0.9 + 0.14 * np.sin(depth * 95 + 5 * bend))[..., None]  # fine bands between the coarse ones
    return _grain(rgb, 8, rng)


def mosaic(size: int, rng: Generator) -> Array:
    """Small glazed tiles, set by hand, in a drift of warm colours."""
    tile, edge = voronoi(size, 190, rng)
    drift = noise(size, size, cells=3, octaves=2, rng=rng)
    warmth = np.bincount(tile.ravel(), drift.ravel(), 190) / np.maximum(np.bincount(tile.ravel(), minlength=190), 1)
    warmth = np.argsort(np.argsort(warmth + rng.normal(0, 0.09, 190))) / 190  # every shade gets its share of tiles
    colors = blend(warmth.astype(np.float32), [(0.1, PLUM), (0.35, BRICK), (0.6, CORAL), (0.8, MUSTARD), (0.95, PAPER)])
    colors *= rng.uniform(0.85, 1.1, (190, 1)).astype(np.float32)
    glaze = 1 + 0.25 * np.clip(1 - edge / (0.025 * size), 0, 1) - 0.12
    rgb = over(_plain(size, (64, 52, 60)), colors[tile] * glaze[..., None], np.clip(edge - 0.006 * size, 0, 1))
    return _grain(rgb, 10, rng)


def noise(width: int, height: int, *, cells: int, octaves: int, rng: Generator) -> Array:
    """Smooth noise [height, width], scaled to 0..1; each octave has twice the cells and half the amplitude."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        count = cells * 2**octave
        coarse = rng.random((count + 3, count + 3), dtype=np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    low, high = total.min(), total.max()
    return np.asarray((total - low) / (high - low), np.float32)


def voronoi(size: int, count: int, rng: Generator) -> tuple[NDArray[np.intp], Array]:
    """For each pixel the nearest of count random sites [S, S], and the distance to its cell's border, pixels [S, S]."""
    side = int(np.ceil(np.sqrt(count)))
    cell = rng.permutation(side * side)[:count]  # at most one site per grid cell, so that none coincide
    sites = (np.stack([cell % side, cell // side], 1) + rng.uniform(0.1, 0.9, (count, 2))) * size / side
    y, x = np.mgrid[:size, :size].astype(np.float32)
    nearest = np.zeros((size, size), np.intp)
    first: Array = np.full((size, size), np.inf, np.float32)
    second = first.copy()
    for i, (site_x, site_y) in enumerate(sites.astype(np.float32)):
        distance = np.hypot(x - site_x, y - site_y)
        closer = distance < first
        second = np.where(closer, first, np.minimum(second, distance))
        first = np.where(closer, distance, first)
        nearest[closer] = i
    return nearest, np.asarray((second - first) / 2, np.float32)


def blend(values: Array, stops: list[tuple[float, Color]]) -> Array:
    """Maps values [...] to colours [..., 3], interpolated between `stops`."""
    at = np.array([position for position, _ in stops])
    colors = np.array([color for _, color in stops], np.float32)  # [K, 3]
    return np.stack([np.interp(values, at, colors[:, channel]) for channel in range(3)], axis=-1).astype(np.float32)


def over(rgb: Array, color: Color | Array, opacity: NDArray[np.floating]) -> Array:
    """Blends color over rgb [H, W, 3] with opacity [H, W]."""
    weight = opacity[..., None].astype(np.float32)
    return rgb * (1 - weight) + np.asarray(color, np.float32) * weight


def _plain(size: int, color: Color) -> Array:
    return np.broadcast_to(np.array(color, np.float32), (size, size, 3)).copy()


def _to_multiple(x: Array, pitch: float) -> Array:
    return np.abs(x - pitch * np.round(x / pitch))


def _grain(rgb: Array, strength: float, rng: Generator) -> Array:
    """Adds texture to flat areas: soft grain of about two pixels, and blotches of about twenty."""
    height, width = rgb.shape[:2]
    fine = cv2.GaussianBlur(rng.standard_normal((height, width), dtype=np.float32), (0, 0), 0.8)
    coarse = cv2.resize(rng.standard_normal((height // 20 + 2, width // 20 + 2), dtype=np.float32), (width, height))
    return np.clip(rgb + (strength * (1.6 * fine + 0.5 * coarse))[..., None], 0, 255)
