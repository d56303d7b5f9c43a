"""Cheap stand-ins: a tracker, a model, and a stream that has tracked its first frame."""

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from online_tapir.records import Frame, Tracks
from online_tapir.testing import FakeTracker

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream
    from online_tapir.model.config import TapirConfig
    from online_tapir.model.tapir import Tapir

SIZE = (49, 33)  # width and height


def tiny_config() -> "TapirConfig":
    """The smallest model that has every part."""
    from online_tapir.model.config import TapirConfig

    return TapirConfig(
        name="tiny",
        stem_width=8,
        widths=(8, 8, 8, 8),
        blocks=(1, 1, 1, 1),
        extra_convs=0,
        match_width=4,
        mixer_width=8,
        mixer_depth=1,
        iterations=1,
        initial_resolution=(32, 32),
    )


def tiny_model() -> "Tapir":
    """A model of `tiny_config` with random weights."""
    from online_tapir.model.tapir import Tapir

    return Tapir(tiny_config()).eval().requires_grad_(False)


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
