"""`online-tapir train`, `distil` and `scenes`: train the small model, draw its training clips."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from online_tapir.train.config import DistilConfig, Share, TrainConfig


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
        Parameter(help="Give weights of --start what later versions of their model have in addition.", negative=()),
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
