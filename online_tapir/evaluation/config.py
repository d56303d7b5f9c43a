"""Settings of `online-tapir eval` and `python -m bench.accuracy`: each field is a flag of both."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """On what models are scored, and how they are run."""

    inputs: Annotated[
        tuple[str, ...],
        Parameter(
            help="Sizes that frames are resized to, such as 256x256 or 384 (square). With several, a table says what "
            "each model is worth in the same time. [default: the model's own]",
            consume_multiple=True,
            negative=(),
            show_default=False,
        ),
    ] = ()
    engine: Annotated[
        Literal["auto", "torch", "openvino", "onnxruntime"], Parameter(help="As for tracking; torch is exact.")
    ] = "torch"
    photos: Annotated[Path | None, Parameter(help="Folder of photographs to render validation scenes from.")] = None
    dataset: Annotated[Path | None, Parameter(help="A TAP-Vid .pkl or .npz to score on, query-first.")] = None
    strided: Annotated[bool, Parameter(help="Query every fifth frame of the data set instead.", negative=())] = False
    clips: Annotated[int, Parameter(help="Validation scenes.", validator=Number(gte=1))] = 16
    frames: Annotated[int, Parameter(help="Frames per scene.", validator=Number(gte=2))] = 24
    fps: Annotated[
        float,
        Parameter(
            help="Rate of a camera that does not wait: also scored is what is held in time at this machine's speed. 0: "
            "not scored.",
            validator=Number(gte=0, lte=10_000),
        ),
    ] = 30.0
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"
