"""The command line: `online-tapir` itself tracks; sub-commands stand beside it. A user's error exits with 2.

Each command imports what it needs when it runs, so that `online-tapir listen` starts without torch.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from rich.console import Console

from online_tapir.cli.control import control_app
from online_tapir.cli.keys import keys_app
from online_tapir.cli.weights import weights_app
from online_tapir.control.protocol import DEFAULT_ADDRESS as CONTROL_ADDRESS
from online_tapir.errors import ConfigError, OnlineTapirError
from online_tapir.launch.config import LiveConfig
from online_tapir.sinks.zmq import DEFAULT_ADDRESS
from online_tapir.train.config import TrainConfig
from online_tapir.wire.security import Access, load_keys

if TYPE_CHECKING:
    from online_tapir.camera import Camera, Reconnect
    from online_tapir.control.server import ControlServer
    from online_tapir.live.state_keeper import StateKeeper
    from online_tapir.points.placement import PointSource
    from online_tapir.recording.writer import Writer
    from online_tapir.records import Sink
    from online_tapir.sinks.metrics import Metrics
    from online_tapir.tracking.tracker import Resolution, Tracker
    from online_tapir.window.click import ClickWindow

USER_ERROR = 2
WARM_UP_POINTS = 64


def _version() -> str:
    from importlib.metadata import version

    return version("online-tapir")


app = App(
    name="online-tapir",
    help="Follow points on live video: published over ZeroMQ, shown in Rerun. --debug shows the traceback of an error.",
    version=_version,
)

for sub_commands in (weights_app, control_app, keys_app):
    app.command(sub_commands)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line and exits: 0 when all went well, 2 for a user's error."""
    # OpenMP's threads spin while they wait, and beside other work on the same cores that costs a frame seconds. They
    # are told to sleep sooner, which costs nothing on idle cores but must be said before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        app(
            [word for word in words if word != "--debug"],
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except (OnlineTapirError, CycloptsError) as error:
        if debug:
            traceback.print_exc()
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]online-tapir:[/] {_plain(str(error))}")
        sys.exit(USER_ERROR)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@app.default
def live(config: Annotated[LiveConfig, Parameter(name="*")] = LiveConfig()) -> None:  # noqa: B008  frozen
    """Track a camera until it ends or Ctrl-C, publish the tracks, show them."""
    from online_tapir.camera import can_come_back
    from online_tapir.live.run import track_live
    from online_tapir.live.status import open_status
    from online_tapir.model.checkpoint import load_model
    from online_tapir.tracking.tracker import Tracker, warm_up

    _check_shown(config)
    saved = _to_resume(config)
    points, resolution = _point_source(config, resumed=saved is not None), _resolution(config.resolution)
    open_source, reconnect = _source(config)
    with closing(open_status(quiet=config.quiet, json_log=config.json_log)) as status, _stop_on_signal() as stop:
        with ExitStack() as opened:
            # Sinks first: subscribers and viewers find them while the model loads, and miss no frame of a file.
            access = _access(config, status.note)
            sinks = [opened.enter_context(closing(sink)) for sink in _open_sinks(config, access, status.note)]
            if (window := _open_window(config)) is not None:
                sinks.append(window)
            metrics = _open_metrics(config, access, status.note)
            if metrics is not None:
                sinks.append(opened.enter_context(closing(metrics)))
            control = _open_control(config, access, status.note)
            if control is not None:
                opened.enter_context(closing(control))
            _set_threads(config.threads)
            model = load_model(
                config.model,
                weights=config.weights,
                device=config.device,
                dtype=config.dtype,
                iterations=config.iterations,
            )
            warm_up(model, min(config.max_points, WARM_UP_POINTS))
            tracker = Tracker(
                model,
                max_points=config.max_points,
                window=config.window_frames,
                resolution=resolution,
                require_kernels=config.require_kernels,
            )
            _resume(tracker, saved, config, status.note)
            keeper = _keeper(config, tracker, status.note)
            if keeper is not None:
                opened.enter_context(keeper)
            camera = open_source()
            status.note(f"{camera.description}; model {model.config.name} on {next(model.parameters()).device}")
            track = partial(
                track_live,
                camera,
                tracker,
                points,
                sinks,
                status,
                stop,
                frames=config.frames,
                replenish=config.replenish,
                heartbeat_s=config.heartbeat,
                pipeline=config.pipeline and tracker.overlaps,
                control=control,
                metrics=metrics,
                keeper=keeper,
                inspect=config.inspect,
                window=window,
                reopen=open_source if can_come_back(config.camera) else None,
                reconnect=reconnect,
            )
            if window is None:
                track()
            else:
                window.beside(track, stop)
        status.finish()


