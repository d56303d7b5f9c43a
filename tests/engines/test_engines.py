"""An engine gives torch's tracks: in both phases, with more rows than a step has, late queries, states, inspections."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from torch import Tensor, nn

from online_tapir.engines import engine as engines
from online_tapir.engines.engine import Compiled, Engine, digest
from online_tapir.engines.export import LEAST_ROWS, Stage, stages, write
from online_tapir.engines.runtimes import ONNXRUNTIME, OPENVINO, Runtime, openvino
from online_tapir.errors import ConfigError
from online_tapir.model.tapir import Tapir
from online_tapir.model.weights_store import CACHE_VARIABLE
from online_tapir.testing import tiny_config
from online_tapir.tracking.tracker import Tracker

MakeModel = Callable[..., Tapir]
MakeFrames = Callable[..., list[NDArray[np.uint8]]]
ROWS = LEAST_ROWS  # of a step in these tests
INPUTS: dict[str, dict[str, Any]] = {
    "like the public models": {"iterations": 2},
    "like small": {
        "iterations": 1,
        "described_by": (0, 1, 3),
        "peak_inputs": True,
        "motion_inputs": True,
        "recent_inputs": True,
    },
}


@pytest.fixture(autouse=True)
def _few_rows_and_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engines, "ROWS", ROWS)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


class InTorch:
    """A session that runs a graph in torch: what is left to differ is how an engine passes the state."""

    def __init__(self, stage: Stage) -> None:
        self._graph = stage.graph

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        return [tensor.numpy() for tensor in self._graph(*map(torch.from_numpy, inputs))]


class TorchEngine(Engine):
    """An engine whose sessions are torch's."""

    def _sessions(self, model: Tapir, size: tuple[int, int], key: str) -> Any:
        encoder, _, step = stages(model, size, ROWS)
        return InTorch(encoder), InTorch(step)


def in_torch() -> Engine:
    return TorchEngine(OPENVINO, "float32", 1)


