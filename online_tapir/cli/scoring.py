"""`online-tapir eval`: score models next to OpenCV's trackers."""

from json import dumps
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from online_tapir.files import refuse_unwritable


def evaluate(
    models: Annotated[list[str] | None, Parameter(help="Presets or .safetensors files. [default: small]")] = None,
    *,
    inputs: Annotated[
        list[str] | None,
        Parameter(
            help="Sizes that frames are resized to, such as 256x256 or 384 (square). With several, a table says what "
            "each model is worth in the same time. [default: the model's own]",
            consume_multiple=True,
            negative=(),
        ),
    ] = None,
    engine: Annotated[
        Literal["auto", "torch", "openvino", "onnxruntime"], Parameter(help="As for tracking; torch is exact.")
    ] = "torch",
    photos: Annotated[Path | None, Parameter(help="Folder of photographs to render validation scenes from.")] = None,
    dataset: Annotated[Path | None, Parameter(help="A TAP-Vid .pkl or .npz to score on, query-first.")] = None,
    strided: Annotated[bool, Parameter(help="Query every fifth frame of the data set instead.", negative=())] = False,
    clips: Annotated[int, Parameter(help="Validation scenes.", validator=Number(gte=1))] = 16,
    frames: Annotated[int, Parameter(help="Frames per scene.", validator=Number(gte=2))] = 24,
    fps: Annotated[
        float,
        Parameter(
            help="Rate of a camera that does not wait: also scored is what is held in time at this machine's speed. 0: "
            "not scored.",
            validator=Number(gte=0),
        ),
    ] = 30.0,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto",
    json: Annotated[Path | None, Parameter(help="Also write the scores to this file.")] = None,
) -> None:
    """Score models next to OpenCV's trackers: accuracy, in time and offline, re-detection, time of a frame."""
    from online_tapir.launch.scoring import Scoring, score

    if json is not None:
        refuse_unwritable("--json", json)
    reports = score(
        Scoring(
            models=models or ["small"],
            inputs=inputs or [],
            engine=engine,
            photos=photos,
            dataset=dataset,
            strided=strided,
            clips=clips,
            frames=frames,
            fps=fps or None,
            device=device,
        )
    )
    if json is not None:
        json.write_text(dumps(reports, indent=1) + "\n", encoding="utf-8")