def _check_shown(config: LiveConfig) -> None:
    if config.inspect is not None and config.rerun == "off" and not config.window:
        raise ConfigError("--inspect shows a point in Rerun or in a window; leave --rerun off out, or add --window")


def _source(config: LiveConfig) -> tuple[Callable[[], "Camera"], "Reconnect"]:
    """What opens the camera, at first and again, and what is done when it fails."""
    from online_tapir.camera import Reconnect, open_camera

    open_source = partial(
        open_camera,
        config.camera,
        size=_size(config.size),
        fps=config.fps,
        realtime=config.realtime,
        timeout_s=config.stall_timeout,
    )
    reconnect = Reconnect(
        attempts=config.reconnect_attempts if config.reconnect else 0,  # a stall is seen all the same
        longest_wait_s=config.reconnect_wait,
        stall_timeout_s=config.stall_timeout,
    )
    return open_source, reconnect


def _point_source(config: LiveConfig, resumed: bool) -> "PointSource":
    from online_tapir.points.placement import NOWHERE, MaskPoints, parse_points

    if resumed and config.mask is None and config.points is None:
        return NOWHERE
    if config.mask is None:
        return parse_points("auto:64" if config.points is None else config.points)
    if config.points is not None:
        raise ConfigError("--points and --mask both say what to follow; give one of them")
    return MaskPoints(config.mask, config.mask_id)


def _to_resume(config: LiveConfig) -> Path | None:
    """The file to go on from; None where this run begins anew, the first of those that save to it and go on from it."""
    if config.save_state is None and config.save_state_every is not None:
        raise ConfigError("--save-state-every says how often, and nothing says where; add --save-state FILE")
    if config.resume is not None and config.resume == config.save_state and not os.path.exists(config.resume):
        return None
    return config.resume


def _resume(tracker: "Tracker", saved: Path | None, config: LiveConfig, note: Callable[[str], None]) -> None:
    if saved is not None:
        state = tracker.load_state(saved)
        when = datetime.fromtimestamp(state.saved_unix_ns / 1e9).astimezone().isoformat(" ", "seconds")
        note(f"going on with the {state.points} points that were saved to {saved} at {when}, on frame {state.frame_id}")
    elif config.resume is not None:
        note(f"{config.resume} is not there yet: this run begins without saved points")


def _keeper(config: LiveConfig, tracker: "Tracker", note: Callable[[str], None]) -> "StateKeeper | None":
    if config.save_state is None:
        return None
    from online_tapir.live.state_keeper import StateKeeper

    return StateKeeper(config.save_state, tracker, every_s=config.save_state_every, report=note)


def _access(config: LiveConfig, note: Callable[[str], None]) -> Access:
    """Who may subscribe and control."""
    if config.insecure:
        note("--insecure: where an address is open to other machines, anyone there can read or control this run")
    return Access(None if config.keys is None else load_keys(config.keys), config.insecure, note)


def _open_control(config: LiveConfig, access: Access, note: Callable[[str], None]) -> "ControlServer | None":
    if config.control == "off":
        return None
    from online_tapir.control.server import ControlServer

    try:
        control = ControlServer(config.control or CONTROL_ADDRESS, access=access)
    except ConfigError as error:
        if config.control is not None:
            raise
        note(f"not controlled: {error}")  # a second tracker on this machine needs no flag
        return None
    note(f"controlled at {control.address}")
    return control


