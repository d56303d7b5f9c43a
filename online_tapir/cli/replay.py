"""`online-tapir replay`: tracks a recording again and compares the tracks."""

from contextlib import ExitStack
from dataclasses import replace
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

if TYPE_CHECKING:
    from online_tapir.recording.writer import Writer


def replay(
    folder: Annotated[Path, Parameter(help="Folder that --record wrote.")],
    *,
    model: Annotated[str | None, Parameter(help="Preset or .safetensors file. [default: as recorded]")] = None,
    weights: Annotated[Path | None, Parameter(help="Weights to use instead of the preset's own.")] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[Literal["float32", "bfloat16", "float16"] | None, Parameter(help="Number format.")] = None,
    iterations: Annotated[int | None, Parameter(help="Refinements per frame.", validator=Number(gte=1, lte=4))] = None,
    resolution: Annotated[str | None, Parameter(help="Resolution to refine at: 512x384, or `frame`.")] = None,
    threads: Annotated[int | None, Parameter(help="CPU threads of the model.", validator=Number(gte=1))] = None,
    frames: Annotated[int | None, Parameter(help="Stop after this many frames.", validator=Number(gte=1))] = None,
    json: Annotated[bool, Parameter(help="Print the comparison as a JSON object.", negative=())] = False,
    out: Annotated[Path | None, Parameter(help="New folder to record the frames and the new tracks into.")] = None,
    save_video: Annotated[Path | None, Parameter(help="Video to paint the new tracks into: FILE.mp4.")] = None,
    overwrite: Annotated[bool, Parameter(help="Replace the file of --save-video if it exists.", negative=())] = False,
) -> None:
    """Track a recording again, with any model, and compare the tracks with the recorded ones."""
    import torch
    from rich.progress import Progress

    from online_tapir.model.checkpoint import load_model
    from online_tapir.recording.reader import Recording
    from online_tapir.recording.replay import replay as track_again
    from online_tapir.recording.video import VIDEO
    from online_tapir.recording.writer import RecordingWriter
    from online_tapir.sinks.painted_video import PaintedVideo
    from online_tapir.tracking.tracker import Tracker

    refuse_overwriting(
        {"--save-video": save_video},
        {"--model": None if model is None else Path(model), "--weights": weights, "the recording": folder / VIDEO},
        overwrite=overwrite,
    )
    recording = Recording(folder)
    settings = recording.manifest.settings.changed(
        model=model,
        weights=None if weights is None else str(weights),
        dtype=dtype,
        iterations=iterations,
        resolution=resolution,
        threads=sizes.threads(threads),
    )
    if settings.threads is not None:  # the recording may be from a machine with more CPUs
        settings = replace(settings, threads=min(settings.threads, sizes.usable_cpus()))
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    loaded = load_model(
        settings.model, settings.weights, device=device, dtype=settings.dtype, iterations=settings.iterations
    )
    tracker = Tracker(loaded, settings.max_points, settings.window, sizes.resolution(settings.resolution))
    with ExitStack() as opened:
        writers: list[Writer] = []
        if out is not None:
            writers.append(RecordingWriter(out, settings))
        if save_video is not None:
            writers.append(PaintedVideo(save_video))
        for writer in writers:
            opened.callback(writer.close, "the replay ended")
        stop = opened.enter_context(stop_on_signal())
        console = Console(stderr=True)
        progress = opened.enter_context(Progress(console=console, transient=True, disable=not console.is_terminal))
        bar = progress.add_task("tracking again", total=min(len(recording), frames or len(recording)))
        comparison = track_again(
            recording, tracker, writers, stop=stop, frames=frames, advance=partial(progress.advance, bar)
        )
    print(dumps(comparison.as_json()) if json else comparison)
    if comparison.missing:
        raise ConfigError(f"{folder} was not compared in full: {'; '.join(comparison.missing)}")
