"""Random sprite shapes as soft masks; a shape function gives a point's depth inside the shape, negative outside."""

import math

import numpy as np
import torch
from torch import Tensor

Rng = np.random.Generator


def cover(rng: Rng, size: int, device: torch.device) -> Tensor:
    """A random shape on [-1, 1] x [-1, 1] with soft edges: the share of each pixel covered, float32 [size, size]."""
    line = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    x, y = line.expand(size, size), line[:, None].expand(size, size)
    depth = (_blob, _polygon, _cloud, _fence)[int(rng.choice(4, p=(0.35, 0.35, 0.2, 0.1)))](rng, x, y)
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 4))):
            depth = torch.minimum(depth, -_hole(rng, x, y))
    rim = 1 - 4 / size  # soft edges end inside the mask
    depth = torch.minimum(depth, rim - torch.maximum(x.abs(), y.abs()))
    softness = float(rng.uniform(1.0, 2.5))  # pixels from uncovered to covered
    return (0.5 + depth * (size / 2 / softness)).clamp_(0, 1)


def _blob(rng: Rng, x: Tensor, y: Tensor) -> Tensor:
    """A smooth closed curve within the unit circle."""
    angle = torch.atan2(y, x)
    radius = torch.full_like(angle, float(rng.uniform(0.55, 0.85)))
    for k in range(1, 6):
        radius.add_(torch.cos(k * angle + float(rng.uniform(0, 2 * math.pi))), alpha=float(rng.uniform(-0.3, 0.3)) / k)
    return radius.clamp_(0.2, 0.98) - torch.hypot(x, y)


def _hole(rng: Rng, x: Tensor, y: Tensor) -> Tensor:
    """A small blob near the centre."""
    (cx, cy), scale = rng.uniform(-0.5, 0.5, 2), float(rng.uniform(2.5, 6))
    return _blob(rng, (x - float(cx)) * scale, (y - float(cy)) * scale) / scale


def _polygon(rng: Rng, x: Tensor, y: Tensor) -> Tensor:
    """A polygon of 3 to 9 corners, star-shaped about the origin."""
    count = int(rng.integers(3, 10))
    turns = np.cumsum(rng.uniform(0.6, 1.4, count))
    angle = turns / turns[-1] * 2 * math.pi - math.pi  # ascending, the last is pi
    corners = rng.uniform(0.45, 1.0, count)[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    along = np.roll(corners, -1, 0) - corners
    inwards = np.stack([-along[:, 1], along[:, 0]], -1) / np.linalg.norm(along, axis=1, keepdims=True)
    edges = np.concatenate([inwards, -(inwards * corners).sum(1, keepdims=True)], 1)  # depth = edge . (x, y, 1)
    bounds, lines = (torch.from_numpy(a.astype(np.float32)).to(x.device) for a in (angle, edges))
    sector = torch.bucketize(torch.atan2(y, x), bounds, right=True).sub_(1).remainder_(count)
    a, b, c = lines.T[:, sector].unbind()
    return a * x + b * y + c


def _cloud(rng: Rng, x: Tensor, y: Tensor) -> Tensor:
    """An irregular shape with bays, islands and holes."""
    depth = 0.6 - torch.hypot(x, y)
    for wave_x, wave_y, phase in rng.uniform(-6, 6, (4, 3)):
        depth.add_(torch.sin(float(wave_x) * x + float(wave_y) * y + float(phase)), alpha=0.16)
    return depth


def _fence(rng: Rng, x: Tensor, y: Tensor) -> Tensor:
    """Parallel bars or a grid of bars, with gaps to see through."""
    rate, share = float(rng.uniform(1.5, 4)) * math.pi, float(rng.uniform(-0.2, 0.5))
    bars = [(torch.sin(rate * line + float(rng.uniform(0, 2 * math.pi))) - share) / rate for line in (x, y)]
    return torch.maximum(*bars) if rng.random() < 0.5 else bars[0]