def _open_window(config: LiveConfig) -> "ClickWindow | None":
    if not config.window:
        return None
    from online_tapir.window.click import ClickWindow

    return ClickWindow(color=config.color)


def _open_metrics(config: LiveConfig, access: Access, note: Callable[[str], None]) -> "Metrics | None":
    if config.metrics is None:
        return None
    from online_tapir.sinks.metrics import Metrics

    metrics = Metrics(config.metrics, access=access)
    note(f"metrics at {metrics.url}")
    return metrics


def _open_sinks(config: LiveConfig, access: Access, note: Callable[[str], None]) -> Iterator["Sink"]:
    if config.publish != "off":
        from online_tapir.sinks.zmq import ZmqPublisher

        publisher = ZmqPublisher(config.publish, access=access)
        note(f"publishing on {publisher.address}")
        yield publisher
    yield from _open_writers(config, note)
    from online_tapir.sinks.systemd import Watchdog

    if (watchdog := Watchdog.asked_for(os.environ)) is not None:
        yield watchdog
    from online_tapir.sinks.rerun.viewer import RerunViewer, default_mode, parse_rerun_mode

    if config.rerun is None and config.window:
        return
    if config.rerun is None:
        mode, why = default_mode(os.environ)
        note(why)
    else:
        mode = parse_rerun_mode(config.rerun)
    if mode.way != "off":
        yield RerunViewer(
            mode,
            color=config.color,
            fps=config.rerun_fps,
            longest_side=config.rerun_size,
            memory=config.rerun_memory,
            report=note,
        )


def _open_writers(config: LiveConfig, note: Callable[[str], None]) -> Iterator["Sink"]:
    if config.record is None and config.save_video is None:
        return
    from online_tapir.recording.tables import Settings
    from online_tapir.recording.writer import RecordingWriter
    from online_tapir.sinks.background import WriterSink
    from online_tapir.sinks.painted_video import PaintedVideo

    if config.record is not None:
        settings = Settings(
            model=config.model,
            weights=None if config.weights is None else str(config.weights),
            dtype=config.dtype,
            iterations=config.iterations,
            resolution=config.resolution,
            max_points=config.max_points,
            window=config.window_frames,
            threads=config.threads,
        )
        writer = RecordingWriter(config.record, settings, config.record_video)
        yield WriterSink(writer, f"the recording {config.record}", report=note)
    if config.save_video is not None:
        yield WriterSink(PaintedVideo(config.save_video, config.color), f"the video {config.save_video}", report=note)


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _size(text: str | None, flag: str = "--size") -> tuple[int, int] | None:
    """Width and height."""
    if text is None:
        return None
    width, x, height = text.lower().partition("x")
    if not (x and width.isdecimal() and height.isdecimal()):
        raise ConfigError(f"{flag} {text!r} is not WIDTHxHEIGHT; write 1280x720, for instance")
    return int(width), int(height)


def _resolution(text: str | None) -> "Resolution":
    if text == "frame":
        return "frame"
    size = _size(text, "--resolution")
    return None if size is None else (size[1], size[0])


@app.command
def cameras() -> None:
    """List the cameras of this machine."""
    from online_tapir.camera import list_cameras

    console = Console(highlight=False)
    found = list_cameras()
    for camera in found:
        console.print(str(camera))
    if not found:
        console.print("no cameras here; `online-tapir --camera demo` needs none")


@app.command
def info(*, json: Annotated[bool, Parameter(help="As JSON.", negative=())] = False) -> None:
    """Show versions, devices and what runs the kernels on each, and which models are here."""
    from online_tapir.cli.info import gather, show

    found = gather()
    if json:
        print(dumps(found.as_dict()))
    else:
        show(found, Console(highlight=False))


