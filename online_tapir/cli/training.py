"""`online-tapir eval`, `train`, `distil` and `scenes`: where the small model comes from, and what it is worth."""

from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from online_tapir.files import refuse_unwritable
from online_tapir.train.config import DistilConfig, TrainConfig


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

    if json is not None:
        refuse_unwritable("--json", json)
    reports = evaluate_models(
        models or ["small"], photos, dataset, strided=strided, clips=clips, frames=frames, device=device
    )
    if json is not None:
        json.write_text(dumps(reports, indent=1) + "\n", encoding="utf-8")


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
        float,
        Parameter(help="So many times the channels of `small`, from random weights.", validator=Number(gt=0, lte=16)),
    ] = 1.0,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Train the small model on rendered clips; `--model OUT/small.safetensors` then uses it."""
    from online_tapir.train.command import train_model

    train_model(out, config, start, textures, validation, device, width)


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
    """Draw what `train` learns from, with the truth over it: OUT/scenes.jpg and OUT/scenes.mp4."""
    from online_tapir.scenes.clips import SceneConfig
    from online_tapir.train.command import draw_scenes

    draw_scenes(out, textures, SceneConfig(height=size, width=size, frames=frames, points=points), clips, seed)


def distil(
    out: Annotated[Path, Parameter(help="Folder of the checkpoint and the log; a stopped run is resumed from it.")],
    *,
    textures: Annotated[Path, Parameter(help="Folder of photographs.")],
    config: Annotated[DistilConfig, Parameter(name="*")] = DistilConfig(),  # noqa: B008  frozen
    teacher: Annotated[str, Parameter(help="Whose grids are taught: a preset or a .safetensors file.")] = "small",
) -> None:
    """Teach a lean backbone the grids of an older model; `online-tapir train --start OUT/small.safetensors` goes on."""
    from online_tapir.train.command import distil_model

    distil_model(out, config, teacher, textures)
