"""Camera effects on images: exposure, defocus, noise, compression. They never change geometry, nor the truth."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from online_tapir.scenes.config import SceneConfig
from online_tapir.scenes.motion import Array, Rng, wander


def photograph(rng: Rng, config: SceneConfig, image: Tensor, times: Array) -> Tensor:
    """Applies camera effects to images [T, 3, H, W] in [0, 1], taken at `times` [T]; returns [0, 1] in 8-bit steps."""
    if rng.random() < config.exposure:
        image = image * _exposure(rng, times).to(image.device)
    if rng.random() < config.defocus:
        image = _defocus(rng, image, times)
    if rng.random() < config.noise:
        image = _sensor_noise(rng, config, image)
    image = image.clamp(0, 1)
    if rng.random() < config.jpeg:
        image = jpeg(image, quality=float(rng.uniform(15, 85)))
    return image.mul(255).round_().div_(255)


def _exposure(rng: Rng, times: Array) -> Tensor:
    """Gains [T, 3, 1, 1] of a drifting exposure and white balance, sometimes with a sudden step."""
    stops, *tints = wander(rng, times, np.array([0.2, 0.08, 0.08, 0.08]), rng.uniform(0, (0.15, 0.05, 0.05, 0.05)))
    stops = stops + rng.uniform(-0.3, 0.2)
    if rng.random() < 0.15:
        stops += rng.uniform(-0.4, 0.4) * (times > rng.choice(times))
    gains = np.exp(stops[:, None] + np.stack(tints, -1) + rng.uniform(-0.1, 0.1, 3))
    return torch.from_numpy(gains.astype(np.float32))[..., None, None]


def _defocus(rng: Rng, image: Tensor, times: Array) -> Tensor:
    """Defocuses whole images, some frames more than others."""
    blurred = blur(image, rng.uniform(0.5, 1.8) * max(1.0, min(image.shape[-2:]) / 256))
    path = wander(rng, times, np.array([0.3]), rng.uniform(0, 0.2, 1))[0]
    share = np.clip(rng.uniform(0.2, 1) + path, 0, 1).astype(np.float32)
    return torch.lerp(image, blurred, torch.from_numpy(share).to(image.device)[:, None, None, None])


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [M, C, H, W], `sigma` in pixels."""
    reach = max(1, round(2.5 * sigma))
    taps = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    taps /= taps[0] + 2 * taps[1:].sum()
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    return _smooth(_smooth(padded, taps, axis=3), taps, axis=2)


def _smooth(padded: Tensor, taps: Array, axis: int) -> Tensor:
    """A symmetric filter along one axis, taps from the centre out; on a CPU shifted sums beat a convolution."""
    reach = len(taps) - 1
    size = padded.shape[axis] - 2 * reach
    out = padded.narrow(axis, reach, size) * float(taps[0])
    for away in range(1, reach + 1):
        for start in (reach - away, reach + away):
            out.add_(padded.narrow(axis, start, size), alpha=float(taps[away]))
    return out


def _sensor_noise(rng: Rng, config: SceneConfig, image: Tensor) -> Tensor:
    """Adds read noise, and shot noise whose variance grows with brightness."""
    shot = config.max_noise * rng.random() ** 2
    read = shot * rng.uniform(0.1, 0.7)
    generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**62)))
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    return image + noise * (image.clamp(0, 1) * shot**2 + read**2).sqrt()


def _dct() -> Array:
    """The orthonormal 8-point DCT-II; rows are basis functions."""
    k, n = np.arange(8)[:, None], np.arange(8)
    return np.asarray(np.cos(math.pi * k * (2 * n + 1) / 16) * np.where(k == 0, math.sqrt(1 / 8), 0.5))


BLOCK_DCT = np.kron(_dct(), _dct())  # [64, 64] on flattened 8x8 blocks
FREQUENCY = np.add.outer(np.arange(8), np.arange(8)).reshape(-1)  # [64]
YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])  # JFIF


def jpeg(image: Tensor, quality: float) -> Tensor:
    """Applies JPEG's losses to images [T, 3, H, W] in [0, 1]: quantises the 8x8 DCT of luma and chroma.

    The quantisation steps scale with `quality` (1 to 100) as in JPEG. They are a ramp in frequency, close to JPEG's
    example tables. Chroma is not subsampled.
    """
    count, _, height, width = image.shape
    scale = (5000 / quality if quality < 50 else 200 - 2 * quality) / 100 / 255
    luma, chroma = 12 + 7.0 * FREQUENCY, np.minimum(17 + 12.0 * FREQUENCY, 99)
    steps, mix, unmix, dct = (
        torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32)).to(image.device)
        for matrix in (np.stack([luma, chroma, chroma]) * scale, YCC, np.linalg.inv(YCC), BLOCK_DCT)
    )
    padded = F.pad(image - 0.5, (0, -width % 8, 0, -height % 8), mode="replicate")
    rows, columns = padded.shape[-2] // 8, padded.shape[-1] // 8
    colours = torch.einsum("ij,tjhw->tihw", mix, padded)
    blocks = colours.view(count, 3, rows, 8, columns, 8).permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, 64)
    kept = (blocks @ dct.T / steps).round_() * steps
    plane = (kept @ dct).view(count, rows, columns, 3, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(padded.shape)
    return (torch.einsum("ij,tjhw->tihw", unmix, plane)[..., :height, :width] + 0.5).clamp_(0, 1)
