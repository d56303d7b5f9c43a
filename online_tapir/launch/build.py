"""Builds a run from its configuration: opens everything that it names, outputs before the model and the camera."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from online_tapir.camera import Awaited, Camera, Capture, Reconnect, can_come_back, open_camera
from online_tapir.camera.demo import DemoCamera
from online_tapir.control.protocol import DEFAULT_ADDRESS as CONTROL_ADDRESS
from online_tapir.control.server import ControlServer
from online_tapir.engines.choose import choose, make
from online_tapir.errors import CameraError, ConfigError
from online_tapir.files import refuse_overwriting
from online_tapir.flow.model_thread import ModelThread
from online_tapir.flow.tracker import FlowTracker
from online_tapir.launch import pace, sizes
from online_tapir.launch.config import (
    DEFAULT_POINTS,
    LiveConfig,
    ModelConfig,
    OutputConfig,
    PointsConfig,
    SourceConfig,
    ViewerConfig,
)
from online_tapir.launch.threads import check_threads, set_threads, usable_cpus
from online_tapir.live.run import Run
from online_tapir.live.sink import Sink
from online_tapir.live.state_keeper import StateKeeper
from online_tapir.live.status import Status
from online_tapir.live.stream import Stream
from online_tapir.live.truth import DemoTruth
from online_tapir.model.checkpoint import load_model
from online_tapir.model.coordinates import Size
from online_tapir.model.tapir import Tapir
from online_tapir.points.placement import NOWHERE, Corners, MaskPoints, PointSource, parse_points
from online_tapir.recording.tables import Settings
from online_tapir.recording.writer import RecordingWriter
from online_tapir.sinks.background import WriterSink
from online_tapir.sinks.painted_video import PaintedVideo
from online_tapir.sinks.rerun.mode import RerunMode, default_mode, parse_rerun_mode
from online_tapir.sinks.rerun.viewer import RerunViewer
from online_tapir.sinks.systemd import Watchdog
from online_tapir.sinks.zmq import ZmqPublisher
from online_tapir.tracking.state_file import input_of
from online_tapir.tracking.tracker import Tracker, warm_up
from online_tapir.wire.security import Access, load_keys

if TYPE_CHECKING:
    from online_tapir.window.click import ClickWindow

WARM_UP_POINTS = 64

Report = Callable[[str], None]


@contextmanager
def opened(configs: Sequence[LiveConfig], status: Status, stop: threading.Event) -> Iterator[Callable[[], None]]:
    """Opens all that one camera's configuration or several need; yields the function that runs them until the end.

    Model, viewer and network are those of the first configuration. The run ends when every source has ended or `stop`
    is set. Raises ConfigError for invalid settings; CameraError, WeightsError, PublishError or StateError for what
    cannot be opened.
    """
    first, report = configs[0], status.note
    for config in configs:
        check(config)
    with ExitStack() as held:
        # Sinks first: subscribers and viewers find them while the model loads, and miss no frame of a file.
        sinks = [held.enter_context(closing(sink)) for sink in _sinks(first, report)]
        own: list[list[Sink]] = [
            [held.enter_context(closing(writer)) for writer in _writers(config, report)] for config in configs
        ]
        window = _window(first.viewer)
        if window is not None:
            own[0].append(window)
        parts = _Parts(held, _model(first.model), status, stop, [*sinks, *(sink for some in own for sink in some)])
        if len(configs) > 1:
            parts.thread = held.enter_context(closing(ModelThread()))
        opening = held.enter_context(ExitStack())
        streams = [
            _stream(config, parts, opening, mine, len(configs)) for config, mine in zip(configs, own, strict=True)
        ]
        pipeline = first.model.pipeline and all(stream.tracker.overlaps for stream in streams)
        mine = dict(zip(streams, own, strict=True))
        run = Run(streams, [*sinks, status], stop, own=mine, frames=first.source.frames, pipeline=pipeline)
        opening.pop_all()  # from here on its captures close the cameras
        yield run.go if window is None else partial(window.beside, run.go, stop)


@dataclass(slots=True)
class _Parts:
    """What the streams of a run share while they are built."""

    held: ExitStack
    model: Tapir
    status: Status
    stop: threading.Event
    sinks: Sequence[Sink]  # all of them
    thread: ModelThread | None = None  # of several models; None for one
    names: set[str] = field(default_factory=set)  # of the cameras so far


def _another(name: str, taken: set[str]) -> str:
    """A name like `name` that no camera has."""
    return next(other for number in count(2) if (other := f"{name}-{number}") not in taken)


def _stream(config: LiveConfig, parts: _Parts, opening: ExitStack, sinks: list[Sink], cameras: int) -> Stream:
    """One camera's stream; `opening` closes the camera if anything fails. `cameras` share the processor."""
    report = parts.status.note
    saved = _state_to_resume(config.output)
    points = _points(config.points, resumed=saved is not None)
    open_source = _opener(config.source, report)
    camera = _first_opening(config.source, open_source)
    opening.callback(camera.close)
    if camera.name in parts.names and config.source.name is None:
        camera.name = _another(camera.name, parts.names)
        open_source = _opener(replace(config.source, name=camera.name), report)  # it keeps the name when it comes back
    elif camera.name in parts.names:
        raise ConfigError(f"two cameras are called {camera.name!r}; give each its own name")
    parts.names.add(camera.name)
    flows = config.model.flow == "on" or (config.model.flow == "auto" and camera.live)
    paced = flows and (camera.live or config.source.realtime)
    fps = cameras * (camera.fps or pace.USUAL_FPS) if camera.live or config.source.realtime else None
    model_alone = make_tracker(
        parts.model,
        config.model,
        config.points,
        camera.size,
        fps=fps,
        paced=paced,
        resumed=None if saved is None else input_of(saved),
        report=report,
    )
    tracker: Tracker | FlowTracker = model_alone
    if flows:
        tracker = parts.held.enter_context(_running(with_flow(model_alone, paced, parts.thread)))
    _resume(tracker, saved, config.output, report)
    keeper = _keeper(config.output, tracker, report)
    if keeper is not None:
        sinks.append(parts.held.enter_context(keeper))
    report(camera.description)
    if isinstance(camera, DemoCamera):
        sinks.append(DemoTruth(camera.scene, parts.status.judge))
    reopen = open_source if can_come_back(config.source.camera) else None
    return Stream(
        Capture(camera, reopen=reopen, reconnect=_reconnect(config.source), report=report),
        tracker,
        parts.stop,
        points=points,
        replenish=config.points.replenish,
        heartbeat_s=config.network.heartbeat,
        keeper=keeper,
        inspect=config.points.inspect,
        shows_inspection=lambda: any(sink.shows_inspection for sink in parts.sinks),
        report=report,
    )


