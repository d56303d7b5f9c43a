"""A backbone of plain convolutions with a third of the ResNet's arithmetic; without norms it can fold and quantise.

Features at strides 8 to 32 are summed at stride 8 (a feature pyramid, arXiv 1612.03144), which gives the coarse grid a
large receptive field. A grid at stride 2, if there is one, sums the stem's features and those at stride 4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from online_tapir.model.config import TapirConfig
from online_tapir.model.grids import Grids
from tapir_kernels import l2_normalize

LEAST_CONTRAST = 0.05  # frames are divided by at least this standard deviation


class Conv(nn.Conv2d):
    """A convolution that keeps the size at stride 1 and halves it at stride 2, rounding up."""

    def __init__(self, source: int, target: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(source, target, kernel, stride, padding=kernel // 2)


class Residual(nn.Module):
    """Two convolutions with a shortcut; ReLU after the first and after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = Conv(width, width)
        self.conv2 = Conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv2(F.relu(self.conv1(x)))
        return F.relu(x + change)


class Stage(nn.Module):
    """A stride-2 convolution to `target` channels, then a residual block."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.down = Conv(source, target, stride=2)
        self.residual = Residual(target)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.residual(F.relu(self.down(x)))
        return y


class LeanBackbone(nn.Module):
    """Maps images to grids at strides (2,) 4 and 8, and pooled copies of the coarse one."""

    def __init__(self, config: TapirConfig) -> None:
        super().__init__()
        *finest, fine, coarse = config.grid_widths
        quarter, eighth, sixteenth, deepest = config.widths
        self.stem = Conv(3, config.stem_width, kernel=5, stride=2)
        self.stage4 = Stage(config.stem_width, quarter)
        self.stage8 = Stage(quarter, eighth)
        self.stage16 = Stage(eighth, sixteenth)
        self.stage32 = Stage(sixteenth, deepest)
        self.lateral8 = Conv(eighth, deepest, kernel=1)
        self.lateral16 = Conv(sixteenth, deepest, kernel=1)
        self.lateral32 = Conv(deepest, deepest, kernel=1)
        self.join = Conv(deepest, deepest)
        self.has_finest = bool(finest)
        if finest:
            self.finest = Conv(config.stem_width, finest[0], kernel=1)
            self.lateral4 = Conv(quarter, finest[0], kernel=1)
        self.fine = Conv(quarter, fine, kernel=1)
        self.coarse = Conv(deepest, coarse, kernel=1)
        self.pyramid_levels = config.pyramid_levels

    def forward(self, image: Tensor) -> Grids:
        """The grids of image [G, 3, H, W] in [-1, 1], H and W multiples of 8."""
        maps = [l2_normalize(features) for features in self.features(image)]
        for _ in range(self.pyramid_levels):
            maps.append(F.avg_pool2d(maps[-1], 2, 2))
        levels = tuple(level.permute(0, 2, 3, 1).contiguous() for level in maps)
        return Grids((image.shape[2], image.shape[3]), levels, self.pyramid_levels)

    def features(self, image: Tensor) -> list[Tensor]:
        """The features [G, C, H/s, W/s] before they are normalised, for every stride s, the coarse ones last."""
        x2 = F.relu(self.stem(standardise(image)))
        x4 = self.stage4(x2)
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        x32 = self.stage32(x16)
        size = x8.shape[2:]
        joined = F.relu(self.lateral8(x8) + _enlarged(self.lateral16(x16), size) + _enlarged(self.lateral32(x32), size))
        finest = [self.finest(x2) + _enlarged(self.lateral4(x4), x2.shape[2:])] if self.has_finest else []
        return [*finest, self.fine(x4), self.coarse(F.relu(self.join(joined) + joined))]


def standardise(image: Tensor) -> Tensor:
    """Normalises each frame of image [G, 3, H, W] to mean 0 and standard deviation 1; computes in float32."""
    values = image.float()
    deviation, mean = torch.std_mean(values, dim=(1, 2, 3), correction=0, keepdim=True)
    return ((values - mean) / deviation.clamp_min(LEAST_CONTRAST)).to(image.dtype)


def _enlarged(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
