"""Synthetic clips with exact truth: textured layers that move over each other, seen by an imperfect camera.

Random numbers come from numpy on the host; pixels are rendered on the given device. A seed always gives the same clip,
regardless of the rest of the batch. (Sensor noise is drawn on the device, so it differs between device types.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from online_tapir.errors import ConfigError
from online_tapir.scenes.config import SceneConfig
from online_tapir.scenes.layers import Layer, Window, make_layers
from online_tapir.scenes.motion import Array, Rng, clock, shutter, tempo, wander
from online_tapir.scenes.sensor import photograph
from online_tapir.scenes.textures import TextureBank

__all__ = ["Clips", "SceneConfig", "make_clips"]

Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]

ENOUGH_TEXTURE = 0.03  # difference between neighbouring pixels, as a share of the range from black to white
MOMENTS_AT_ONCE = 6  # on a CPU: few moments need a small window and fit its cache; a GPU renders all at once


@dataclass(frozen=True, eq=False)
class Clips:
    """A batch of clips and the truth about their points, in image pixels (raster: the first pixel's centre at .5)."""

    frames: Tensor  # float32 [B, T, 3, H, W] RGB in [-1, 1], in 8-bit steps
    xy: Tensor  # float32 [B, N, T, 2], exact also where hidden or outside the frame
    visible: Tensor  # bool [B, N, T]: in the frame and not covered by a nearer layer
    query_frame: Tensor  # int64 [B, N]: a frame on which the point is visible


@torch.no_grad()
def make_clips(
    seeds: Sequence[int], config: SceneConfig, textures: TextureBank, device: str | torch.device = "cpu"
) -> Clips:
    """Renders one clip per seed (0 or above) on `device`; a clip depends only on its seed, config and textures.

    Raises ConfigError for no seeds or a negative one.
    """
    if not seeds or min(seeds) < 0:
        raise ConfigError(f"seeds={list(seeds)} cannot be used; give one per clip, 0 or above")
    bank = TextureBank(textures.images.to(device), textures.weights.cpu())
    clips = [_make_clip(int(seed), config, bank, torch.device(device)) for seed in seeds]
    frames, *truth = zip(*clips, strict=True)
    xy, visible, query_frame = (torch.from_numpy(np.stack(part)).to(device) for part in truth)
    return Clips(torch.stack(frames), xy, visible, query_frame)


def _make_clip(
    seed: int, config: SceneConfig, bank: TextureBank, device: torch.device
) -> tuple[Tensor, NDArray[np.float32], Bools, Indices]:
    """The frames, positions, visibility and query frames of one clip, as in Clips without the batch axis."""
    rng = np.random.default_rng(seed)
    times, shown = clock(rng, config)  # [T], [T]
    instants = shutter(rng, config)  # [K]
    moments = (times[:, None] + instants).reshape(-1)  # [T K]
    layers = make_layers(rng, config, bank, moments)

    images, owner = _render(rng, config, layers, moments)  # [T K, 3, H, W], [T K, H, W]
    if len(instants) > 1:
        images = images.view(len(times), len(instants), *images.shape[1:]).mean(1)
    middle = slice(len(instants) // 2, None, len(instants))
    moment_layers = [layer.at(middle) for layer in layers]
    truth = _choose_points(rng, config, moment_layers, owner[middle].cpu().numpy(), _texture(images))
    images = photograph(rng, config, images, times)
    return images[torch.from_numpy(shown).to(device)].mul_(2).sub_(1), *truth


def _render(rng: Rng, config: SceneConfig, layers: Sequence[Layer], moments: Array) -> tuple[Tensor, Tensor]:
    """The scene [M, 3, H, W] in [0, 1], and the index of the layer seen at each pixel, uint8 [M, H, W]."""
    shadowed = rng.random() < config.shadows
    shades = rng.uniform(0.2, 0.6, len(layers)) * (rng.random(len(layers)) < 0.6) * shadowed
    offsets = rng.uniform(-0.08, 0.08, (len(layers), 2)) * min(config.height, config.width)
    few = MOMENTS_AT_ONCE if layers[0].picture.device.type == "cpu" else len(moments)
    runs = [slice(start, start + few) for start in range(0, len(moments), few)]
    parts = [_compose(config, [layer.at(run) for layer in layers], shades, offsets) for run in runs]
    image, owner = (torch.cat(part) if len(runs) > 1 else part[0] for part in zip(*parts, strict=True))
    if shadowed and rng.random() < 0.6:
        image *= _passing_shade(rng, config, moments).to(image.device)
    return image, owner


def _compose(config: SceneConfig, layers: Sequence[Layer], shades: Array, offsets: Array) -> tuple[Tensor, Tensor]:
    """Paints layers over each other, each shadowing those behind it: as _render, before passing shades."""
    size = config.height, config.width
    image = layers[0].paint((slice(0, config.height), slice(0, config.width)))
    owner = torch.zeros(len(image), *size, dtype=torch.uint8, device=image.device)
    for index, layer in enumerate(layers[1:], start=1):
        window = layer.window(*size)
        if window is None:
            continue
        painted = layer.paint(window)  # [M, 4, h, w]
        cover = painted[:, 3:]
        if shades[index]:
            image *= _drop_shadow(cover, window, size, offsets[index], float(shades[index]))
        image[..., window[0], window[1]].lerp_(painted[:, :3], cover)
        owner[:, window[0], window[1]].masked_fill_(cover[:, 0] > 0.5, index)
    return image, owner


def _drop_shadow(cover: Tensor, window: Window, size: tuple[int, int], offset: Array, shade: float) -> Tensor:
    """The light factor [M, 1, H, W] of the soft shadow that `cover` in a window casts, shifted by `offset` pixels."""
    (height, width), (rows, columns) = size, window
    full = F.pad(cover, (columns.start, width - columns.stop, rows.start, height - rows.stop))
    small = F.avg_pool2d(full, 4, ceil_mode=True)
    dx, dy = (round(float(v) / 4) for v in offset)
    small = F.avg_pool2d(F.pad(small, (1 + dx, 1 - dx, 1 + dy, 1 - dy)), 3, stride=1)
    soft = F.interpolate(small, scale_factor=4, mode="bilinear", align_corners=False)[..., :height, :width]
    return soft.mul(-shade).add_(1)


def _passing_shade(rng: Rng, config: SceneConfig, moments: Array) -> Tensor:
    """The light factor [M, 1, H, W] of a soft band of shade that crosses the scene."""
    angle, sharp, half = rng.uniform(0, 2 * math.pi), rng.uniform(4, 25), rng.uniform(0.1, 0.5)
    speed = tempo(rng, config, 0.0 if config.still else 0.15)
    place = rng.uniform(-0.6, 0.6) + wander(rng, moments, np.array([0.5]), speed)[0]
    line = np.linspace(-1, 1, 24)
    across = math.cos(angle) * line + math.sin(angle) * line[:, None]  # [24, 24]
    band = 1 / (1 + np.exp(sharp * (np.abs(across - place[:, None, None]) - half)))
    light = torch.from_numpy((1 - rng.uniform(0.2, 0.6) * band).astype(np.float32))[:, None]
    return F.interpolate(light, (config.height, config.width), mode="bilinear", align_corners=False)


def _texture(images: Tensor) -> NDArray[np.float32]:
    """The pixel differences of images [T, 3, H, W] around each 4x4 cell: [T, ceil(H / 4), ceil(W / 4)]."""
    grey = F.pad(images.mean(1, keepdim=True), (0, 1, 0, 1), mode="replicate")
    across, down = grey[..., :-1, 1:] - grey[..., :-1, :-1], grey[..., 1:, :-1] - grey[..., :-1, :-1]
    cells = F.avg_pool2d(across.abs_() + down.abs_(), 4, ceil_mode=True)
    return np.asarray(F.avg_pool2d(cells, 3, stride=1, padding=1)[:, 0].cpu().numpy())


def _choose_points(
    rng: Rng,
    config: SceneConfig,
    layers: Sequence[Layer],
    owner: NDArray[np.uint8],
    texture: NDArray[np.float32],
) -> tuple[NDArray[np.float32], Bools, Indices]:
    """Chooses N points: their positions [N, T, 2], visibility [N, T] and query frames [N].

    Points are picked at visible pixels: `owner` [T, H, W] is the layer seen at a pixel, `texture` comes from _texture.
    """
    t, y, x = _draw_pixels(rng, config, owner, texture)  # [M] each, more than are needed
    layer_of = owner[t, y, x]
    picked = np.stack([x, y], -1) + rng.uniform(0.05, 0.95, (len(t), 2))
    xy = np.empty((len(t), len(owner), 2))
    for index in np.unique(layer_of):
        mine = np.flatnonzero(layer_of == index)
        on_every_frame = np.broadcast_to(picked[mine, None], (len(mine), len(owner), 2))
        q = layers[index].picture_points(on_every_frame)[np.arange(len(mine)), t[mine]]
        xy[mine] = layers[index].image_points(q)
    given = xy.astype(np.float32)
    inside = ((given >= 0) & (given < (config.width, config.height))).all(-1)
    visible = inside & _bare(layers, layer_of, xy)

    good = np.flatnonzero(visible[np.arange(len(t)), t])
    assert len(good), "every pixel shows some layer"
    hidden = good[(inside & ~visible)[good].any(1)][: round(config.hidden_points * config.points)]
    chosen = np.resize(np.concatenate([hidden, np.setdiff1d(good, hidden, assume_unique=True)]), config.points)
    chosen = rng.permutation(chosen)  # points repeat only if a scene shows too few
    return given[chosen], visible[chosen], t[chosen]


def _draw_pixels(
    rng: Rng, config: SceneConfig, owner: NDArray[np.uint8], texture: NDArray[np.float32]
) -> tuple[Indices, Indices, Indices]:
    """Random pixels (t, y, x), [M] each, spread over the layers; next to edges only if there are no others."""
    t, y, x = (rng.integers(0, size, 32 * config.points + 200) for size in owner.shape)
    mine = owner[t, y, x]
    bordered = np.pad(owner, ((0, 0), (1, 1), (1, 1)), mode="edge")
    inner = np.logical_and.reduce([bordered[t, y + dy, x + dx] == mine for dy in range(3) for dx in range(3)])
    counts = np.bincount(mine[inner], minlength=int(mine.max()) + 1)
    share = np.sqrt(counts)  # a large sprite gets more points than a small one, but not in proportion to its area
    share[1:] *= config.sprite_points / max(share[1:].sum(), 1)
    share[0] = (1 - config.sprite_points) * (counts[0] > 0)
    weight = np.where(inner, (share / np.maximum(counts, 1))[mine], 0)
    weight *= np.clip(texture[t, y // 4, x // 4] / ENOUGH_TEXTURE, config.plain_points, 1)
    order = np.argsort(rng.exponential(size=len(t)) / np.maximum(weight, 1e-12))  # weighted, without replacement
    order = order[: 2 * config.points + 20]
    return t[order], y[order], x[order]


def _bare(layers: Sequence[Layer], layer_of: NDArray[np.uint8], xy: Array) -> Bools:
    """Whether points of layers layer_of [N], at image pixels xy [N, T, 2], have no nearer layer in front: [N, T]."""
    bare = np.ones(xy.shape[:2], dtype=bool)
    for index, layer in enumerate(layers[1:], start=1):
        covered = layer.cover_at(layer.picture_points(xy)) > 0.5
        bare &= np.where(layer_of[:, None] == index, covered, ~covered | (layer_of[:, None] > index))
    return bare