def check(config: LiveConfig) -> None:
    """Raises ConfigError where two settings contradict each other, or an output would overwrite something."""
    output, viewer = config.output, config.viewer
    if config.points.inspect is not None and viewer.rerun == "off" and not viewer.window:
        raise ConfigError("--inspect shows a point in Rerun or in a window; leave out --rerun off, or add --window")
    if output.save_state is None and output.save_state_every is not None:
        raise ConfigError("--save-state-every says how often to save, but not where; add --save-state FILE")
    check_threads(config.model.threads)
    mode = _rerun_mode(config)
    refuse_overwriting(
        {"--save-video": output.save_video, "--rerun save=": Path(mode.target) if mode.way == "save" else None},
        {
            "--camera": _file(config.source.camera),
            "--points": None if config.points.points is None else _file(config.points.points),
            "--mask": config.points.mask,
            "--model": _file(config.model.model),
            "--weights": config.model.weights,
            "--save-state": output.save_state,
            "--resume": None if output.resume == output.save_state else output.resume,
        },
        overwrite=output.overwrite,
    )
    refuse_overwriting(
        {"--save-state": output.save_state},
        {
            "--camera": _file(config.source.camera),
            "--mask": config.points.mask,
            "--model": _file(config.model.model),
            "--weights": config.model.weights,
        },
        overwrite=True,  # a state replaces the one before; `state_file` refuses to replace any other file
    )


def _model(model: ModelConfig) -> Tapir:
    return load_model(
        model.model,
        weights=model.weights,
        device=model.device,
        dtype=model.dtype,
        iterations=model.iterations,
        visible_above=model.visible_above,
    )


