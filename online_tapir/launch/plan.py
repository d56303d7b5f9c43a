"""Decides how the model runs for a camera: by which engine, at which input size, alone or in a rig with others."""

import threading
from contextlib import ExitStack
from dataclasses import dataclass

from online_tapir.engines.choose import choose_for, make
from online_tapir.engines.engine import Engine
from online_tapir.errors import ConfigError
from online_tapir.launch import pace, sizes
from online_tapir.launch.config import LiveConfig, ModelConfig, PointsConfig
from online_tapir.launch.outputs import Report
from online_tapir.launch.pace import Needs
from online_tapir.launch.threads import set_threads, usable_cpus
from online_tapir.model.checkpoint import load_model
from online_tapir.model.config import Size
from online_tapir.model.tapir import Tapir
from online_tapir.tracking.rig import Rig
from online_tapir.tracking.state_file import input_of
from online_tapir.tracking.templates import Templates
from online_tapir.tracking.tracker import Resolution, Tracker, warm_up

WARM_UP_POINTS = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a tracker, chosen for a camera and this machine."""

    model: Tapir  # at the input size
    max_points: int
    window: int
    resolution: Resolution
    require_kernels: bool
    engine: Engine | None

    @property
    def shares(self) -> bool:
        """Whether cameras gain from a rig: on a GPU, which computes a batch in little more time than one frame."""
        return next(self.model.parameters()).device.type == "cuda" and self.resolution is None

    def tracker(self) -> Tracker:
        """A tracker with a memory of its own."""
        return Tracker(
            self.model,
            self.max_points,
            self.window,
            self.resolution,
            require_kernels=self.require_kernels,
            engine=self.engine,
        )

    def rig(self, lanes: int) -> Rig:
        """A rig for so many cameras with these settings."""
        return Rig(self.model, lanes, self.max_points, self.window, require_kernels=self.require_kernels)

    def fits(self, rig: Rig) -> bool:
        """Whether a camera with this plan may have a lane of the rig."""
        own, its = self.model.config.initial_resolution, rig.lane(0)
        return (own, self.max_points, self.window) == (
            its.model.config.initial_resolution,
            its.max_points,
            its.window,
        )


class ModelTrackers:
    """Makes the trackers of a run's cameras on one model (`trackers.Trackers`).

    Cameras with the same input size and room share a rig where a batch saves time, on a GPU.
    """

    def __init__(self, model: Tapir) -> None:
        self.model = model
        self._rigs: list[Rig] = []
        self._lock = threading.Lock()

    def check(self, found: Templates) -> None:
        found.check(self.model)

    def make(self, config: LiveConfig, needs: Needs, held: ExitStack, report: Report) -> Tracker:
        plan = planned(
            self.model,
            config.model,
            config.points,
            needs.frame,
            fps=needs.fps,
            paced=needs.paced,
            resumed=None if needs.resumed is None else input_of(needs.resumed),
            report=report,
        )
        return self.on(plan, needs.cameras, held) if needs.flows else plan.tracker()

    def on(self, plan: Plan, cameras: int, held: ExitStack) -> Tracker:
        """The tracker of one of `cameras` cameras; its lane is given back with what is `held`."""
        if not plan.shares:
            return plan.tracker()
        with self._lock:
            rig = next((rig for rig in self._rigs if rig.free and plan.fits(rig)), None)
            if rig is None:
                rig = plan.rig(max(1, cameras - sum(rig.lanes - rig.free for rig in self._rigs)))
                self._rigs.append(rig)
            tracker = rig.take()
        held.callback(self._give_back, rig, tracker)
        return tracker

    def _give_back(self, rig: Rig, tracker: Tracker) -> None:
        with self._lock:
            rig.give_back(tracker)


def loaded(model: ModelConfig) -> Tapir:
    """The model of a configuration. Raises WeightsError."""
    return load_model(
        model.model,
        weights=model.weights,
        device=model.device,
        dtype=model.dtype,
        iterations=model.iterations,
        visible_above=model.visible_above,
    )


def planned(
    loaded: Tapir,
    model: ModelConfig,
    points: PointsConfig,
    frame: tuple[int, int],
    *,
    fps: float | None = None,
    paced: bool = False,
    resumed: Size | None = None,
    report: Report = lambda note: None,
) -> Plan:
    """The tracker that these settings describe for frames of size `frame` (width, height); the model is warmed up.

    `fps` is the rate of frames that do not wait, 0 if it is unknown, None if they do wait. Beside flow (`paced`) a
    model that does not keep up gets one thread less than there are CPUs. A resumed run goes on with the input size
    `resumed`.
    """
    device = str(next(loaded.parameters()).device)
    choice = choose_for(loaded, model.engine, model.precision)
    if model.resolution is not None and choice.runtime is not None:
        if model.engine != "auto":
            raise ConfigError(f"--engine {model.engine} refines at the input size only; leave out --resolution")
        choice = choose_for(loaded, "torch", model.precision)
    if model.precision not in ("auto", choice.precision):
        report(f"--precision {model.precision} is {choice.precision} here: {choice.why}")
    engine = make(choice, set_threads(model.threads), report)
    rows = min(points.max_points, WARM_UP_POINTS)
    wanted = resumed
    if wanted is None and model.input != "auto":
        wanted = sizes.input_size(model.input, frame, auto=True)
    free = device == "cpu" and model.resolution is None and loaded.config.name in pace.FREE_INPUT
    measured_ms = None
    if free and wanted is None and model.input == "auto":
        measured_ms = _step_ms(loaded, engine, rows)
        wanted = pace.largest_input(loaded, measured_ms, frame, fps)
    sized = loaded if wanted is None else loaded.at(wanted)
    if measured_ms is None or sized is not loaded:
        measured_ms = _step_ms(sized, engine, rows)  # this also warms up
    if paced and model.threads is None and device == "cpu" and not pace.keeps_up(measured_ms, fps or 0):
        threads = set_threads(max(1, usable_cpus() - 1))
        if engine is not None:
            engine.use(threads)
        warm_up(sized, rows, engine)
    height, width = sized.config.initial_resolution
    report(
        f"model {sized.config.name} at {width}x{height} on {device} by {engine.name if engine else 'torch'}: "
        f"{measured_ms:.0f} ms for {rows} points"
    )
    return Plan(
        sized,
        max_points=points.max_points,
        window=points.window_frames,
        resolution=sizes.resolution(model.resolution),
        require_kernels=model.require_kernels,
        engine=engine,
    )


def _step_ms(model: Tapir, engine: Engine | None, points: int) -> float:
    tracker = Tracker(model, max_points=points, window=1, engine=engine)
    return pace.step_ms(tracker, model.config.initial_resolution, points)
