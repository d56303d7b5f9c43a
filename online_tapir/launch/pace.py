"""What a machine can keep up with: the size of the model's input, and how many threads the model gets.

A frame that waits for the model's own answer is worth more than one carried by flow, as long as it is answered within
its period; so the input is the largest at which the model keeps up, and flow then needs no core for itself
(`python -m bench.streaming --input ... --threads ...`).
"""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from online_tapir.flow.tracker import KEEPS_UP
from online_tapir.launch.sizes import input_size
from online_tapir.model.config import Size

if TYPE_CHECKING:
    from online_tapir.model.tapir import Tapir
    from online_tapir.tracking.exported import ExportedTracker
    from online_tapir.tracking.tracker import Tracker

FREE_INPUT = ("small",)  # models for any input size; the public ones are exact at their own
SIDES = (512, 448, 384, 320)  # longer sides of an input that weights were trained for or measured at, best first
USUAL_FPS = 30.0  # of a camera that does not say
FIXED = 0.4  # share of a step at 256x256 that more pixels do not lengthen (`python -m bench.engines`)
FLOW_MS = 5.0  # of a frame for flow and the sinks
TRIALS = 5  # timed steps at most
LONGEST_S = 1.0  # that a slow model is timed, after its first two steps


@dataclass(frozen=True, slots=True)
class Needs:
    """What a camera asks of its tracker."""

    frame: tuple[int, int]  # width, height of its frames; 0 for one that is waited for
    fps: float | None = None  # of all frames that do not wait, 0 if it is unknown; None if they do wait
    flows: bool = False  # optical flow runs beside it
    resumed: Path | None = None  # a state to go on with, at its input size
    cameras: int = 1  # that share the machine

    @property
    def paced(self) -> bool:
        """Whether a model that is too slow has to leave time for flow."""
        return self.flows and self.fps is not None


def step_ms(tracker: "Tracker | ExportedTracker", size: Size, points: int) -> float:
    """The median time of a step of a new tracker with so many points, on noise of its input's size."""
    height, width = size
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    tracker.add(np.full((points, 2), min(height, width) / 2))
    for _ in range(2):
        tracker.step(noise)
    taken: list[float] = []
    while not taken or (len(taken) < TRIALS and sum(taken) < 1000 * LONGEST_S):
        started = time.perf_counter()
        tracker.step(noise)
        taken.append(1000 * (time.perf_counter() - started))
    return median(taken)


def largest_input(model: "Tapir", measured_ms: float, frame: tuple[int, int], fps: float | None) -> Size | None:
    """The largest input in the aspect of `frame` (width, height) that keeps up with `fps`; None for the model's own.

    `measured_ms` is what a step takes at the model's own size. `fps` is None for frames that wait to be read.
    """
    height, width = model.config.initial_resolution
    for side in SIDES:
        if side > max(frame):
            continue  # enlarging a frame costs time and hides points
        wanted = input_size(str(side), frame)
        pixels = wanted[0] * wanted[1] / (height * width)
        if fps is None or keeps_up(measured_ms * (FIXED + (1 - FIXED) * pixels), fps):
            return wanted
    return None


def keeps_up(ms: float, fps: float) -> bool:
    """Whether a step of `ms` leaves time for flow and the sinks within a frame's period."""
    return ms + FLOW_MS < KEEPS_UP * 1000 / (fps or USUAL_FPS)
