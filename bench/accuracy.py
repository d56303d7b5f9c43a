"""How right the tracks are: `online-tapir eval` as a bench, the models beside what OpenCV offers on the same scenes.

Its times are of `step` alone, after each run's first steps, with no camera and no sink.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bench.report import Count, finish, run
from online_tapir.train.command import evaluate_models


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is scored, on what."""

    models: Annotated[tuple[str, ...], Parameter(help="Presets or .safetensors files.")] = ("small",)
    photos: Annotated[Path | None, Parameter(help="Folder of photographs to make validation scenes of.")] = None
    dataset: Annotated[Path | None, Parameter(help="A TAP-Vid .pkl or .npz to score on, query-first.")] = None
    clips: Annotated[int, Parameter(help="Validation scenes.", validator=Count)] = 16
    frames: Annotated[int, Parameter(help="Frames of a scene.", validator=Count)] = 24
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: Annotated[Path | None, Parameter(help="Write the JSON document to this file, too.")] = None,
) -> None:
    """Score models and OpenCV's trackers: Average Jaccard, position and occlusion accuracy, re-detection, time."""
    reports = evaluate_models(
        list(settings.models),
        settings.photos,
        settings.dataset,
        clips=settings.clips,
        frames=settings.frames,
        device=settings.device,
    )
    finish("accuracy", settings, {"reports": reports}, json)


if __name__ == "__main__":
    run(main)
