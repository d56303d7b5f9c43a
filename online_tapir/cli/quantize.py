"""`online-tapir quantize`: an int8 encoder for `--precision int8`, calibrated on photographs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def quantize(
    model: Annotated[str, Parameter(help="Preset (small, bootstapir, tapir) or a .safetensors file.")],
    *,
    photos: Annotated[Path, Parameter(help="Folder of pictures like those that the camera will see, jpg or png.")],
    weights: Annotated[Path | None, Parameter(help="Weights to use instead of the preset's own.")] = None,
    pictures: Annotated[int, Parameter(help="How many of them, at most.", validator=Number(gte=1, lte=1000))] = 60,
    out: Annotated[Path | None, Parameter(help="Folder for the file. [default: where runs look for it]")] = None,
) -> None:
    """Calibrate the encoder in int8, faster than float32 on processors with VNNI; it serves every input size."""
    from online_tapir.engines import quantized
    from online_tapir.model.checkpoint import load_model

    loaded = load_model(model, weights, device="cpu")
    seen = _pictures(photos, pictures, loaded.config.initial_resolution)
    path = quantized.calibrate(loaded, seen, quantized.kept_in() if out is None else out)
    print(f"{path}: for --precision int8 with these weights, at any --input")


def _pictures(folder: Path, count: int, size: tuple[int, int]) -> "Iterator[NDArray[np.uint8]]":
    """RGB pictures of `size` (height, width) from a folder, evenly chosen."""
    import cv2
    import numpy as np

    from online_tapir.scenes.textures import photograph_paths, read_bgr

    paths = photograph_paths(folder)
    for index in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int).tolist():
        path = paths[index]
        small = cv2.resize(read_bgr(path), (size[1], size[0]), interpolation=cv2.INTER_AREA)
        yield np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)
