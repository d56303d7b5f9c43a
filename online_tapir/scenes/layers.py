"""Moving textured surfaces: each can map image pixels to points of its picture, and those points to image pixels.

A layer has its own coordinates v, in which its picture covers [-1, 1] x [-1, 1]. At moment t a homography maps them to
image pixels, and a ripple e_t determines the picture point q = v + e_t(v) seen at v. The map from the image to q has a
closed form; rendering and picking points use it. For the inverse, v + e_t(v) = q is solved by fixed-point iteration,
which converges because the ripple's Lipschitz constant is below 0.4.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from online_tapir.scenes.config import SceneConfig
from online_tapir.scenes.motion import Array, Ripple, Rng, camera_motion, journey, layer_motion, make_ripple, project
from online_tapir.scenes.sensor import blur
from online_tapir.scenes.shapes import cover
from online_tapir.scenes.textures import TextureBank

Window = tuple[slice, slice]  # rows and columns of the frame


@dataclass(frozen=True, eq=False)
class Layer:
    """One textured surface at M moments. Positions are in image pixels, picture points in layer coordinates."""

    picture: Tensor  # float32 [4, P, P]: red, green, blue in [0, 1], and cover
    to_image: Array  # [M, 3, 3] layer coordinates to image pixels
    to_layer: Array  # [M, 3, 3] and back
    ripple: Ripple | None
    background: bool  # mirrored at its edges to cover the plane; a sprite ends there

    def at(self, moments: slice) -> "Layer":
        """This layer at some of its moments."""
        ripple = self.ripple and replace(self.ripple, phase=self.ripple.phase[moments])
        return replace(self, to_image=self.to_image[moments], to_layer=self.to_layer[moments], ripple=ripple)

    def picture_points(self, xy: Array) -> Array:
        """The picture points [..., M, 2] seen at image pixels xy [..., M, 2]."""
        v = project(self.to_layer, xy)
        return v if self.ripple is None else v + self.ripple(v)

    def image_points(self, q: Array) -> Array:
        """The image pixels [N, M, 2] of picture points q [N, 2] at every moment."""
        q = np.broadcast_to(q[:, None], (len(q), len(self.to_image), 2))
        v = q
        if self.ripple is not None:
            for _ in range(25):  # each shrinks the error by the Lipschitz constant: 0.4 ** 25 is 1e-10
                v = q - self.ripple(v)
        return project(self.to_image, v)

    def cover_at(self, q: Array) -> NDArray[np.float32]:
        """How much the layer covers at picture points q [N, M, 2], sampled as `paint` does: float32 [N, M]."""
        grid = torch.from_numpy(q.astype(np.float32)).to(self.picture.device)
        share = F.grid_sample(self.picture[None, 3:], grid[None], padding_mode="zeros", align_corners=False)
        return np.asarray(share[0, 0].cpu().numpy())

    def window(self, height: int, width: int) -> Window | None:
        """The part of the frame that the layer touches at any moment; None if it is never in the frame."""
        if self.background:
            return slice(0, height), slice(0, width)
        reach = 1 + (self.ripple.reach if self.ripple else 0)
        corners = reach * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])[:, None].repeat(len(self.to_image), 1)
        xy = project(self.to_image, corners).reshape(-1, 2)
        left, top = np.clip(np.floor(xy.min(0)), 0, (width, height)).astype(int).tolist()
        right, bottom = np.clip(np.ceil(xy.max(0)), 0, (width, height)).astype(int).tolist()
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None

    def paint(self, window: Window) -> Tensor:
        """Colours and cover in a window of the frame: float32 [M, 4, h, w], or [M, 3, h, w] for a background."""
        grid = self._grid(*window)
        if self.ripple is not None:
            grid += _sway(self.ripple, grid)
        picture = self.picture[:3] if self.background else self.picture
        padding = "reflection" if self.background else "zeros"
        return F.grid_sample(picture.expand(len(grid), -1, -1, -1), grid, padding_mode=padding, align_corners=False)

    def _grid(self, rows: slice, columns: slice) -> Tensor:
        """Layer coordinates v of the pixels' centres: float32 [M, h, w, 2]."""
        device = self.picture.device
        x = torch.arange(columns.start, columns.stop, device=device) + 0.5  # [w]
        y = (torch.arange(rows.start, rows.stop, device=device) + 0.5)[:, None]  # [h, 1]
        matrix = torch.from_numpy(self.to_layer.astype(np.float32)).to(device)[..., None, None]  # [M, 3, 3, 1, 1]
        across, down, depth = ((matrix[:, i, 0] * x + matrix[:, i, 2]) + matrix[:, i, 1] * y for i in range(3))
        grid = torch.empty(*depth.shape, 2, device=device)
        torch.div(across, depth, out=grid[..., 0])
        torch.div(down, depth, out=grid[..., 1])
        return grid


