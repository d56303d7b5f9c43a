"""`online-tapir export`: a model as graph files for other runtimes, with a manifest that says what goes in and out."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from online_tapir.errors import ConfigError
from online_tapir.files import make_folder
from online_tapir.launch import sizes
from online_tapir.limits import MOST_POINTS


def export(
    model: Annotated[str, Parameter(help="Preset (small, bootstapir, tapir) or a .safetensors file.")],
    out: Annotated[Path, Parameter(help="New or empty folder for the graphs and their manifest.")],
    *,
    format: Annotated[Literal["onnx", "openvino"], Parameter(help="Of the graph files.")] = "onnx",
    weights: Annotated[Path | None, Parameter(help="Weights to use instead of the preset's own.")] = None,
    max_points: Annotated[
        int,
        Parameter(help="Slots for points, rounded up to a multiple of 16.", validator=Number(gte=1, lte=MOST_POINTS)),
    ] = 64,
    input: Annotated[str, Parameter(help="Size that frames are resized to: 512x288, or 384 for a square.")] = "256x256",
) -> None:
    """Write a model's encoder, query and step as graph files with fixed slots, to run without torch."""
    from online_tapir.engines.export import LEAST_ROWS, write_folder
    from online_tapir.engines.runtimes import ONNXRUNTIME, OPENVINO
    from online_tapir.model.checkpoint import load_model

    {"onnx": ONNXRUNTIME, "openvino": OPENVINO}[format].require(f"export --format {format}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there and not empty; name a new folder")
    make_folder(out)
    size = sizes.input_size(input, (1, 1))
    rows = -(-max_points // LEAST_ROWS) * LEAST_ROWS
    manifest = write_folder(load_model(model, weights, device="cpu").at(size), size, rows, out, format)
    print(
        f"{rows} points at {size[1]}x{size[0]}: {', '.join(manifest['graphs'])} in {out}; see docs/examples/exported.py"
    )
