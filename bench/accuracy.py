"""Tracking accuracy: `online-tapir eval` as a bench, comparing the models with OpenCV's trackers on the same scenes.

Scores are TAP-Vid's; each is the mean over videos, as TAP-Vid defines it.
"""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from bench.command import JsonFile, PlotFile, run
from bench.report import finish
from online_tapir.evaluation.config import Scoring
from online_tapir.evaluation.following import WARM_UP_STEPS
from online_tapir.launch.scoring import score

INTERVAL = (
    f"a step: from the image in memory to the positions in memory, without camera or sinks; the first {WARM_UP_STEPS} "
    "steps that track points on each video are warm-up and excluded"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Scoring):
    """The models to score, and all settings of `online-tapir eval`."""

    models: Annotated[
        tuple[str, ...], Parameter(help="Presets or .safetensors files.", consume_multiple=True, negative=())
    ] = ("small",)


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Score models and OpenCV's trackers: accuracy, in time and offline, re-detection, time of a frame."""
    reports = score(settings.models, settings)
    finish("accuracy", settings, {"reports": reports}, json, plot, interval=INTERVAL)


if __name__ == "__main__":
    run(main)
