"""What one frame brings to the Rerun viewer."""

from dataclasses import dataclass

from online_tapir.drawing.query_patches import QueryPatch
from online_tapir.records import Frame, Tracks


@dataclass(frozen=True, slots=True)
class Moment:
    """One frame and everything that is drawn with it."""

    frame: Frame
    tracks: Tracks
    latency_ms: float  # capture to publish
    fps: float | None  # over the last second; None while there are too few frames
    query: QueryPatch | None = None  # of the inspected point
