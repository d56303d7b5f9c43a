"""Encoders in int8: calibrated once on photographs, one graph file for every input size.

Convolutions are quantised after training (arXiv 1712.05877), weights by channel and activations by layer; norms stay in
float32, and so do the few convolutions that int8 would harm most. A file is named after the weights it was made of.
"""

import logging
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from online_tapir.engines import export
from online_tapir.engines.runtimes import OPENVINO, missing, openvino
from online_tapir.errors import ConfigError
from online_tapir.model.digest import digest
from online_tapir.model.tapir import Tapir
from online_tapir.model.weights_store import cache_folder

INSTALL = "pip install 'online-tapir[int8]'"
# Convolutions of `small` that stay in float32, by their order in the graph: the stem and three that the finest grids
# come from. Each was left out on its own; these changed the features of held-out photographs most.
KEPT = (0, 2, 3, 7)
KEPT_TYPES = ("AvgPool", "Maximum", "MVN", "Multiply", "Add", "Divide", "Power", "ReduceSum", "Relu", "Sqrt")


def find(model: Tapir) -> Path | None:
    """The encoder that was calibrated for exactly these weights: in the package, or on this machine; or None."""
    if model.config.trunk == "lean":
        return None
    name = model.config.name
    folders = [folder for folder in (_package(), kept_in()) if any(folder.glob(f"{name}-int8-*.xml"))]
    if not folders:
        return None
    wanted = file_name(model)
    return next((folder / wanted for folder in folders if (folder / wanted).is_file()), None)


def embedded(preset: str) -> bool:
    """Whether the package has an encoder of this preset."""
    return any(_package().glob(f"{preset}-int8-*.xml"))


def kept_in() -> Path:
    """Where this machine keeps what was calibrated on it."""
    return cache_folder() / "engines" / "int8"


def file_name(model: Tapir) -> str:
    """What the encoder of these weights is called."""
    return f"{model.config.name}-int8-{digest(model)[:8]}.xml"


def calibrate(model: Tapir, pictures: Iterable[NDArray[np.uint8]], folder: Path) -> Path:
    """Quantises the encoder and writes it into `folder`; returns the file.

    `pictures` are RGB [H, W, 3] of the model's input size, some tens of what it will see: they tell the range of every
    activation. Raises ConfigError if NNCF is not installed, there is no picture, or the graph of the model's encoder is
    of one size only.
    """
    if model.config.trunk == "lean":
        raise ConfigError("an encoder in int8 serves every input size, and a lean one's graph is of one; use bfloat16")
    if lacking := missing(("nncf", *OPENVINO.packages)):
        raise ConfigError(f"calibration needs {' and '.join(lacking)}; {INSTALL}")
    images = [(rgb.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None] for rgb in pictures]
    if not images:
        raise ConfigError("there is no picture to calibrate on; give some tens")
    vendor = openvino()  # before NNCF, which would import it with its reports
    import nncf  # type: ignore[import-not-found,import-untyped,unused-ignore]

    logging.getLogger("nncf").setLevel(logging.ERROR)  # not its function: that quietens shared handlers
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(model)
    encoder = export.stages(model, model.config.initial_resolution, export.LEAST_ROWS)[0]
    with TemporaryDirectory() as scratch:  # an interrupted calibration leaves nothing under the name
        exact = Path(scratch) / "encoder.xml"
        export.write(encoder, exact)
        graph = vendor.Core().read_model(exact.read_bytes(), exact.with_suffix(".bin").read_bytes())
    layers = [node.get_friendly_name() for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"]
    types = {node.get_type_name() for node in graph.get_ops()}
    kept = nncf.IgnoredScope(
        names=[layers[index] for index in KEPT if index < len(layers)],
        types=[name for name in KEPT_TYPES if name in types],
    )
    quantized = nncf.quantize(
        graph,
        nncf.Dataset(images),
        subset_size=len(images),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=kept,
    )
    export.save(quantized, path)
    return path


def _package() -> Path:
    return Path(str(files("online_tapir") / "weights"))
