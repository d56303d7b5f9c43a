"""`online-tapir replay`: tracks a recording again and compares the tracks."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console

from online_tapir.cli.signals import stop_on_signal
from online_tapir.errors import ConfigError
from online_tapir.files import refuse_overwriting
from online_tapir.launch import sizes
from online_tapir.launch.threads import check_threads, set_threads, usable_cpus

if TYPE_CHECKING:
    from online_tapir.recording.steps import Writer
    from online_tapir.recording.tables import Settings
    from online_tapir.tracking.tracker import Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """What differs from the recorded run, and what is written."""

    model: Annotated[str | None, Parameter(help="Preset or .safetensors file. [default: as recorded]")] = None
    weights: Annotated[Path | None, Parameter(help="Weights to use instead of the preset's own.")] = None
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"
    dtype: Annotated[Literal["float32", "bfloat16", "float16"] | None, Parameter(help="Number format.")] = None
    iterations: Annotated[int | None, Parameter(help="Refinements per frame.", validator=Number(gte=1, lte=4))] = None
    resolution: Annotated[str | None, Parameter(help="Resolution to refine at: 512x384, or `frame`.")] = None
    input: Annotated[str | None, Parameter(help="Size to match at: 512x288, or 384.")] = None
    engine: Annotated[
        Literal["auto", "torch", "openvino", "onnxruntime"] | None, Parameter(help="What computes the model on a CPU.")
    ] = None
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "int8"] | None, Parameter(help="Of an engine's encoder.")
    ] = None
    threads: Annotated[int | None, Parameter(help="CPU threads of the model.", validator=Number(gte=1))] = None
    frames: Annotated[int | None, Parameter(help="Stop after this many frames.", validator=Number(gte=1))] = None
    json: Annotated[bool, Parameter(help="Print the comparison as a JSON object.", negative=())] = False
    out: Annotated[Path | None, Parameter(help="New folder to record the frames and the new tracks into.")] = None
    save_video: Annotated[Path | None, Parameter(help="Video to paint the new tracks into: FILE.mp4.")] = None
    save_csv: Annotated[
        Path | None, Parameter(help="Table of the new tracks in DeepLabCut's layout: FILE.csv or FILE.parquet.")
    ] = None
    overwrite: Annotated[bool, Parameter(help="Replace the file of --save-video if it exists.", negative=())] = False


def replay(
    folder: Annotated[Path, Parameter(help="Folder that --record wrote.")],
    config: Annotated[ReplayConfig, Parameter(name="*")] = ReplayConfig(),
) -> None:
    """Track a recording again, with any model, and compare the tracks with the recorded ones."""
    from rich.progress import Progress

    from online_tapir.recording.reader import Recording
    from online_tapir.recording.replay import replay as track_again
    from online_tapir.recording.video import VIDEO

    model = None if config.model is None else Path(config.model)
    read = {"--model": model, "--weights": config.weights, "the recording": folder / VIDEO}
    written = {"--save-video": config.save_video, "--save-csv": config.save_csv}
    refuse_overwriting(written, read, overwrite=config.overwrite)
    recording = Recording(folder)
    settings = _settings(recording.manifest.settings, config)
    manifest = recording.manifest
    tracker = _tracker(settings, config.device, (manifest.width, manifest.height))
    with ExitStack() as opened:
        writers = _writers(config, settings)
        for writer in writers:
            opened.callback(writer.close, "the replay ended")
        stop = opened.enter_context(stop_on_signal())
        console = Console(stderr=True)
        progress = opened.enter_context(Progress(console=console, transient=True, disable=not console.is_terminal))
        bar = progress.add_task("tracking again", total=min(len(recording), config.frames or len(recording)))
        comparison = track_again(
            recording, tracker, writers, stop=stop, frames=config.frames, advance=partial(progress.advance, bar)
        )
    print(dumps(comparison.as_json()) if config.json else comparison)
    if comparison.missing:
        raise ConfigError(f"{folder} was not compared in full: {'; '.join(comparison.missing)}")


def _settings(recorded: "Settings", config: ReplayConfig) -> "Settings":
    """The recorded settings with the changes asked for; no more threads than this machine has CPUs."""
    settings = recorded.changed(
        model=config.model,
        weights=None if config.weights is None else str(config.weights),
        dtype=config.dtype,
        iterations=config.iterations,
        resolution=config.resolution,
        input=config.input,
        engine=config.engine,
        precision=config.precision,
        threads=check_threads(config.threads),
    )
    if settings.threads is None:
        return settings
    return replace(settings, threads=min(settings.threads, usable_cpus()))


def _tracker(settings: "Settings", device: str, frame: tuple[int, int]) -> "Tracker":
    from online_tapir.engines.choose import choose_for, make
    from online_tapir.model.checkpoint import load_model
    from online_tapir.tracking.tracker import Tracker

    threads = set_threads(settings.threads)
    model = load_model(
        settings.model,
        settings.weights,
        device=device,
        dtype=settings.dtype,
        iterations=settings.iterations,
        visible_above=settings.visible_above,
    )
    where = str(next(model.parameters()).device)
    in_torch = settings.resolution is not None or where != "cpu"
    engine, precision = ("torch", "auto") if in_torch else (settings.engine, settings.precision)
    return Tracker(
        model,
        settings.max_points,
        settings.window,
        sizes.resolution(settings.resolution),
        input_size=None if settings.input is None else sizes.input_size(settings.input, frame),
        engine=make(choose_for(model, engine, precision), threads, print),
    )


def _writers(config: ReplayConfig, settings: "Settings") -> "list[Writer]":
    from online_tapir.recording.writer import RecordingWriter
    from online_tapir.sinks.painted_video import PaintedVideo

    writers: list[Writer] = []
    if config.out is not None:
        writers.append(RecordingWriter(config.out, settings))
    if config.save_video is not None:
        writers.append(PaintedVideo(config.save_video))
    if config.save_csv is not None:
        from online_tapir.recording.keypoints import KeypointTable

        writers.append(KeypointTable(config.save_csv))
    return writers
