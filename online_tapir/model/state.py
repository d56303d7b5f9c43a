"""A stream's memory of its points between frames: preallocated rows, one per point, outside the model."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from online_tapir.model.config import TapirConfig
from online_tapir.model.recent import Recent

_RECENT = "recent."
LONG_AGO = 100.0  # frames, after which nothing is left of the trust in a position
REMEMBERED = 4  # rows of tapir_kernels.mixer_step's memory: two past inputs, two pending sums


@dataclass(frozen=True, slots=True)
class TrackState:
    """Query features and refinement memory of `capacity` points. Row n of every tensor belongs to one point."""

    match_queries: Tensor  # [N, C coarse]
    refine_queries: Tensor  # [R, N, C fine + coarse, then their neighbours'], R refinement resolutions
    memory: Tensor  # [R, iterations, depth, 4, N, width]
    previous_xy: Tensor  # [R, iterations, N, 2] the guess refined on the last frame; NaN if there was none
    recent: Recent | None  # of one stream; None for a model without `recent_inputs`

    @classmethod
    def empty(
        cls, config: TapirConfig, resolutions: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> "TrackState":
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, device=device, dtype=dtype)

        refinements = (resolutions, config.iterations)
        return cls(
            zeros(capacity, config.lowres_channels),
            zeros(resolutions, capacity, config.query_channels),
            zeros(*refinements, config.mixer_depth, REMEMBERED, capacity, config.mixer_width),
            torch.full((*refinements, capacity, 2), torch.nan, device=device),
            Recent.begun(
                zeros(1, capacity, config.lowres_channels),
                zeros(resolutions, 1, capacity, config.feature_channels),
                torch.zeros(1, capacity, 2, device=device),
            )
            if config.recent_inputs
            else None,
        )

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "TrackState":
        """The inverse of `tensors`."""
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(_RECENT)}
        recent = {name.removeprefix(_RECENT): tensor for name, tensor in tensors.items() if name.startswith(_RECENT)}
        return cls(**own, recent=Recent(**recent) if recent else None)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, such as "memory" or "recent.age"."""
        tensors = {name: getattr(self, name) for name in ("match_queries", "refine_queries", "memory", "previous_xy")}
        if self.recent is not None:
            tensors |= {_RECENT + field.name: getattr(self.recent, field.name) for field in fields(Recent)}
        return tensors

    def taken(self, rows: Tensor, device: torch.device | str) -> "TrackState":
        """A copy of these rows [K] on `device`."""
        return TrackState.of(
            {name: tensor.index_select(row_axis(name), rows).to(device) for name, tensor in self.tensors.items()}
        )

    def sound(self) -> Tensor:
        """Which rows [N] hold only finite numbers. A row that overflowed is unusable from then on."""
        sound = torch.ones(len(self.match_queries), dtype=torch.bool, device=self.match_queries.device)
        for name, tensor in self.tensors.items():
            if name == "previous_xy":  # NaN is valid there
                tensor = tensor.nan_to_num(0.0, posinf=torch.inf, neginf=-torch.inf)
            others = [axis for axis in range(tensor.ndim) if axis != row_axis(name) % tensor.ndim]
            sound &= (tensor * 0).sum(dim=others) == 0  # 0 times NaN or infinity is NaN
        return sound

    def copy_(self, other: "TrackState") -> None:
        """Overwrites this in place with the contents of `other`."""
        theirs = other.tensors
        for name, mine in self.tensors.items():
            mine.copy_(theirs[name])

    def rows(self, start: int, stop: int) -> "TrackState":
        """A view of rows start..stop."""
        count = stop - start
        return TrackState.of({name: t.narrow(row_axis(name), start, count) for name, t in self.tensors.items()})

    def begin(self, row: int, match_queries: Tensor, refine_queries: Tensor, xy: Tensor) -> None:
        """Assigns the rows from `row` on to new points and clears their memory.

        Features are [P, C] and, with those of their neighbours, [R, P, C + 8 C']; positions xy [P, 2] are in pixels of
        the initial resolution.
        """
        view = self.rows(row, row + len(match_queries))
        view.match_queries.copy_(match_queries)
        view.refine_queries.copy_(refine_queries)
        view.memory.zero_()
        view.previous_xy.fill_(torch.nan)
        if view.recent is not None:
            features = refine_queries[..., : view.recent.refine.shape[-1]]
            view.recent.copy_(Recent.begun(match_queries[None], features[:, None], xy[None]))

    def forget_place(self) -> None:
        """Makes the points ones that were last seen so long ago that they may be anywhere."""
        if self.recent is not None:
            self.recent.age.fill_(LONG_AGO)

    def move(self, source: int, target: int) -> None:
        """Copies the point in row `source` over the one in row `target`."""
        for name, tensor in self.tensors.items():
            tensor.select(row_axis(name), target).copy_(tensor.select(row_axis(name), source))

    @property
    def bytes_per_point(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values()) // max(1, len(self.match_queries))


def row_axis(name: str) -> int:
    """The axis that indexes points in one of `tensors`."""
    return -1 if name == f"{_RECENT}age" else -2
