"""The causal temporal mixer: updates a point's estimate from what was seen of it on the frames so far."""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from online_tapir.model.config import TapirConfig
from tapir_kernels import TEMPORAL_TAPS, dense, dense_gelu, mixer_advance, mixer_step

Past = tuple[list[Tensor], list[Tensor]]  # per frame so far: the inputs, the widened activations


class ScaleNorm(nn.LayerNorm):
    """LayerNorm with a scale and no shift."""

    def __init__(self, width: int) -> None:
        super().__init__(width, bias=False)


class TemporalMix(nn.Module):
    """Two causal depthwise convolutions over time, kernel 3: widens each channel, applies GELU, sums back."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.widen = nn.Parameter(torch.randn(TEMPORAL_TAPS, expansion, width) * TEMPORAL_TAPS**-0.5)  # oldest first
        self.widen_bias = nn.Parameter(torch.zeros(expansion, width))
        self.narrow = nn.Parameter(torch.randn(TEMPORAL_TAPS, expansion, width) * (TEMPORAL_TAPS * expansion) ** -0.5)
        self.narrow_bias = nn.Parameter(torch.zeros(width))

    def step(self, x: Tensor, memory: Tensor, phase: Tensor, norm: ScaleNorm) -> Tensor:
        """One frame: x [N, C] plus the mix of norm(x); memory [4, N, C] is updated in place (see tapir_kernels)."""
        return mixer_step(x, memory, phase, norm.weight, self.widen, self.widen_bias, self.narrow, self.narrow_bias)

    def advance(self, x: Tensor, memory: Tensor, norm: ScaleNorm) -> tuple[Tensor, Tensor]:
        """`step` that returns the next memory and writes nothing (see `mixer_advance`)."""
        weights = norm.weight, self.widen, self.widen_bias, self.narrow, self.narrow_bias
        return mixer_advance(x, memory, *weights)

    def frame(self, x: Tensor, alive: Tensor, past: Past) -> Tensor:
        """What `step` adds to x, from normed x [B, N, C], with a gradient.

        Appends this frame to `past`, as zeros for points whose alive [B, N, 1] is 0.
        """
        inputs, sums = past
        inputs.append(x * alive)
        wide = self.widen_bias[:, None, None] + _causal_taps(inputs, self.widen)
        sums.append(F.gelu(wide, approximate="tanh") * alive)  # [M, B, N, C]
        return _causal_taps(sums, self.narrow).sum(dim=0) + self.narrow_bias


def _causal_taps(past: list[Tensor], weight: Tensor) -> Tensor:
    """Weighted sum of the last three of past [(M,) B, N, C]; weight [3, M, C], oldest first."""
    newest = past[-TEMPORAL_TAPS:]
    taps = [x * tap[:, None, None] for x, tap in zip(newest, weight[-len(newest) :], strict=True)]
    return torch.stack(taps).sum(dim=0)


class MixerBlock(nn.Module):
    """Mixes over time, then over channels."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.temporal_norm = ScaleNorm(width)
        self.temporal = TemporalMix(width, expansion)
        self.channel_norm = ScaleNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)

    def step(self, x: Tensor, memory: Tensor, phase: Tensor) -> Tensor:
        return self._mix_channels(self.temporal.step(x, memory, phase, self.temporal_norm))

    def advance(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        x, memory = self.temporal.advance(x, memory, self.temporal_norm)
        return self._mix_channels(x), memory

    def frame(self, x: Tensor, alive: Tensor, past: Past) -> Tensor:
        return self._mix_channels(x + self.temporal.frame(self.temporal_norm(x), alive, past))

    def _mix_channels(self, x: Tensor) -> Tensor:
        wide = dense_gelu(self.channel_norm(x), self.widen.weight, self.widen.bias)
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

    def step(self, x: Tensor, memory: Tensor, phase: Tensor) -> Tensor:
        """One frame of N points, x [N, source] to [N, target]; memory [depth, 4, N, width] is updated in place.

        The points are those of several lanes, whose phases are phase [S] (see `tapir_kernels.mixer_step`).
        """
        x = self.enter(x)
        for block, block_memory in zip(self._stack(), memory, strict=True):
            x = block.step(x, block_memory, phase)
        return self._leave(x)

    def advance(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """`step` that returns the next memory [depth, 4, N, width] and writes nothing (see `mixer_advance`)."""
        x, memories = self.enter(x), []
        for block, block_memory in zip(self._stack(), memory, strict=True):
            x, following = block.advance(x, block_memory)
            memories.append(following)
        return self._leave(x), torch.stack(memories)

    def frame(self, x: Tensor, alive: Tensor, past: list[Past]) -> Tensor:
        """`step` with a gradient, [B, N, source] to [B, N, target]; alive [B, N, 1] is 0 before a point's query."""
        x = self.enter(x)
        for block, block_past in zip(self._stack(), past, strict=True):
            x = block.frame(x, alive, block_past)
        return self._leave(x)

    def no_past(self) -> list[Past]:
        """The empty `past` for the first call of `frame`."""
        return [([], []) for _ in self._stack()]

    def _stack(self) -> Iterable[MixerBlock]:
        return cast(Iterable[MixerBlock], self.blocks)  # ModuleList does not type its items

    def _leave(self, x: Tensor) -> Tensor:
        left: Tensor = self.leave(self.norm(x))
        return left
