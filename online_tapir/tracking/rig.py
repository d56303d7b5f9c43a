"""One model on one device that tracks the points of several streams: each has a lane, and a batch serves them all."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from online_tapir.engines.engine import Engine
from online_tapir.errors import ConfigError
from online_tapir.limits import DEFAULT_MAX_POINTS, DEFAULT_WINDOW
from online_tapir.model.config import Size
from online_tapir.model.tapir import Tapir
from online_tapir.records import Frame, Tracks
from online_tapir.tracking.lanes import Lanes
from online_tapir.tracking.tracker import Tracker


class Rig:
    """`lanes` streams of frames, of any sizes, that one model matches at one input size.

    A lane gives the tracks that a tracker alone would give, whatever the other lanes do. On a GPU the lanes that have a
    frame are one batch, replayed as one set of graphs whichever they are; memory for all lanes is allocated once. On a
    CPU they are run in turn, which is faster there, unless `batch` is True. For the other settings see `Tracker`.
    """

    def __init__(
        self,
        model: Tapir,
        lanes: int,
        max_points: int = DEFAULT_MAX_POINTS,
        window: int = DEFAULT_WINDOW,
        *,
        graphs: bool = True,
        require_kernels: bool = False,
        input_size: Size | None = None,
        engine: Engine | str | None = None,
        batch: bool | None = None,
    ) -> None:
        self._lanes = Lanes(model, lanes, max_points, window, None, graphs, require_kernels, input_size, engine, batch)
        self._trackers = [Tracker.of(self._lanes, index) for index in range(lanes)]
        self._free = set(range(lanes))

    @property
    def lanes(self) -> int:
        """How many streams have room."""
        return len(self._trackers)

    @property
    def free(self) -> int:
        """How many more lanes can be taken."""
        return len(self._free)

    @property
    def batches(self) -> bool:
        """Whether lanes that have a frame are tracked as one batch."""
        return self._lanes.batches

    def lane(self, index: int) -> Tracker:
        """The tracker of one lane."""
        return self._trackers[index]

    def take(self) -> Tracker:
        """A lane that nobody has, as new. Raises ConfigError if there is none."""
        if not self._free:
            raise ConfigError(f"all {self.lanes} lanes of this rig are taken; give one back, or make a larger rig")
        index = min(self._free)
        self._free.remove(index)
        return self._trackers[index]

    def give_back(self, tracker: Tracker) -> None:
        """Ends a stream: its points and frames are forgotten, and its lane can be taken again."""
        index = self._trackers.index(tracker)
        tracker.reset()
        self._free.add(index)

    def step(self, frames: Mapping[Tracker, NDArray[np.uint8] | Frame]) -> dict[Tracker, Tracks]:
        """Tracks the next frame of those lanes that have one; the others do not move.

        Raises what `Tracker.step` raises; if a frame is refused, none has been tracked.
        """
        return dict(zip(frames, Tracker.together(list(frames.items())), strict=True)) if frames else {}
