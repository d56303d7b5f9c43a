"""Step time by number of points: `Tracker.step` at each resolution and preset, compared with OpenCV.

Each setting has its own tracker, which steps once per round, so that other load on the machine affects all of them
equally; a slow setting stops after --seconds. At each resolution all trackers see the same frames: a texture slides
back and forth, and no point leaves the frame. Published presets run with random weights, which cost the same as trained
ones.

A cost of `fixed + points x marginal` is fitted to the medians by least squares on the relative error, so that 1 point
weighs as much as 4096. `top_over_fit` is the cost per point between the two largest numbers of points, over the fitted
marginal cost: 1 if growth stays linear, more if it is worse, null if a point costs next to nothing.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import count, pairwise
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from cyclopts import Parameter
from cyclopts.validators import Number
from numpy.typing import NDArray

from bench.command import BenchError, Count, JsonFile, PlotFile, pixels, run
from bench.compare import MARGIN, made_up, ours, scattered, sliding_texture
from bench.report import Spread, finish, print_table
from online_tapir.evaluation.baselines import DenseFlow, LucasKanade, PointTracker
from online_tapir.model.checkpoint import choose_device, load_model
from online_tapir.model.config import preset
from online_tapir.model.tapir import Tapir
from online_tapir.tracking.tracker import Tracker

PUBLISHED = ("bootstapir", "tapir")
PEERS = {"LK": LucasKanade, "DIS flow": DenseFlow}
STAGES = ("upload", "encode", "match", "refine", "download")
LEAST_FRAMES = 3  # per setting, however slow
LINEAR = 1.25  # top_over_fit up to which growth is called linear
INTERVAL = (
    "a step: from the image in memory to the positions in memory, without camera or sinks; the first warm_up steps "
    "of each setting are excluded"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which trackers to step, and how often."""

    models: Annotated[
        tuple[str, ...], Parameter(help="Presets or .safetensors files.", consume_multiple=True, negative=())
    ] = ("small",)
    points: Annotated[
        tuple[int, ...], Parameter(help="Numbers of points to track.", consume_multiple=True, negative=())
    ] = (
        1,
        4,
        16,
        64,
        256,
        1024,
        2048,
        4096,
    )
    resolutions: Annotated[
        tuple[str, ...],
        Parameter(
            help="Frame and refinement resolutions, WIDTHxHEIGHT; multiples of 8.", consume_multiple=True, negative=()
        ),
    ] = ("256x256",)
    devices: Annotated[tuple[str, ...], Parameter(help="auto, cpu, cuda, ...", consume_multiple=True, negative=())] = (
        "auto",
    )
    peers: Annotated[bool, Parameter(help="Also OpenCV's Lucas-Kanade and DIS flow, on the same frames.")] = True
    frames: Annotated[int, Parameter(help="Frames to measure per setting.", validator=Number(gte=LEAST_FRAMES))] = 30
    warm_up: Annotated[int, Parameter(help="Warm-up frames before measuring.", validator=Count)] = 3
    seconds: Annotated[
        float, Parameter(help=f"A setting stops after this time, once it has {LEAST_FRAMES} frames.")
    ] = 5.0
    threads: Annotated[
        int | None, Parameter(help="CPU threads. [default: torch's and OpenCV's choice]", validator=Count)
    ] = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A tracker at one resolution; its cost is measured by number of points."""

    tracker: str
    device: str
    resolution: str

    def __str__(self) -> str:
        return f"{self.tracker}, {self.resolution} on {self.device}"


@dataclass(slots=True, eq=False)
class Setting:
    """A tracker with `points` points, and the times of its steps."""

    curve: Curve
    points: int
    tracker: PointTracker
    ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def step(self, rgb: NDArray[np.uint8]) -> None:
        start = time.perf_counter_ns()
        tracks = self.tracker.step(rgb)
        self.ms.append((time.perf_counter_ns() - start) / 1e6)
        for stage in STAGES:
            self.stages_ms[stage].append(getattr(tracks.times, stage) / 1e6)

    def has_enough(self, frames: int, warm_up: int, seconds: float) -> bool:
        """Whether `frames` frames were measured, or at least LEAST_FRAMES over more than `seconds`."""
        measured = self.ms[warm_up:]
        return len(measured) >= frames or (len(measured) >= LEAST_FRAMES and sum(measured) > seconds * 1e3)


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Time steps by number of points, fit a fixed cost and a cost per point, and report whether growth is linear."""
    if len(set(settings.points)) < 2:
        raise BenchError(f"--points {settings.points} gives no curve; give at least two numbers of points")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
        cv2.setNumThreads(settings.threads)
    measured = list(all_settings(settings))
    step_all(measured, settings)
    runs = [result(one, settings.warm_up) for one in measured]
    fits = [{"setting": curve, **fit_of(curve, runs)} for curve in dict.fromkeys(one.curve for one in measured)]
    for one in fits:
        steps = {f"{run['setting']['points']} points": run["ms"] for run in runs_of(one["setting"], runs)}
        facts = {name: value for name, value in one.items() if name != "setting"}
        print_table(f"{one['setting']}; ms a step, without {settings.warm_up} warm-up frames", steps, facts)
    finish("scale", settings, {"runs": runs, "fits": fits}, json, plot, interval=INTERVAL)


