"""Textures for scenes: photographs from a folder and procedural families; nothing is downloaded or cached."""

import csv
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from online_tapir.errors import ConfigError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")

Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class TextureBank:
    """A stack of square RGB textures on one device, with the probability of each."""

    images: Tensor  # uint8 [K, 3, S, S]
    weights: Tensor  # float32 [K] probabilities, sum 1

    @classmethod
    def procedural(cls, count: int, seed: int, size: int = 320, device: str | torch.device = "cpu") -> "TextureBank":
        """`count` textures of `size` pixels from the families in this file; texture k depends only on seed and k."""
        if count < 1:
            raise ConfigError(f"cannot make {count} procedural textures; ask for at least 1")
        families = list(FAMILIES)
        images = np.stack(
            [_paint(families[k % len(families)], np.random.default_rng([seed, k]), size) for k in range(count)]
        )
        return cls(torch.from_numpy(images).to(device), torch.full((count,), 1 / count, device=device))

    @classmethod
    def from_folder(cls, folder: Path, size: int = 320, device: str | torch.device = "cpu") -> "TextureBank":
        """The central squares of the jpg and png files in `folder`, resized to `size` pixels, sorted by name.

        If a SOURCES.csv in the folder or its parent names sources (`source=NAME` in its `note` column), a source with
        n images is drawn in proportion to sqrt(n) instead of n, so that no large source dominates.
        Raises ConfigError if the folder is missing, has no images, or has one that cannot be read.
        """
        paths = photograph_paths(folder)
        images = np.stack([_read_square(path, size) for path in paths])
        sources = _sources(folder)
        names = [sources.get(path.name, "") for path in paths]
        counts = Counter(names)
        weights = torch.tensor([counts[name] ** -0.5 for name in names])
        return cls(torch.from_numpy(images).to(device), (weights / weights.sum()).to(device))

    def __add__(self, other: "TextureBank") -> "TextureBank":
        """Joins two banks, each with half the probability; raises ConfigError if their sizes differ."""
        if self.images.shape[1:] != other.images.shape[1:]:
            sizes = f"{self.images.shape[-1]} and {other.images.shape[-1]}"
            raise ConfigError(f"texture banks of {sizes} pixels cannot be joined; load both with one size")
        images = torch.cat([self.images, other.images.to(self.images.device)])
        weights = torch.cat(
            [self.weights / self.weights.sum(), (other.weights / other.weights.sum()).to(self.weights.device)]
        )
        return TextureBank(images, weights / 2)


def photograph_paths(folder: Path) -> list[Path]:
    """The jpg and png files in `folder`, sorted by name; ConfigError if there are none."""
    if not folder.is_dir():
        raise ConfigError(f"no folder {folder} to take textures from; give a folder of jpg or png photographs")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
    if not paths:
        raise ConfigError(f"no jpg or png in {folder}; give a folder of photographs")
    return paths


