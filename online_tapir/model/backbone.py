"""The feature backbone: a pre-activation ResNet with instance norms, and BootsTAPIR's extra convolutions."""

import torch.nn.functional as F
from torch import Tensor, nn

from online_tapir.model.config import GROUP_STRIDES, LOWRES_GROUP, TapirConfig
from online_tapir.model.grids import Grids
from tapir_kernels import instance_norm_relu, l2_normalize

EXTRA_EXPANSION = 4


class InstanceNormReLU(nn.Module):
    """Instance norm with scale and shift, then ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm_relu(x, self.norm.weight, self.norm.bias)


class ResidualBlock(nn.Module):
    """Norm, ReLU and conv, twice, with a shortcut; its projection, if any, takes the output of the first ReLU."""

    def __init__(self, source: int, target: int, stride: int, project: bool) -> None:
        super().__init__()
        self.norm1 = InstanceNormReLU(source)
        self.project = nn.Conv2d(source, target, 1, stride, bias=False) if project else None
        self.conv1 = nn.Conv2d(source, target, 3, stride, padding=1 if stride == 1 else 0, bias=False)
        self.norm2 = InstanceNormReLU(target)
        self.conv2 = nn.Conv2d(target, target, 3, padding=1, bias=False)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        shortcut = x if self.project is None else self.project(y)
        y = self.conv1(y if self.stride == 1 else F.pad(y, (0, 2, 0, 2)))
        residual: Tensor = self.conv2(self.norm2(y))
        return shortcut + residual


class ExtraConv(nn.Module):
    """BootsTAPIR's convolutional block; its shortcut is the normalised input (arXiv 2402.00847, appendix)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Conv2d(channels, EXTRA_EXPANSION * channels, 3, padding=1)
        self.narrow = nn.Conv2d(EXTRA_EXPANSION * channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        change: Tensor = self.narrow(F.gelu(self.widen(y), approximate="tanh"))
        return y + change


class Backbone(nn.Module):
    """Maps images to the grids that points are matched against (TAPIR, section 3 and appendix; causal checkpoints)."""

    def __init__(self, config: TapirConfig) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, config.stem_width, 7, 2, bias=False)
        self.groups = nn.ModuleList()
        source = config.stem_width
        for width, blocks, stride in zip(config.widths, config.blocks, GROUP_STRIDES, strict=True):
            first = ResidualBlock(source, width, stride, project=True)
            rest = [ResidualBlock(width, width, 1, project=False) for _ in range(blocks - 1)]
            self.groups.append(nn.Sequential(first, *rest))
            source = width
        self.extra = nn.Sequential(*(ExtraConv(config.lowres_channels) for _ in range(config.extra_convs)))
        self.described_by = config.described_by
        self.pyramid_levels = config.pyramid_levels

    def forward(self, image: Tensor) -> Grids:
        """The grids of image [G, 3, H, W] in [-1, 1], H and W multiples of 8; for example at strides 4, 8 and 16."""
        x = self.stem(F.pad(image, (2, 4, 2, 4)))
        maps: list[Tensor] = []
        for index, group in enumerate(self.groups):
            x = group(x)
            if index in self.described_by and index != LOWRES_GROUP:
                maps.append(l2_normalize(x))
        maps.append(l2_normalize(self.extra(x)))
        for _ in range(self.pyramid_levels):
            maps.append(F.avg_pool2d(maps[-1], 2, 2))
        levels = tuple(level.permute(0, 2, 3, 1).contiguous() for level in maps)
        return Grids((image.shape[2], image.shape[3]), levels, self.pyramid_levels)
