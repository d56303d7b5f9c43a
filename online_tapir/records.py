"""The plain records that travel from the camera to the sinks; nothing here computes, reads or sends.

Positions are image pixels in raster coordinates: (0, 0) is the top-left corner of the first pixel, whose centre is at
(0.5, 0.5). Times are nanoseconds: `*_ns` of the capturing machine's monotonic clock, `*_unix_ns` of its wall clock.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture and the moment it was grabbed."""

    id: int
    captured_ns: int
    captured_unix_ns: int
    rgb: NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Nanoseconds spent on one frame, stage by stage.

    `capture` is the age of the frame when the tracker took it; `publish` is what the sinks took for the frame before.
    """

    capture: int = 0
    upload: int = 0
    encode: int = 0
    match: int = 0
    refine: int = 0
    download: int = 0
    publish: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """Where every live point is on one frame; row i of each array belongs to point `ids[i]`, and ids ascend."""

    frame_id: int
    captured_ns: int
    captured_unix_ns: int
    width: int  # of the frame, pixels
    height: int
    ids: NDArray[np.int32]  # [N]
    xy: NDArray[np.float32]  # [N, 2] image pixels
    visible: NDArray[np.bool_]  # [N]
    occlusion: NDArray[np.float32]  # [N] probability that the point is hidden
    uncertainty: NDArray[np.float32]  # [N] probability that the position is off
    dropped: int = 0  # frames that the source has dropped since it was opened
    camera: str = ""
    model: str = ""
    times: StageTimes = field(default_factory=StageTimes)
    published_unix_ns: int = 0


class Sink(Protocol):
    """Somewhere tracks go. `publish` must not block: a sink that cannot keep up drops."""

    def publish(self, frame: Frame, tracks: Tracks) -> None: ...

    def close(self) -> None: ...
