"""What points look like: the features that a model tracks them by, apart from any frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from online_tapir.errors import QueryError
from online_tapir.model.config import TapirConfig


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """Query features of P points at R refinement resolutions, float32, on the host."""

    match: NDArray[np.float32]  # [P, C coarse]
    refine: NDArray[np.float32]  # [R, P, C fine + coarse, then their neighbours']

    @property
    def points(self) -> int:
        return len(self.match)

    def taken(self, rows: "NDArray[np.bool_] | Sequence[int] | slice") -> "Looks":
        """Those of some points."""
        return Looks(self.match[rows], self.refine[:, rows])

    @classmethod
    def joined(cls, parts: "Sequence[Looks]") -> "Looks":
        """Those of all of `parts`, one after another."""
        return cls(
            np.concatenate([part.match for part in parts]), np.concatenate([part.refine for part in parts], axis=1)
        )

    def check(self, config: TapirConfig) -> None:
        """QueryError unless a model of this configuration can track points by these features."""
        channels = (config.lowres_channels, config.query_channels)
        found = (self.match.shape[-1], self.refine.shape[-1])
        if found != channels:
            raise QueryError(f"looks with {found} channels are not those of model {config.name}, which has {channels}")
        if not (np.isfinite(self.match).all() and np.isfinite(self.refine).all()):
            raise QueryError("looks with numbers that are not finite")
