"""`online-tapir eval`: score models next to OpenCV's trackers."""

from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from online_tapir.evaluation.config import Scoring
from online_tapir.files import refuse_unwritable


def evaluate(
    models: Annotated[
        list[str] | None, Parameter(help="Presets or .safetensors files. [default: small]", negative=())
    ] = None,
    *,
    config: Annotated[Scoring, Parameter(name="*")] = Scoring(),  # noqa: B008  frozen
    json: Annotated[Path | None, Parameter(help="Also write the scores to this file.")] = None,
) -> None:
    """Score models next to OpenCV's trackers: accuracy, in time and offline, re-detection, time of a frame."""
    from online_tapir.launch.scoring import score

    if json is not None:
        refuse_unwritable("--json", json)
    reports = score(models or ["small"], config)
    if json is not None:
        json.write_text(dumps(reports, indent=1) + "\n", encoding="utf-8")