@app.command
def listen(
    address: str = DEFAULT_ADDRESS,
    *,
    camera: Annotated[str | None, Parameter(help="Only this camera's tracks.")] = None,
    newest: Annotated[bool, Parameter(help="Skip what is older than the newest message.", negative=())] = False,
    jsonl: Annotated[
        bool, Parameter(help="JSON lines on the standard output in place of the table.", negative=())
    ] = False,
    csv: Annotated[bool, Parameter(help="CSV on the standard output in place of the table.", negative=())] = False,
    count: Annotated[int | None, Parameter(help="Stop after this many messages.", validator=Number(gte=1))] = None,
    timeout: Annotated[float | None, Parameter(help="Give up after this many seconds without a message.")] = None,
    keys: Annotated[
        Path | None, Parameter(help="Folder of keys (see `online-tapir keys`), where the tracker asks for them.")
    ] = None,
) -> None:
    """Show what a running tracker publishes: a live table, JSON lines or CSV."""
    from online_tapir.cli.listen import live_table, write_csv, write_jsonl
    from online_tapir.wire.subscriber import subscribe

    if jsonl and csv:
        raise ConfigError("--jsonl and --csv both say how to write; give one of them")
    timeout_ms = None if timeout is None else int(timeout * 1000)
    tracks = partial(subscribe, address, camera, newest=newest, timeout_ms=timeout_ms, keys=keys)
    try:
        with suppress(KeyboardInterrupt):
            if jsonl or csv:
                with closing(tracks()) as stream:
                    (write_jsonl if jsonl else write_csv)(stream, sys.stdout, count=count)
            else:
                with closing(tracks(heartbeats=True)) as stream:
                    live_table(stream, Console(), count=count)
    except TimeoutError as error:
        raise OnlineTapirError(str(error)) from error


@app.command
def replay(
    folder: Annotated[Path, Parameter(help="What --record wrote.")],
    *,
    model: Annotated[
        str | None, Parameter(help="Preset or .safetensors file. [default: what was recorded, and how]")
    ] = None,
    weights: Annotated[Path | None, Parameter(help="Weights to use in place of the preset's own.")] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[Literal["float32", "bfloat16", "float16"] | None, Parameter(help="What to compute in.")] = None,
    iterations: Annotated[int | None, Parameter(help="Refinements a frame.", validator=Number(gte=1, lte=4))] = None,
    resolution: Annotated[str | None, Parameter(help="Where points are refined: 512x384, or `frame`.")] = None,
    threads: Annotated[int | None, Parameter(help="CPU threads of the model.", validator=Number(gte=1))] = None,
    frames: Annotated[int | None, Parameter(help="Stop after this many frames.", validator=Number(gte=1))] = None,
    json: Annotated[bool, Parameter(help="One JSON object on the standard output.", negative=())] = False,
    out: Annotated[Path | None, Parameter(help="New folder to record the frames and the new tracks into.")] = None,
    save_video: Annotated[Path | None, Parameter(help="Video of the new tracks, painted: FILE.mp4.")] = None,
) -> None:
    """Track a recording again, by any model, and compare the tracks with the recorded ones."""
    from rich.progress import Progress

    from online_tapir.model.checkpoint import load_model
    from online_tapir.recording.reader import Recording
    from online_tapir.recording.replay import replay as track_again
    from online_tapir.recording.writer import RecordingWriter
    from online_tapir.sinks.painted_video import PaintedVideo
    from online_tapir.tracking.tracker import Tracker

    recording = Recording(folder)
    settings = recording.manifest.settings.changed(
        model=model,
        weights=None if weights is None else str(weights),
        dtype=dtype,
        iterations=iterations,
        resolution=resolution,
        threads=threads,
    )
    _set_threads(settings.threads)
    loaded = load_model(
        settings.model, settings.weights, device=device, dtype=settings.dtype, iterations=settings.iterations
    )
    tracker = Tracker(loaded, settings.max_points, settings.window, _resolution(settings.resolution))
    with ExitStack() as opened:
        writers: list[Writer] = []
        if out is not None:
            writers.append(RecordingWriter(out, settings))
        if save_video is not None:
            writers.append(PaintedVideo(save_video))
        for writer in writers:
            opened.callback(writer.close, "the replay ended")
        stop = opened.enter_context(_stop_on_signal())
        console = Console(stderr=True)
        progress = opened.enter_context(Progress(console=console, transient=True, disable=not console.is_terminal))
        bar = progress.add_task("tracking again", total=min(len(recording), frames or len(recording)))
        comparison = track_again(
            recording, tracker, writers, stop=stop, frames=frames, advance=partial(progress.advance, bar)
        )
    print(dumps(comparison.as_json()) if json else comparison)


