"""Writes the stages of a model as graph files: OpenVINO's for its engine, ONNX for every other runtime."""

import json
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from online_tapir.engines.manifest import FORMAT, MANIFEST, VERSION
from online_tapir.engines.runtimes import openvino
from online_tapir.files import replacing
from online_tapir.model.config import Size
from online_tapir.model.graphs import CHANGING, EncoderGraph, QueryGraph, StepGraph
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import Tapir

OPSET = 18
LEAST_ROWS = 16  # of a step: OpenVINO 2026.4 crashes while it compiles graphs of fewer
# How a point's slot begins, by the names of the step's inputs; N is the slot. What is not named stays as it is.
BEGIN = {
    "match_queries": "query.match_queries",
    "refine_queries": "query.refine_queries",
    "memory": "0",
    "previous_xy": "NaN",
    "recent.match": "query.match_queries",
    "recent.refine": "query.features",
    "recent.xy": "its position",
    "recent.velocity": "0",
    "recent.age": "0",
}
FORMATS = {"openvino": ".xml", "onnx": ".onnx"}
_CONVERTING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Stage:
    """One graph, the tensors to trace it with, and the names of what goes in and comes out."""

    name: str
    graph: nn.Module
    examples: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def stages(model: Tapir, size: Size, rows: int) -> list[Stage]:
    """The encoder, the query and the step of `model` for frames of `size` and `rows` points."""
    image = torch.zeros(1, 3, *size)
    with torch.no_grad():
        levels = EncoderGraph(model)(image)
    state = TrackState.empty(model.config, 1, rows, torch.device("cpu"), torch.float32).tensors
    grids = tuple(f"level{index}" for index in range(len(levels)))
    following = tuple(f"next.{name}" for name in state if name in CHANGING)
    xy = torch.full((rows, 2), 8.0)
    return [
        Stage("encoder", EncoderGraph(model), (image,), ("image",), grids),
        Stage(
            "query",
            QueryGraph(model, size),
            (xy, *levels),
            ("xy", *grids),
            ("match_queries", "refine_queries", "features"),
        ),
        Stage(
            "step",
            StepGraph(model, size, tuple(state)),
            (*levels, *state.values()),
            (*grids, *state),
            ("estimates", *following),
        ),
    ]


def write_folder(model: Tapir, size: Size, rows: int, folder: Path, format: str) -> dict[str, Any]:
    """Writes every stage and the manifest that describes them into `folder`; returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix, made = FORMATS[format], stages(model, size, rows)
    for stage in made:
        write(stage, folder / f"{stage.name}{suffix}")
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "model": model.config.name,
        "graphs": {stage.name: f"{stage.name}{suffix}" for stage in made},
        "input": {"height": size[0], "width": size[1], "pixels": "RGB / 127.5 - 1, [1, 3, height, width] float32"},
        "points": rows,
        "positions": "pixels of the input, x before y; (0.5, 0.5) is the centre of the first pixel",
        "estimates": ["x", "y", "logit that the point is hidden", "logit that the position is wrong"],
        "visible": f"sigmoid(-hidden) * sigmoid(-wrong) > {model.config.visible_above:g}",
        "visible_above": model.config.visible_above,
        "tensors": {stage.name: _tensors(stage) for stage in made},
        "begin": BEGIN,
    }
    with replacing(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def _tensors(stage: Stage) -> dict[str, Any]:
    with torch.no_grad():
        found = stage.graph(*stage.examples)
    return {
        "inputs": {name: list(tensor.shape) for name, tensor in zip(stage.inputs, stage.examples, strict=True)},
        "outputs": {name: list(tensor.shape) for name, tensor in zip(stage.outputs, found, strict=True)},
    }


def write(stage: Stage, path: Path) -> None:
    """Writes one graph in the format of the file's suffix, in float32; replaces the file when it is whole."""
    writers = {".xml": _write_openvino, ".onnx": _write_onnx}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision, which nothing here uses
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporters, about their own code
        writers[path.suffix](stage, path)


def _write_openvino(stage: Stage, path: Path) -> None:
    program = torch.export.export(stage.graph, stage.examples, strict=False)
    with _logging_kept():
        found = openvino().convert_model(program)
    _plain_norms(found)
    found.reshape({index: list(example.shape) for index, example in enumerate(stage.examples)})
    _name(found.inputs, stage.inputs)
    _name(found.outputs, stage.outputs)
    save(found, path)


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Warnings of this program are heard meanwhile and after: OpenVINO's converter silences all loggers of the process.

    It undoes that at its end, but not where it fails.
    """
    root, own = logging.getLogger(), logging.getLogger("online_tapir")
    with _CONVERTING:  # of two at once, the second would keep what the first has silenced
        level, handlers, filters, own_level = root.level, root.handlers[:], root.filters[:], own.level
        own.setLevel(own.getEffectiveLevel())
        try:
            yield
        finally:
            own.setLevel(own_level)
            root.setLevel(level)
            root.handlers[:], root.filters[:] = handlers, filters


def save(graph: Any, path: Path) -> None:
    """Writes OpenVINO's graph as FILE.xml with FILE.bin; replaces them when they are whole."""
    weights = path.with_suffix(".bin")  # written first: a graph without its weights cannot be opened
    partial = path.with_name(f"partial-{path.name}")
    openvino().save_model(graph, str(partial), compress_to_fp16=False)
    partial.with_suffix(".bin").replace(weights)
    partial.replace(path)


def _plain_norms(graph: Any) -> None:
    """Makes instance norms what OpenVINO computes in one pass: it reorders pixels around a norm over groups."""
    ops = openvino().opset13
    for norm in [node for node in graph.get_ops() if node.get_type_name() == "GroupNormalization"]:
        x, weight, bias = (norm.input_value(index) for index in range(3))
        channels = weight.get_shape()[0]
        told = norm.get_attributes()
        assert told["num_groups"] == channels, "a norm over groups of channels"
        scale, shift = (ops.reshape(part, np.array([1, channels, 1, 1]), False) for part in (weight, bias))
        plain = ops.mvn(x, np.array([2, 3]), True, told["epsilon"], "inside_sqrt")
        norm.output(0).replace(ops.add(ops.multiply(plain, scale), shift).output(0))


def _name(ports: Sequence[Any], names: Sequence[str]) -> None:
    for port, name in zip(ports, names, strict=True):
        port.set_names({name})


def _write_onnx(stage: Stage, path: Path) -> None:
    program = torch.onnx.export(
        stage.graph,
        stage.examples,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(stage.inputs),
        output_names=list(stage.outputs),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    with replacing(path) as partial:
        program.save(partial)
