"""Tracking accuracy: `online-tapir eval` as a bench, comparing the models with OpenCV's trackers on the same scenes.

Scores are TAP-Vid's; each is the mean over videos, as TAP-Vid defines it.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from bench.command import Count, JsonFile, PlotFile, run
from bench.report import finish
from online_tapir.evaluation.following import WARM_UP_STEPS
from online_tapir.launch.scoring import Scoring, score

INTERVAL = (
    f"a step: from the image in memory to the positions in memory, without camera or sinks; the first {WARM_UP_STEPS} "
    "steps that track points on each video are warm-up and excluded"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The models to score, and the data."""

    models: Annotated[
        tuple[str, ...], Parameter(help="Presets or .safetensors files.", consume_multiple=True, negative=())
    ] = ("small",)
    inputs: Annotated[
        tuple[str, ...],
        Parameter(help="Sizes, as of `online-tapir eval --inputs`.", consume_multiple=True, negative=()),
    ] = ()
    engine: Annotated[
        Literal["auto", "torch", "openvino", "onnxruntime"], Parameter(help="As of `online-tapir eval`.")
    ] = "torch"
    photos: Annotated[Path | None, Parameter(help="Folder of photographs to render validation scenes from.")] = None
    dataset: Annotated[Path | None, Parameter(help="A TAP-Vid .pkl or .npz to score on, query-first.")] = None
    strided: Annotated[
        bool,
        Parameter(help="Query every fifth frame of the data set instead.", negative=()),
    ] = False
    clips: Annotated[int, Parameter(help="Validation scenes.", validator=Count)] = 16
    frames: Annotated[int, Parameter(help="Frames per scene.", validator=Count)] = 24
    fps: Annotated[float | None, Parameter(help="Rate of a camera that does not wait, for what is held in time.")] = 30
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Score models and OpenCV's trackers: accuracy, in time and offline, re-detection, time of a frame."""
    reports = score(Scoring(**{field.name: getattr(settings, field.name) for field in fields(settings)}))
    finish("accuracy", settings, {"reports": reports}, json, plot, interval=INTERVAL)


if __name__ == "__main__":
    run(main)
