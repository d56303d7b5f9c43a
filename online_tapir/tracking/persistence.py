"""A tracker's points on their way into a saved state and back."""

from functools import cached_property
from pathlib import Path

import torch

from online_tapir.model.config import Size
from online_tapir.model.digest import digest
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import Tapir
from online_tapir.tracking import state_file
from online_tapir.tracking.ledger import Ledger, Query
from online_tapir.tracking.state_file import Origin, SavedState


class Persistence:
    """Packs and reads the points of trackers of one model; the digest of its weights is computed once, when needed."""

    def __init__(self, model: Tapir) -> None:
        self._model = model

    @cached_property
    def _digest(self) -> str:
        return digest(self._model)

    def origin(self, resolutions: tuple[Size, ...] | None) -> Origin:
        """The origin of states refined at `resolutions` (height, width); None before they are known."""
        dtype = next(self._model.parameters()).dtype
        return Origin(self._model.config, self._digest, str(dtype).removeprefix("torch."), resolutions)

    def pack(
        self, points: Ledger, state: TrackState, resolutions: list[Size], frame_id: int, frames: int, size: Size
    ) -> SavedState:
        """Copies the points to the host, without those whose state overflowed. No point may wait on a past frame.

        `size` is that of the last frame.
        """
        live = state.rows(0, points.live)
        sound = live.sound().nonzero()[:, 0]
        waiting = points.queued
        return SavedState(
            self.origin(tuple(resolutions)),
            frame_id=frame_id,
            frames=frames,
            next_id=points.next_id,
            ids=points.rows[sound.cpu().numpy()],
            state=live.taken(sound, "cpu"),
            waiting_ids=waiting.ids,
            waiting_xy=waiting.xy,
            waiting_size=size,
        )

    def read(
        self, path: Path, points: Ledger, resolutions: tuple[Size, ...] | None, device: torch.device
    ) -> tuple[SavedState, TrackState]:
        """Restores `points` from a file; returns what was read and its rows on `device`.

        `resolutions` are those that the tracker would refine at, None where its first frame decides. Raises StateError
        for a file that `state_file.read` refuses.
        """
        saved = state_file.read(path, self.origin(resolutions), points.capacity)
        rows = saved.state.taken(torch.arange(len(saved.ids)), device)
        waiting = Query(saved.waiting_ids.copy(), saved.waiting_xy.copy(), None, size=saved.waiting_size)
        points.restore(saved.ids, saved.next_id, waiting, saved.labels)
        return saved, rows
