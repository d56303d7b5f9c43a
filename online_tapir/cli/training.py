"""`online-tapir eval`, `train`, `distil` and `scenes`: score models, train the small one, draw its training clips."""

from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from online_tapir.files import refuse_unwritable
from online_tapir.train.config import DistilConfig, Share, TrainConfig


def evaluate(
    models: Annotated[list[str] | None, Parameter(help="Presets or .safetensors files. [default: small]")] = None,
    *,
    photos: Annotated[Path | None, Parameter(help="Folder of photographs to render validation scenes from.")] = None,
    dataset: Annotated[Path | None, Parameter(help="A TAP-Vid .pkl or .npz to score on, query-first.")] = None,
    strided: Annotated[bool, Parameter(help="Query every fifth frame of the data set instead.", negative=())] = False,
    clips: Annotated[int, Parameter(help="Validation scenes.", validator=Number(gte=1))] = 16,
    frames: Annotated[int, Parameter(help="Frames per scene.", validator=Number(gte=2))] = 24,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto",
    json: Annotated[Path | None, Parameter(help="Also write the scores to this file.")] = None,
) -> None:
    """Score models next to OpenCV's trackers: Average Jaccard, position and occlusion accuracy, re-detection, time."""
    from online_tapir.train.command import evaluate_models

    if json is not None:
        refuse_unwritable("--json", json)
    reports = evaluate_models(
        models or ["small"], photos, dataset, strided=strided, clips=clips, frames=frames, device=device
    )
    if json is not None:
        json.write_text(dumps(reports, indent=1) + "\n", encoding="utf-8")


def train(
    out: Annotated[Path, Parameter(help="Folder for the checkpoint and the log; a stopped stage is resumed from it.")],
    *,
    config: Annotated[TrainConfig, Parameter(name="*")] = TrainConfig(),  # noqa: B008  frozen
    start: Annotated[
        str | None, Parameter(help="Weights to start from: a preset or a .safetensors file. [default: random]")
    ] = None,
    textures: Annotated[
        Path | None, Parameter(help="Folder of photographs; procedural textures are used in any case.")
    ] = None,
    validation: Annotated[Path | None, Parameter(help="Folder of other photographs to validate on.")] = None,
    width: Annotated[
        float,
        Parameter(help="Multiple of the channels of `small`, from random weights.", validator=Number(gt=0, lte=16)),
    ] = 1.0,
    grow: Annotated[
        bool,
        Parameter(help="Give lean weights of --start the grids of the next `small` that they lack.", negative=()),
    ] = False,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Train the small model on rendered clips; `--model OUT/small.safetensors` then uses it."""
    from online_tapir.train.command import train_model

    train_model(out, config, start, textures, validation, device, width, grow)


def scenes(
    out: Annotated[Path, Parameter(help="Folder for the pictures.")],
    *,
    textures: Annotated[
        Path | None, Parameter(help="Folder of photographs; procedural textures are used in any case.")
    ] = None,
    clips: Annotated[int, Parameter(help="Clips to draw.", validator=Number(gte=1))] = 4,
    frames: Annotated[int, Parameter(help="Frames per clip.", validator=Number(gte=2))] = 24,
    size: Annotated[int, Parameter(help="Side of a clip in pixels.", validator=Number(gte=64))] = 256,
    points: Annotated[int, Parameter(help="Points tracked per clip.", validator=Number(gte=1))] = 40,
    seed: Annotated[int, Parameter(help="First seed of the clips.")] = 0,
    turned: Annotated[
        float, Parameter(help="Share of clips that also turn by any angle and grow or shrink.", validator=Share)
    ] = 0.0,
) -> None:
    """Draw clips that `train` learns from, with their ground truth: OUT/scenes.jpg and OUT/scenes.mp4."""
    from online_tapir.scenes.clips import SceneConfig
    from online_tapir.train.command import draw_scenes

    scene = SceneConfig(height=size, width=size, frames=frames, points=points, turned=turned)
    draw_scenes(out, textures, scene, clips, seed)


def distil(
    out: Annotated[Path, Parameter(help="Folder for the checkpoint and the log; a stopped run is resumed from it.")],
    *,
    textures: Annotated[Path, Parameter(help="Folder of photographs.")],
    config: Annotated[DistilConfig, Parameter(name="*")] = DistilConfig(),  # noqa: B008  frozen
    teacher: Annotated[str, Parameter(help="Model whose grids are taught: a preset or a .safetensors file.")] = "small",
) -> None:
    """Teach a lean backbone an older model's grids; `online-tapir train --start OUT/small.safetensors` continues."""
    from online_tapir.train.command import distil_model

    distil_model(out, config, teacher, textures)
