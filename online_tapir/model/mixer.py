"""The causal temporal mixer: what a point looked like on the frames so far decides how its estimate moves."""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from online_tapir.model.config import TapirConfig
from tapir_kernels import TEMPORAL_TAPS, dense, mixer_step


class ScaleNorm(nn.LayerNorm):
    """LayerNorm with a scale and no shift."""

    def __init__(self, width: int) -> None:
        super().__init__(width, bias=False)


class TemporalMix(nn.Module):
    """Two causal depthwise convolutions over time, kernel 3: each channel widened, GELU, summed back."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.widen = nn.Parameter(torch.randn(TEMPORAL_TAPS, expansion, width) * TEMPORAL_TAPS**-0.5)  # oldest first
        self.widen_bias = nn.Parameter(torch.zeros(expansion, width))
        self.narrow = nn.Parameter(torch.randn(TEMPORAL_TAPS, expansion, width) * (TEMPORAL_TAPS * expansion) ** -0.5)
        self.narrow_bias = nn.Parameter(torch.zeros(width))

    def step(self, x: Tensor, memory: Tensor, phase: int) -> Tensor:
        """One frame, x [N, C]; memory [4, N, C] is updated in place (see tapir_kernels.mixer_step)."""
        return mixer_step(x, memory, phase, self.widen, self.widen_bias, self.narrow, self.narrow_bias)

    def clip(self, x: Tensor, alive: Tensor) -> Tensor:
        """All frames at once, x [B, T, N, C]: the same as steps of points that begin where alive [B, T, N, 1] does."""
        wide = self.widen_bias[:, None, None, None] + _causal_taps((x * alive)[None], self.widen)
        wide = F.gelu(wide, approximate="tanh") * alive  # [M, B, T, N, C]
        return _causal_taps(wide, self.narrow).sum(dim=0) + self.narrow_bias


def _causal_taps(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of x [M or 1, B, T, N, C] on this frame and the two before; weight [3, M, C], oldest first."""
    padded = F.pad(x, (0, 0, 0, 0, TEMPORAL_TAPS - 1, 0))
    frames = x.shape[2]
    taps = [padded[:, :, tap : tap + frames] * weight[tap][:, None, None, None] for tap in range(TEMPORAL_TAPS)]
    return taps[0] + taps[1] + taps[2]


class MixerBlock(nn.Module):
    """Mixes over time, then over channels."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.temporal_norm = ScaleNorm(width)
        self.temporal = TemporalMix(width, expansion)
        self.channel_norm = ScaleNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)

    def step(self, x: Tensor, memory: Tensor, phase: int) -> Tensor:
        return self._mix_channels(x + self.temporal.step(self.temporal_norm(x), memory, phase))

    def clip(self, x: Tensor, alive: Tensor) -> Tensor:
        return self._mix_channels(x + self.temporal.clip(self.temporal_norm(x), alive))

    def _mix_channels(self, x: Tensor) -> Tensor:
        wide = F.gelu(dense(self.channel_norm(x), self.widen.weight, self.widen.bias), approximate="tanh")
        return x + dense(wide, self.narrow.weight, self.narrow.bias)


class Mixer(nn.Module):
    """A stack of mixer blocks between two linear layers (TAPIR, section 3.2)."""

    def __init__(self, config: TapirConfig, source: int, target: int) -> None:
        super().__init__()
        self.enter = nn.Linear(source, config.mixer_width)
        self.blocks = nn.ModuleList(
            MixerBlock(config.mixer_width, config.mixer_expansion) for _ in range(config.mixer_depth)
        )
        self.norm = ScaleNorm(config.mixer_width)
        self.leave = nn.Linear(config.mixer_width, target)

    def step(self, x: Tensor, memory: Tensor, phase: int) -> Tensor:
        """One frame of N points, x [N, source] to [N, target]; memory [depth, 4, N, width] is updated in place."""
        x = self.enter(x)
        for block, block_memory in zip(self._stack(), memory, strict=True):
            x = block.step(x, block_memory, phase)
        return self._leave(x)

    def clip(self, x: Tensor, alive: Tensor) -> Tensor:
        """All frames at once, [B, T, N, source] to [.., target]; alive [B, T, N, 1] is 0 before a point's query."""
        x = self.enter(x)
        for block in self._stack():
            x = block.clip(x, alive)
        return self._leave(x)

    def _stack(self) -> Iterable[MixerBlock]:
        return cast(Iterable[MixerBlock], self.blocks)  # a ModuleList does not say what it holds

    def _leave(self, x: Tensor) -> Tensor:
        left: Tensor = self.leave(self.norm(x))
        return left