def all_settings(settings: Settings) -> Iterator[Setting]:
    """Every tracker at every resolution with every number of points, fewest first."""
    for resolution in settings.resolutions:
        width, height = pixels(resolution)
        for points in sorted(set(settings.points)):
            xy = scattered(points, width, height)
            for name in settings.models:
                for device in dict.fromkeys(str(choose_device(device)) for device in settings.devices):
                    tracker = Tracker(model(name, device), points, window=1, resolution=(height, width))
                    tracker.add(xy)
                    yield Setting(Curve(name, device, resolution), points, tracker)
            for name, make in PEERS.items() if settings.peers else ():
                peer = make()
                peer.add(xy)
                yield Setting(Curve(name, "cpu", resolution), points, peer)


def step_all(measured: Sequence[Setting], settings: Settings) -> None:
    """Steps all settings in turn, frame by frame, until each has enough frames."""
    for index in count():
        waiting = [one for one in measured if not one.has_enough(settings.frames, settings.warm_up, settings.seconds)]
        if not waiting:
            return
        for one in waiting:
            frames = to_and_fro(one.curve.resolution)
            one.step(frames[index % len(frames)])


@cache
def model(name: str, device: str) -> Tapir:
    """A model with its own weights, or random ones for a published preset, whose weights would be downloaded."""
    return ours(name, made_up(preset(name)), device) if name in PUBLISHED else load_model(name, device=device)


@cache
def to_and_fro(resolution: str) -> list[NDArray[np.uint8]]:
    """Frames to be shown in a loop: a texture that slides by up to MARGIN pixels, and back."""
    there = list(sliding_texture(MARGIN // 2, *pixels(resolution)))
    return there + there[-2:0:-1]


def result(one: Setting, warm_up: int) -> dict[str, Any]:
    """The figures of one setting; stages are medians, and empty for a tracker that does not report them."""
    stages = {stage: round(float(np.median(ms[warm_up:])), 4) for stage, ms in one.stages_ms.items()}
    return {
        "setting": {**asdict(one.curve), "points": one.points},
        "ms": Spread.of(one.ms[warm_up:]),
        "stages_ms_p50": stages if isinstance(one.tracker, Tracker) else {},
        "bytes_per_point": one.tracker.bytes_per_point if isinstance(one.tracker, Tracker) else None,
    }


def runs_of(curve: Curve, runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The runs of one curve, sorted by number of points."""
    own = [run for run in runs if asdict(curve).items() <= run["setting"].items()]
    return sorted(own, key=lambda run: int(run["setting"]["points"]))


def fit_of(curve: Curve, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    own = runs_of(curve, runs)
    points = [run["setting"]["points"] for run in own]
    medians = [run["ms"].p50 for run in own]
    fixed_ms, marginal_ms = fit(points, medians)
    top = top_over_fit(points, medians, marginal_ms)
    return {
        "fixed_ms": round(fixed_ms, 4),
        "us_a_point": round(1e3 * marginal_ms, 4),
        "top_over_fit": None if top is None else round(top, 3),
        "linear_or_better": top is None or top <= LINEAR,
        "bytes_per_point": own[-1]["bytes_per_point"],
    }


def fit(points: Sequence[int], medians_ms: Sequence[float]) -> tuple[float, float]:
    """Fits a fixed cost and a cost per point, in ms, to medians [K], by least squares on the relative error."""
    ms = np.array(medians_ms)  # [K]
    terms = np.stack([np.ones(len(ms)), np.array(points)], axis=1)  # [K, 2]
    fixed, marginal = np.linalg.lstsq(terms / ms[:, None], np.ones(len(ms)), rcond=None)[0]
    return float(fixed), float(marginal)


def top_over_fit(points: Sequence[int], medians_ms: Sequence[float], marginal_ms: float) -> float | None:
    """Cost per point between the two largest numbers of points, over the fitted one; None if a point is almost free."""
    (few, many), (before, after) = list(pairwise(points))[-1], list(pairwise(medians_ms))[-1]
    if marginal_ms * many <= 0.01 * after:
        return None  # what is left is noise
    return (after - before) / (many - few) / marginal_ms


if __name__ == "__main__":
    run(main)