def make_tracker(
    loaded: Tapir,
    model: ModelConfig,
    points: PointsConfig,
    frame: tuple[int, int],
    *,
    fps: float | None = None,
    paced: bool = False,
    resumed: Size | None = None,
    report: Report = lambda note: None,
) -> Tracker:
    """The tracker that these settings describe for frames of size `frame` (width, height), warmed up.

    `fps` is the rate of frames that do not wait, 0 if it is unknown, None if they do wait. Beside flow (`paced`) a
    model that does not keep up gets one thread less than there are CPUs. A resumed run goes on with the input size
    `resumed`.
    """
    device = str(next(loaded.parameters()).device)
    choice = choose(model.engine, loaded.config.name, device, model.dtype)
    if model.resolution is not None and choice.runtime is not None:
        if model.engine != "auto":
            raise ConfigError(f"--engine {model.engine} refines at the input size only; leave out --resolution")
        choice = choose("torch", loaded.config.name, device, model.dtype)
    engine = make(choice, set_threads(model.threads), report)
    rows = min(points.max_points, WARM_UP_POINTS)
    wanted = resumed
    if wanted is None and model.input != "auto":
        wanted = sizes.input_size(model.input, frame)
    free = device == "cpu" and model.resolution is None and loaded.config.name in pace.FREE_INPUT
    measured_ms = None
    if free and wanted is None and model.input == "auto":
        measured_ms = pace.step_ms(loaded, engine, rows)
        wanted = pace.largest_input(loaded, measured_ms, frame, fps)
    sized = loaded if wanted is None else loaded.at(wanted)
    if measured_ms is None or sized is not loaded:
        measured_ms = pace.step_ms(sized, engine, rows)  # this also warms up
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
    return Tracker(
        sized,
        max_points=points.max_points,
        window=points.window_frames,
        resolution=sizes.resolution(model.resolution),
        require_kernels=model.require_kernels,
        engine=engine,
    )


@contextmanager
def _running(tracker: FlowTracker) -> Iterator[FlowTracker]:
    """Closes the tracker at the end; raises the model's own error if it came after the last frame was collected."""
    with closing(tracker):
        yield tracker
    tracker.raise_error()


def with_flow(tracker: Tracker, paced: bool, thread: ModelThread | None = None) -> FlowTracker:
    """`tracker` with optical flow between its answers; frames that are not `paced` by a clock wait for the model's.

    The models of several trackers share a `thread`.
    """
    import cv2

    cv2.setNumThreads(1)
    return FlowTracker(tracker, waits=not paced, thread=thread)


def _opener(source: SourceConfig, report: Report) -> Callable[[], Camera]:
    return partial(
        open_camera,
        source.camera,
        size=sizes.frame_size(source.size),
        fps=source.fps,
        realtime=source.realtime,
        loop=source.loop,
        name=source.name,
        timeout_s=source.stall_timeout,
        report=report,
    )


def _reconnect(source: SourceConfig) -> Reconnect:
    return Reconnect(
        attempts=source.reconnect_attempts if source.reconnect else 0,  # a stall is still detected
        longest_wait_s=source.reconnect_wait,
        stall_timeout_s=source.stall_timeout,
    )


def _first_opening(source: SourceConfig, open_source: Callable[[], Camera]) -> Camera:
    """The camera; a placeholder (`Awaited`) if it cannot be opened yet and should be waited for."""
    wait = source.wait if source.wait is not None else "://" in source.camera
    try:
        return open_source()
    except CameraError as error:
        if not (wait and source.reconnect and can_come_back(source.camera)) or source.reconnect_attempts == 0:
            raise
        return Awaited(source.camera, source.name, error)


def _points(points: PointsConfig, resumed: bool) -> PointSource:
    if points.mask is not None:
        if points.points is not None:
            raise ConfigError("--points and --mask both say what to follow; give one of them")
        return MaskPoints(points.mask, points.mask_id)
    if points.points is not None:
        return parse_points(points.points)
    return NOWHERE if resumed else Corners(min(DEFAULT_POINTS, points.max_points))


def _state_to_resume(output: OutputConfig) -> Path | None:
    """The file to resume from; None if it is also the --save-state file and does not exist yet."""
    if output.resume is not None and output.resume == output.save_state and not output.resume.exists():
        return None
    return output.resume