def run(tracker: Tracker, frames: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    """Points come at once, late and one by one, some leave; more than one step has rows for."""
    rng = np.random.default_rng(0)
    tracker.add(rng.uniform(5, 28, (19, 2)))
    found = []
    for number, rgb in enumerate(frames):
        if number == 3:
            tracker.remove([0, 4])
            tracker.add(rng.uniform(5, 28, (2, 2)), frame_id=1)
        found.append(tracker.step(rgb).xy)
    return found


@pytest.mark.parametrize("kind", INPUTS)
def test_an_engine_gives_torchs_tracks(kind: str, make_model: MakeModel, make_frames: MakeFrames) -> None:
    model, frames = make_model(tiny_config(**INPUTS[kind])), make_frames(7)
    expected = run(Tracker(model, max_points=24), frames)
    for number, xy in enumerate(run(Tracker(model, max_points=24, engine=in_torch()), frames)):
        assert_allclose(xy, expected[number], atol=1e-4, err_msg=f"frame {number}")


def test_a_state_goes_from_torch_to_an_engine_and_back(
    make_model: MakeModel, make_frames: MakeFrames, tmp_path: Path
) -> None:
    model, frames = make_model(tiny_config(**INPUTS["like small"])), make_frames(9)
    whole = Tracker(model, max_points=24)
    expected = run(whole, frames)
    first = Tracker(model, max_points=24)
    run(first, frames[:5])
    for part, engine in ((frames[5:7], in_torch()), (frames[7:], None)):
        first.save_state(tmp_path / "state")
        first = Tracker(model, max_points=24, engine=engine)
        first.load_state(tmp_path / "state")
        last = [first.step(rgb).xy for rgb in part]
    assert_allclose(last[-1], expected[-1], atol=1e-4)


def test_an_inspected_point_shows_the_numbers_of_its_own_track(make_model: MakeModel, make_frames: MakeFrames) -> None:
    model, frames = make_model(tiny_config(**INPUTS["like small"])), make_frames(4)
    tracker, alone = (Tracker(model, max_points=24, engine=in_torch()) for _ in range(2))
    expected = run(alone, frames[:3])
    tracker.add(np.random.default_rng(0).uniform(5, 28, (19, 2)))
    tracker.step(frames[0])
    tracker.inspect(3)
    for number in (1, 2):
        tracks = tracker.step(frames[number])
        assert_array_equal(tracks.xy, expected[number])
        assert tracks.inspection is not None
        assert_allclose(tracks.inspection.stages[-1].xy, tracks.xy[3], atol=1e-3)


@pytest.mark.parametrize("runtime", [OPENVINO, ONNXRUNTIME])
@pytest.mark.parametrize("kind", INPUTS)
def test_an_exported_model_gives_torchs_tracks(
    runtime: Runtime, kind: str, make_model: MakeModel, make_frames: MakeFrames
) -> None:
    for package in runtime.packages:
        pytest.importorskip(package)
    model, frames = make_model(tiny_config(**INPUTS[kind])), make_frames(6)
    notes: list[str] = []
    engine = Engine(runtime, "float32", 1, notes.append)
    expected = run(Tracker(model, max_points=24), frames)
    for number, xy in enumerate(run(Tracker(model, max_points=24, engine=engine), frames)):
        assert_allclose(xy, expected[number], atol=1e-3, err_msg=f"frame {number}")
    assert len(notes) == 1
    again = Engine(runtime, "float32", 1, notes.append)
    run(Tracker(model, max_points=24, engine=again), frames)
    assert len(notes) == 1, "prepared twice"


def test_another_model_or_size_is_another_file(make_model: MakeModel) -> None:
    model = make_model()
    other = make_model()
    other.matching.heat.bias.data += 1
    found = {digest(model, (64, 96)), digest(model, (64, 64)), digest(other, (64, 96)), digest(model, (64, 96))}
    assert len(found) == 3
    shown = model.config.visible_above
    model.config = replace(model.config, visible_above=shown / 2)
    assert digest(model, (64, 96)) in found, "a threshold is in no graph"


def test_a_file_that_was_cut_is_prepared_again(
    make_model: MakeModel, make_frames: MakeFrames, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    model, frames, notes = make_model(), make_frames(2), []
    whole = run(Tracker(model, max_points=24, engine=Engine(OPENVINO, "float32", 1, notes.append)), frames)
    [weights] = tmp_path.rglob("step.bin")
    weights.write_bytes(weights.read_bytes()[:100])
    again = run(Tracker(model, max_points=24, engine=Engine(OPENVINO, "float32", 1, notes.append)), frames)
    assert_allclose(again, whole, atol=1e-4)
    assert len(notes) == 2


def test_an_engine_refuses_what_it_cannot_run(make_model: MakeModel) -> None:
    model = make_model()
    with pytest.raises(ConfigError, match="refines at the input size only"):
        Tracker(model, resolution=(64, 64), engine=in_torch())
    with pytest.raises(ConfigError, match="float32 model on a CPU"):
        Tracker(model.to(torch.bfloat16), engine=in_torch())


def test_an_interrupted_export_is_begun_again(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    stage = stages(make_model(), (64, 96), ROWS)[1]
    path = tmp_path / "query.xml"

    def torn(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(openvino(), "save_model", torn)
        with pytest.raises(KeyboardInterrupt):
            write(stage, path)
    assert not path.exists()
    write(stage, path)
    assert path.exists()
    found = OPENVINO.open(path, "float32", 1, None)([example.numpy() for example in stage.examples])
    for array, expected in zip(found, stage.graph(*stage.examples), strict=True):
        assert_allclose(array, expected.numpy(), atol=1e-4)


def test_compiled_stages_leave_rows_beyond_the_state_alone(make_model: MakeModel) -> None:
    model = make_model(tiny_config(**INPUTS["like small"]))
    size = model.config.initial_resolution
    compiled = Compiled(model, size, *(InTorch(stage) for stage in stages(model, size, ROWS)[::2]))
    tracker = Tracker(model, max_points=ROWS + 2)
    tracker.add([[20, 20], [30, 20], [25, 15]])
    tracker.step(np.zeros((40, 40, 3), np.uint8))
    state = tracker.lanes.state
    assert state is not None
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    with torch.inference_mode():
        pyramid = compiled.encode(torch.zeros(1, 3, *size))
        assert compiled.step(pyramid, state.rows(0, 3), 1).shape == (3, 4)
    spare = {name: tensor.narrow(-1 if name == "recent.age" else -2, 3, 2) for name, tensor in state.tensors.items()}
    for name, tensor in spare.items():
        torch.testing.assert_close(
            tensor, before[name].narrow(-1 if name == "recent.age" else -2, 3, 2), equal_nan=True
        )


class Unknown(nn.Module):
    """A graph with an operation that OpenVINO cannot convert."""

    def forward(self, matrix: Tensor) -> Tensor:
        return torch.linalg.eigh(matrix)[1]


def test_a_conversion_that_fails_leaves_logging_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    before = root.level, root.handlers[:], root.filters[:]
    with pytest.raises(Exception, match="getitem"):
        write(Stage("unknown", Unknown(), (torch.eye(3),), ("matrix",), ("found",)), tmp_path / "unknown.xml")
    assert (root.level, root.handlers, root.filters) == before
    logging.getLogger("online_tapir.engines").warning("afterwards")
    assert "afterwards" in caplog.text


def test_the_program_is_heard_while_a_graph_is_converted(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from openvino.tools.ovc import convert

    def warning(*args: Any) -> Any:  # in the midst of a conversion, as another thread may
        assert not logging.getLogger("another").isEnabledFor(logging.WARNING), "the converter has silenced loggers"
        logging.getLogger("online_tapir.tracking.step").warning("meanwhile")
        return restore(*args)

    restore = convert.restore_logger_state
    monkeypatch.setattr(convert, "restore_logger_state", warning)
    write(stages(make_model(), (64, 64), ROWS)[0], tmp_path / "encoder.xml")
    assert "meanwhile" in caplog.text
