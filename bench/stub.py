"""Cheap stand-ins: a tracker, and a stream that has tracked its first frame."""

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from online_tapir.records import Frame, Tracks
from online_tapir.testing import FakeTracker

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream

SIZE = (49, 33)  # width and height


def one_frame_stream(points: int = 4096) -> "Stream":
    """A stream that has tracked frame 0, of SIZE, with room for `points` points and none added."""
    from online_tapir.camera import Capture, SyntheticCamera
    from online_tapir.live.stream import Stream

    rgb = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    tracker: Any = StubTracker(max_points=points)
    stream = Stream(Capture(SyntheticCamera([rgb])), tracker, threading.Event())
    frame = Frame(0, 0, 0, rgb)
    stream.published(frame, tracker.step(frame))
    return stream


class StubTracker(FakeTracker):
    """A tracker that does no work: points stay where they were added, and every third is hidden."""

    def collect(self) -> Tracks:
        tracks = super().collect()
        half = np.full(len(tracks.ids), 0.5, np.float32)
        return replace(tracks, visible=tracks.ids % 3 != 0, occlusion=half, uncertainty=half, model="stub")