def read_bgr(path: Path) -> NDArray[np.uint8]:
    """A photograph, BGR [H, W, 3]. Raises ConfigError for a file that is none."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ConfigError(f"{path} is not a picture that can be read; remove it or convert it to jpg or png")
    return np.asarray(bgr, np.uint8)


def _read_square(path: Path, size: int) -> NDArray[np.uint8]:
    """The central square of an image, [3, size, size] RGB."""
    bgr = read_bgr(path)
    height, width = bgr.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = bgr[top : top + side, left : left + side, ::-1]
    resized = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
    return np.ascontiguousarray(resized.transpose(2, 0, 1), dtype=np.uint8)


def _sources(folder: Path) -> dict[str, str]:
    """The source of each picture by file name, from a SOURCES.csv in the folder or its parent; empty without one."""
    for home in (folder, folder.parent):
        table = home / "SOURCES.csv"
        if not table.is_file():
            continue
        with table.open(newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.DictReader(lines) if (home / (row.get("file") or "")).parent == folder]
        notes = {Path(row["file"]).name: re.search(r"source=([^;\s]+)", row.get("note") or "") for row in rows}
        return {name: found.group(1) for name, found in notes.items() if found}
    return {}


def _paint(family: Callable[[Rng, int], Tensor], rng: Rng, size: int) -> NDArray[np.uint8]:
    """One texture, uint8 [3, S, S]: an image from `family`, often desaturated, sometimes with fine grain added."""
    image = family(rng, size)
    if rng.random() < 0.6:
        image = torch.lerp(
            image, image.mean(0, keepdim=True), float(rng.uniform(0.1, 0.9))
        )  # most real surfaces are pale
    if rng.random() < 0.5:
        grain = _noise(rng, size, cells=int(rng.integers(size // 16, size // 2)), octaves=2)
        image = image + float(rng.uniform(0.05, 0.25)) * (grain - 0.5)
    painted: NDArray[np.uint8] = (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return painted


def _uniform(rng: Rng, low: float, high: float, *shape: int) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))


def _axes(rng: Rng, size: int, warp: float) -> tuple[Tensor, Tensor]:
    """Coordinates x, y [S, S] in [-1, 1], rotated by a random angle and warped by noise of range `warp`."""
    line = (torch.arange(size) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    angle = float(rng.uniform(0, 2 * math.pi))
    x, y = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
    bend = warp * (torch.stack([_noise(rng, size, cells=3, octaves=2) for _ in range(2)]) - 0.5)  # [2, S, S]
    return x + bend[0], y + bend[1]


def _noise(rng: Rng, size: int, cells: int, octaves: int, fade: float = 0.5) -> Tensor:
    """Value noise [S, S] in [0, 1] over several octaves, the first with `cells` cells per side."""
    total = torch.zeros(size, size)
    for octave in range(octaves):
        side = min(cells * 2**octave + 1, size)
        coarse = _uniform(rng, -1, 1, 1, 1, side, side)
        total += fade**octave * F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)[0, 0]
    return (total - total.min()) / (total.max() - total.min() + 1e-6)


def _colour(rng: Rng, value: Tensor) -> Tensor:
    """Maps values [S, S] in [0, 1] through a random palette of 2 to 5 colours: [3, S, S]."""
    stops = int(rng.integers(2, 6))
    palette = _uniform(rng, 0, 1, stops, 3)
    place = value.clamp(0, 1) * (stops - 1)
    below = place.long().clamp(max=stops - 2)
    share = (place - below)[..., None]
    return torch.lerp(palette[below], palette[below + 1], share).permute(2, 0, 1)


def _fractal(rng: Rng, size: int) -> Tensor:
    value = _noise(rng, size, cells=int(rng.integers(2, 16)), octaves=6, fade=float(rng.uniform(0.4, 0.8)))
    return _colour(rng, value)


def _cells(rng: Rng, size: int) -> Tensor:
    """Voronoi cells, flat or shaded, with or without seams."""
    x, y = _axes(rng, size, warp=float(rng.uniform(0, 0.3)))
    count = int(np.exp(rng.uniform(math.log(15), math.log(250))))
    centres = _uniform(rng, -1.4, 1.4, count, 2)
    coarse = torch.stack([x, y], -1).reshape(-1, 2)
    near, owner = torch.cdist(coarse, centres).topk(2, dim=1, largest=False)
    colours = _uniform(rng, 0, 1, count, 3)[owner[:, 0]].T.reshape(3, size, size)
    depth = (near[:, 1] - near[:, 0]).reshape(size, size) * math.sqrt(count)
    if rng.random() < 0.6:
        seam = (depth / float(rng.uniform(0.05, 0.4))).clamp(0, 1)
        colours = torch.lerp(_uniform(rng, 0, 1, 3, 1, 1), colours, seam)
    shade = float(rng.uniform(0, 0.6))
    return colours * (1 - shade + shade * depth.clamp(0, 1))


def _checks(rng: Rng, size: int) -> Tensor:
    """Warped checkerboards and stripes; each square has its own shade, so that squares differ."""
    x, y = _axes(rng, size, warp=float(rng.uniform(0, 0.8)))
    fx, fy = np.exp(rng.uniform(math.log(2), math.log(14), 2))
    column, row = (x * float(fx)).floor(), (y * float(fy)).floor() if rng.random() < 0.6 else torch.zeros_like(y)
    parity = (column + row).remainder(2)
    shades = _uniform(rng, 0, 1, 64, 64)[column.long() % 64, row.long() % 64]
    own = float(rng.uniform(0.1, 0.7))
    return _colour(rng, (1 - own) * parity + own * shades)


def _dots(rng: Rng, size: int) -> Tensor:
    """Ellipses of many sizes on a noise background."""
    image = _colour(rng, _noise(rng, size, cells=3, octaves=3)).permute(1, 2, 0).contiguous().numpy()
    for _ in range(int(rng.integers(30, 250))):
        centre = tuple(int(v) for v in rng.uniform(0, size, 2))
        radii = tuple(int(v) for v in np.exp(rng.uniform(math.log(2), math.log(size / 9), 2)))
        colour = tuple(float(v) for v in rng.uniform(0, 1, 3))
        cv2.ellipse(image, centre, radii, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    return torch.from_numpy(image).permute(2, 0, 1)


def _strokes(rng: Rng, size: int) -> Tensor:
    """Lines of writing: rows of short connected strokes, like a printed page or a sign."""
    paper = 0.3 * _noise(rng, size, cells=3, octaves=3)[..., None] + _uniform(rng, 0, 0.7, 3)
    image = paper.contiguous().numpy()
    ink = tuple(float(v) for v in rng.uniform(0, 1, 3))
    tall = int(rng.integers(7, 36))
    thick = max(1, tall // int(rng.integers(6, 12)))
    for top in range(2, size, int(tall * 1.6)):
        left = int(rng.integers(0, tall))
        while left < size:
            corners = rng.uniform(0, tall, (int(rng.integers(3, 7)), 1, 2)) * (0.7, 1.0) + (left, top)
            cv2.polylines(image, [corners.astype(np.int32)], bool(rng.random() < 0.3), ink, thick, cv2.LINE_AA)
            left += int(tall * (0.9 if rng.random() < 0.8 else 1.8))
        if rng.random() < 0.2:
            ink = tuple(float(v) for v in rng.uniform(0, 1, 3))
    return torch.from_numpy(image).permute(2, 0, 1)


def _patches(rng: Rng, size: int) -> Tensor:
    """Overlapping polygons, each a plain colour or a gradient, like a pile of paper."""
    image = _colour(rng, _noise(rng, size, cells=2, octaves=4)).permute(1, 2, 0).contiguous().numpy()
    for _ in range(int(rng.integers(15, 80))):
        reach = float(np.exp(rng.uniform(math.log(size / 30), math.log(size / 3))))
        corners = rng.uniform(0, size, 2) + rng.uniform(-reach, reach, (int(rng.integers(3, 7)), 2))
        colour = tuple(float(v) for v in rng.uniform(0, 1, 3))
        cv2.fillPoly(image, [corners.astype(np.int32)], colour, cv2.LINE_AA)
    light = 0.6 + 0.8 * _noise(rng, size, cells=2, octaves=1)
    return torch.from_numpy(image).permute(2, 0, 1) * light


def _weave(rng: Rng, size: int) -> Tensor:
    """Interfering gratings, like cloth, grass or water."""
    x, y = _axes(rng, size, warp=float(rng.uniform(0.05, 0.6)))
    value = torch.zeros(size, size)
    for _ in range(int(rng.integers(2, 6))):
        fx, fy = (float(v) for v in rng.uniform(-40, 40, 2))
        value += torch.sin(fx * x + fy * y + float(rng.uniform(0, 6.3)))
    value = value * (0.4 + _noise(rng, size, cells=4, octaves=3))
    return _colour(rng, 0.5 + 0.2 * value)


FAMILIES: tuple[Callable[[Rng, int], Tensor], ...] = (_fractal, _cells, _checks, _dots, _strokes, _patches, _weave)
