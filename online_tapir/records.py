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
class Stage:
    """Where one step of the model put a point: the first guess, or a refinement of it."""

    name: str  # "match", "refine 1", "refine 2"; "512x384 refine 1" where points are refined at several resolutions
    xy: NDArray[np.float32]  # [2] image pixels
    occlusion: float  # probability that the point is hidden
    uncertainty: float  # probability that the position is off
    visible: bool


@dataclass(frozen=True, slots=True, eq=False)
class Correlations:
    """What one refinement saw around the stage before it: dot products on 7x7 places of each level, fine to coarse."""

    stage: str  # the name of the stage that was made of them
    xy: NDArray[np.float32]  # [2] image pixels: the middle of every patch
    query: NDArray[np.float32]  # [L, 7, 7] with the point's running features
    recent: NDArray[np.float32] | None  # [L, 7, 7] with what it looked like when last seen; None for a model without
    reach: NDArray[np.float32]  # [L, 2] image pixels (x, y) from the middle of a patch to its outermost samples


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """What the model saw of one point on one frame, as it was computed. Maps cover the whole picture."""

    id: int
    cost: NDArray[np.float32]  # [K, H, W] correlations with the query; K is 3 for a model with a memory of last sights,
    # 1 else: the query, the last sight, nearness to where the point is expected
    heat: NDArray[np.float32]  # [H, W] probabilities of the position, sum 1
    stages: tuple[Stage, ...]  # the first guess, then every refinement; the last is the published one
    correlations: tuple[Correlations, ...]  # of every refinement


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
    inspection: Inspection | None = None  # of the point that is inspected; never on the wire


class Sink(Protocol):
    """Somewhere tracks go. `publish` must not block: a sink that cannot keep up drops."""

    def publish(self, frame: Frame, tracks: Tracks) -> None: ...

    def close(self) -> None: ...