def _resume(tracker: Tracker | FlowTracker, saved: Path | None, output: OutputConfig, report: Report) -> None:
    if saved is not None:
        state = tracker.load_state(saved)
        when = datetime.fromtimestamp(state.saved_unix_ns / 1e9).astimezone().isoformat(" ", "seconds")
        report(f"continuing with {state.points} points saved to {saved} at {when}, on frame {state.frame_id}")
    elif output.resume is not None:
        report(f"{output.resume} does not exist yet: this run begins without saved points")


def _keeper(output: OutputConfig, tracker: Tracker | FlowTracker, report: Report) -> StateKeeper | None:
    if output.save_state is None:
        return None
    return StateKeeper(output.save_state, tracker, every_s=output.save_state_every, report=report)


def _sinks(config: LiveConfig, report: Report) -> Iterator[Sink]:
    """Opens the sinks that serve every camera; metrics last, so that their latencies include the others."""
    network, access = config.network, _access(config, report)
    if network.publish != "off":
        publisher = ZmqPublisher(network.publish, access=access)
        report(f"publishing on {publisher.address}")
        yield publisher
    if (watchdog := Watchdog.asked_for(os.environ)) is not None:
        yield watchdog
    yield from _rerun(config, report)
    yield from _control(config, access, report)
    if network.metrics is not None:
        from online_tapir.sinks.metrics import Metrics

        metrics = Metrics(network.metrics, access=access)
        report(f"metrics at {metrics.url}")
        yield metrics


def _access(config: LiveConfig, report: Report) -> Access:
    """Who may subscribe and control."""
    network = config.network
    if network.insecure:
        report("--insecure: where an address is open to other machines, anyone there can read or control this run")
    return Access(None if network.keys is None else load_keys(network.keys), network.insecure, report)


def _control(config: LiveConfig, access: Access, report: Report) -> Iterator[ControlServer]:
    asked = config.network.control
    if asked == "off":
        return
    try:
        control = ControlServer(asked or CONTROL_ADDRESS, access=access)
    except ConfigError as error:
        if asked is not None:
            raise
        report(f"no control socket: {error}")  # a second tracker on this machine needs no flag
        return
    report(f"control at {control.address}")
    yield control


def _writers(config: LiveConfig, report: Report) -> Iterator[WriterSink]:
    """Opens what is written of one camera."""
    output, model = config.output, config.model
    if output.record is not None:
        settings = Settings(
            model=model.model,
            weights=None if model.weights is None else str(model.weights),
            dtype=model.dtype,
            iterations=model.iterations,
            visible_above=model.visible_above,
            resolution=model.resolution,
            engine=model.engine,
            max_points=config.points.max_points,
            window=config.points.window_frames,
            threads=model.threads,
        )
        writer = RecordingWriter(output.record, settings, output.record_video)
        yield WriterSink(writer, f"the recording {output.record}", report=report)
    if output.save_video is not None:
        video = PaintedVideo(output.save_video, config.viewer.color)
        yield WriterSink(video, f"the video {output.save_video}", report=report)


def _window(viewer: ViewerConfig) -> "ClickWindow | None":
    if not viewer.window:
        return None
    from online_tapir.window.click import ClickWindow

    return ClickWindow(color=viewer.color)


def _rerun_mode(config: LiveConfig) -> RerunMode:
    if config.viewer.rerun is not None:
        return parse_rerun_mode(config.viewer.rerun)
    return RerunMode("off") if config.viewer.window else default_mode(os.environ)[0]


def _rerun(config: LiveConfig, report: Report) -> Iterator[RerunViewer]:
    viewer, mode = config.viewer, _rerun_mode(config)
    if viewer.rerun is None and not viewer.window:
        report(default_mode(os.environ)[1])
    if mode.way != "off":
        yield RerunViewer(
            mode,
            color=viewer.color,
            fps=viewer.rerun_fps,
            longest_side=viewer.rerun_size,
            memory=viewer.rerun_memory,
            report=report,
        )


def _file(text: str) -> Path | None:
    """The existing file or folder that a setting names; None where it names something else."""
    path = Path(text).expanduser()
    try:
        return path if path.exists() else None
    except OSError:  # too long for a name, for instance
        return None