@app.command(name="eval")
def evaluate(
    models: Annotated[list[str] | None, Parameter(help="Presets or .safetensors files. [default: small]")] = None,
    *,
    photos: Annotated[Path | None, Parameter(help="Folder of photographs to make validation scenes of.")] = None,
    dataset: Annotated[Path | None, Parameter(help="A TAP-Vid .pkl or .npz to score on, query-first.")] = None,
    strided: Annotated[bool, Parameter(help="Query every fifth frame of the data set instead.", negative=())] = False,
    clips: Annotated[int, Parameter(help="Validation scenes.", validator=Number(gte=1))] = 16,
    frames: Annotated[int, Parameter(help="Frames of a scene.", validator=Number(gte=2))] = 24,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto",
    json: Annotated[Path | None, Parameter(help="Write the figures to this file, too.")] = None,
) -> None:
    """Score models beside OpenCV's trackers: Average Jaccard, position and occlusion accuracy, re-detection, time."""
    from online_tapir.train.command import evaluate_models

    reports = evaluate_models(
        models or ["small"], photos, dataset, strided=strided, clips=clips, frames=frames, device=device
    )
    if json is not None:
        json.write_text(dumps(reports, indent=1) + "\n", encoding="utf-8")


@app.command
def train(
    out: Annotated[
        Path, Parameter(help="Folder of the checkpoint and the log; a stage that was stopped goes on from it.")
    ],
    *,
    config: Annotated[TrainConfig, Parameter(name="*")] = TrainConfig(),  # noqa: B008  frozen
    start: Annotated[
        str | None, Parameter(help="Weights to begin from: a preset or a .safetensors file. [default: random ones]")
    ] = None,
    textures: Annotated[
        Path | None, Parameter(help="Folder of photographs; procedural textures are always there.")
    ] = None,
    validation: Annotated[Path | None, Parameter(help="Folder of other photographs to validate on.")] = None,
    width: Annotated[
        float, Parameter(help="So many times the channels of `small`, from random weights.", validator=Number(gt=0))
    ] = 1.0,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Train the small model on rendered clips; `--model OUT/small.safetensors` then uses it."""
    from online_tapir.train.command import train_model

    train_model(out, config, start, textures, validation, device, width)


@app.command
def scenes(
    out: Annotated[Path, Parameter(help="Folder of the pictures.")],
    *,
    textures: Annotated[
        Path | None, Parameter(help="Folder of photographs; procedural textures are always there.")
    ] = None,
    clips: Annotated[int, Parameter(help="Clips to draw.", validator=Number(gte=1))] = 4,
    frames: Annotated[int, Parameter(help="Frames of a clip.", validator=Number(gte=2))] = 24,
    size: Annotated[int, Parameter(help="Side of a clip in pixels.", validator=Number(gte=64))] = 256,
    points: Annotated[int, Parameter(help="Points followed in a clip.", validator=Number(gte=1))] = 40,
    seed: Annotated[int, Parameter(help="First seed of the clips.")] = 0,
) -> None:
    """Draw what `train` learns from, with the truth over it: OUT/scenes.png and OUT/scenes.mp4."""
    from online_tapir.scenes.clips import SceneConfig
    from online_tapir.train.command import draw_scenes

    draw_scenes(out, textures, SceneConfig(height=size, width=size, frames=frames, points=points), clips, seed)