def _sway(ripple: Ripple, v: Tensor) -> Tensor:
    """The ripple's displacement at v [M, h, w, 2], like `Ripple.__call__` but on v's device."""
    phase = torch.from_numpy(ripple.phase.astype(np.float32)).to(v.device)[..., None, None]  # [M, K, 1, 1]
    out = torch.zeros_like(v)
    for k, (sway, wave) in enumerate(zip(ripple.sway.tolist(), ripple.wave.tolist(), strict=True)):
        height = (v[..., 0] * wave[0]).add_(v[..., 1], alpha=wave[1]).add_(phase[:, k]).sin_()
        out[..., 0].add_(height, alpha=sway[0])
        out[..., 1].add_(height, alpha=sway[1])
    return out


def make_layers(rng: Rng, config: SceneConfig, bank: TextureBank, moments: Array) -> list[Layer]:
    """The background and the sprites, farthest first, all seen by one moving camera, on the bank's device."""
    count = int(rng.integers(config.sprites[0], config.sprites[1] + 1))
    chances = bank.weights.double().cpu().numpy()
    textures = rng.choice(len(bank.images), count + 1, p=chances / chances.sum())
    if rng.random() < 0.1:
        textures[:] = textures[0]  # one texture for all: only motion distinguishes the layers
    camera = camera_motion(rng, config, moments)
    if config.turned and rng.random() < config.turned:
        camera = np.asarray(journey(rng, config, moments) @ camera)
    images = [bank.images[k] for k in textures.tolist()]
    return [_make_layer(rng, config, image, camera, moments, i == 0) for i, image in enumerate(images)]


def _make_layer(
    rng: Rng, config: SceneConfig, texture: Tensor, camera: Array, moments: Array, background: bool
) -> Layer:
    """One layer with random size, shape, appearance and motion."""
    low, high = config.sprite_radius
    sprite_radius = min(config.height, config.width) * low * (high / low) ** rng.random()
    radius = max(config.height, config.width) * rng.uniform(0.52, 0.8) if background else sprite_radius
    to_image: Array = camera @ layer_motion(rng, config, moments, radius, background)
    ripple = make_ripple(rng, config, moments)
    size = int(np.clip(2 * radius, 12, 640))
    colours = _clothe(rng, texture, size)
    mask = torch.ones_like(colours[0]) if background else cover(rng, size, texture.device)
    return Layer(torch.cat([colours, mask[None]]), to_image, np.asarray(np.linalg.inv(to_image)), ripple, background)


def _clothe(rng: Rng, texture: Tensor, size: int) -> Tensor:
    """A crop of a texture [3, S, S], rotated, scaled, mirrored and recoloured: float32 [3, size, size] in [0, 1]."""
    whole = texture.shape[-1]
    zoom = min(float(np.exp(rng.uniform(math.log(0.5), math.log(2.5)))), whole / size)  # texture pixels per crop pixel
    side = min(whole, math.ceil(zoom * size * math.sqrt(2)) + 4)  # a rotated crop fits into this square
    left, top = rng.integers(0, whole - side + 1, 2).tolist()
    square = texture[rng.permutation(3).tolist(), top : top + side, left : left + side].float().div_(255)[None]
    if zoom >= 1.5:
        square = F.avg_pool2d(square, round(zoom))
    crop = F.grid_sample(
        square,
        _turned_grid(rng, size, zoom * size / side, texture.device),
        mode="bilinear" if zoom >= 1 else "bicubic",
        padding_mode="reflection",
        align_corners=False,
    )
    if rng.random() < 0.15:
        crop = blur(crop, rng.uniform(0.6, 1.6))  # this surface is out of focus
    if rng.random() < 0.1:
        crop = 1 - crop
    contrast, lift = float(rng.uniform(0.6, 1.2)), float(rng.uniform(-0.1, 0.1))
    gain = torch.from_numpy(rng.uniform(0.7, 1.2, (3, 1, 1)).astype(np.float32)).to(texture.device)
    return ((crop[0] - 0.5) * contrast + (0.5 + lift)).mul_(gain).clamp_(0, 1)


def _turned_grid(rng: Rng, size: int, half: float, device: torch.device) -> Tensor:
    """Sampling grid [1, size, size, 2] of a square of half side `half`, rotated and perhaps mirrored."""
    angle, mirror = rng.uniform(0, 2 * math.pi), float(rng.choice([-1, 1]))
    cos, sin = half * math.cos(angle), half * math.sin(angle)
    line = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    x, y = line * mirror, line[:, None]
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1)[None]
