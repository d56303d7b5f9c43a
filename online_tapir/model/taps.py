"""What the stages of a frame computed for one point, as copies of their own tensors.

Without taps a stage does no extra work; with taps it only makes copies and recomputes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from online_tapir.model.config import Size
from online_tapir.model.estimate import Estimate
from online_tapir.model.grids import Grids
from tapir_kernels import PATCH_SAMPLES


@dataclass(frozen=True, slots=True)
class Patches:
    """The local correlations of one refinement, around the estimate that it started from."""

    resolution: Size  # of the refinement, in pixels
    grids: tuple[Size, ...]  # size of every level in cells, fine to coarse
    query: Tensor  # [L, 49] with the point's running features
    recent: Tensor | None  # [L, 49] with its last sight; None for a model without `recent_inputs`


@dataclass(slots=True)
class Sight:
    """What a frame's stages computed for one row."""

    cost: Tensor = field(default_factory=lambda: torch.empty(0))  # [K, H, W] input of the first guess
    heat: Tensor = field(default_factory=lambda: torch.empty(0))  # [H, W] before the softmax
    estimates: list[Tensor] = field(default_factory=list)  # each [4] as `estimate.packed`: first guess, refinements
    patches: list[Patches] = field(default_factory=list)  # patches[i] turned estimates[i] into estimates[i + 1]

    def flat(self) -> Tensor:
        """All its numbers, float32 [M], for one copy from the device."""
        return torch.cat([tensor.flatten().float() for tensor in self._tensors()])

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return sum(tensor.numel() for tensor in self._tensors())

    def filled(self, flat: Tensor) -> "Sight":
        """A sight of the same shapes with the numbers of `flat` [M], on its device."""
        tensors = list(self._tensors())
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        taken = iter([part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)])
        return Sight(
            next(taken),
            next(taken),
            [next(taken) for _ in self.estimates],
            [
                replace(seen, query=next(taken), recent=None if seen.recent is None else next(taken))
                for seen in self.patches
            ],
        )

    def _tensors(self) -> Iterator[Tensor]:
        yield from (self.cost, self.heat, *self.estimates)
        for seen in self.patches:
            yield from (tensor for tensor in (seen.query, seen.recent) if tensor is not None)


class Tapping(Protocol):
    """Takes what the stages of a frame pass in."""

    def matched(self, cost: Tensor, heat: Tensor, first: Estimate) -> None:
        """Takes the cost maps [G, N, K, H, W], heat maps [G, N, H, W] and the guesses made from them."""

    def correlated(self, grids: Grids, query: Tensor, recent: Tensor | None) -> None:
        """Takes a refinement's patches [G, N, 49 L] on all levels of `grids`: of running features, of last sights."""

    def refined(self, estimate: Estimate) -> None:
        """Takes the estimates after a refinement."""


class Taps:
    """Copies row `row` of what the stages pass in, for one frame of each lane; rows are counted lane after lane."""

    def __init__(self, row: int) -> None:
        self.row = row
        self.sight = Sight()

    def within(self, start: int, stop: int) -> "Taps | None":
        """The same taps for a stage that gets only rows start..stop; None if the row is not among them."""
        if not start <= self.row < stop:
            return None
        shifted = Taps(self.row - start)
        shifted.sight = self.sight
        return shifted

    def matched(self, cost: Tensor, heat: Tensor, first: Estimate) -> None:
        self.sight.cost = self._of(cost).clone()
        self.sight.heat = self._of(heat).clone()
        self.sight.estimates = [self._row(first)]

    def correlated(self, grids: Grids, query: Tensor, recent: Tensor | None) -> None:
        levels = tuple((level.shape[1], level.shape[2]) for level in grids.levels)
        of_recent = None if recent is None else self._by_level(recent)
        self.sight.patches.append(Patches(grids.size, levels, self._by_level(query), of_recent))

    def refined(self, estimate: Estimate) -> None:
        self.sight.estimates.append(self._row(estimate))

    def _by_level(self, patches: Tensor) -> Tensor:
        return self._of(patches).clone().view(-1, PATCH_SAMPLES)

    def _of(self, values: Tensor) -> Tensor:
        """The row of values [G, N, ...]."""
        return values[divmod(self.row, values.shape[1])]

    def _row(self, estimate: Estimate) -> Tensor:
        logits = torch.stack([self._of(estimate.occlusion), self._of(estimate.expected_distance)])
        return torch.cat([self._of(estimate.xy).float(), logits.float()])


class LaneTaps:
    """Taps of one row of some of the lanes."""

    def __init__(self, rows: Sequence[int | None]) -> None:
        self._taps = [None if row is None else Taps(row) for row in rows]

    def matched(self, cost: Tensor, heat: Tensor, first: Estimate) -> None:
        for taps in self._there:
            taps.matched(cost, heat, first)

    def correlated(self, grids: Grids, query: Tensor, recent: Tensor | None) -> None:
        for taps in self._there:
            taps.correlated(grids, query, recent)

    def refined(self, estimate: Estimate) -> None:
        for taps in self._there:
            taps.refined(estimate)

    def flat(self) -> Tensor:
        """All the sights' numbers, float32 [M], for one copy from the device."""
        return torch.cat([taps.sight.flat() for taps in self._there])

    def sights(self, flat: Tensor) -> list[Sight | None]:
        """The sight of each lane's row with the numbers of `flat` [M]; None for a lane without one."""
        parts = iter(torch.split(flat, [taps.sight.size for taps in self._there]))
        return [None if taps is None else taps.sight.filled(next(parts)) for taps in self._taps]

    @property
    def _there(self) -> list[Taps]:
        return [taps for taps in self._taps if taps is not None]
