"""An exported model tracks as the model does, without torch: points come at once, late and one by one, and leave."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from online_tapir.engines.export import write_folder
from online_tapir.engines.runtimes import ONNXRUNTIME, OPENVINO, RUNTIMES
from online_tapir.errors import ConfigError, FrameError, QueryError
from online_tapir.flow.tracker import FlowTracker
from online_tapir.model.tapir import Tapir
from online_tapir.records import Label, Tracks
from online_tapir.testing import sliding_pictures, tiny_config, tiny_model
from online_tapir.tracking.exported import ExportedTracker
from online_tapir.tracking.tracker import Tracker
from tests.configs import LIKE_SMALL

LIKE_THE_PUBLIC_MODELS = tiny_config(iterations=2)
SLOTS = 32
INPUT = (64, 96)
FRAME = (80, 112)  # height, width: not the input's aspect
FORMATS = {"onnx": ONNXRUNTIME, "openvino": OPENVINO}


def exported(model: Tapir, folder: Path, format: str = "onnx") -> Path:
    for package in FORMATS[format].packages:
        pytest.importorskip(package)
    write_folder(model.at(INPUT), INPUT, SLOTS, folder, format)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tiny_model(LIKE_SMALL), tmp_path_factory.mktemp("exported"))


def pictures(count: int) -> list[NDArray[np.uint8]]:
    return [np.ascontiguousarray(rgb) for rgb in sliding_pictures(count, *FRAME)]


def run(tracker: Tracker | ExportedTracker, frames: list[NDArray[np.uint8]]) -> list[Tracks]:
    rng = np.random.default_rng(0)
    tracker.add(rng.uniform(5, 70, (19, 2)), group="some")
    found = []
    for number, rgb in enumerate(frames):
        if number == 3:
            tracker.remove([0, 4])
            tracker.add(rng.uniform(5, 70, (2, 2)), frame_id=1)
            tracker.add(rng.uniform(5, 70, (3, 2)), names=("a", "b", "c"))
            tracker.add(rng.uniform(5, 70, (1, 2)), frame_id=2)
        if number == 5:
            tracker.remove([20, 7])
        found.append(tracker.step(rgb))
    return found


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("config", [LIKE_SMALL, LIKE_THE_PUBLIC_MODELS], ids=["like small", "like the public models"])
def test_it_gives_the_trackers_tracks(config: object, format: str, tmp_path: Path) -> None:
    model, frames = tiny_model(config), pictures(8)  # type: ignore[arg-type]
    expected = run(Tracker(model, SLOTS, input_size=INPUT), frames)
    found = run(ExportedTracker(exported(model, tmp_path, format)), frames)
    for wanted, got in zip(expected, found, strict=True):
        assert_array_equal(got.ids, wanted.ids)
        assert_allclose(got.xy, wanted.xy, atol=2e-3, err_msg=f"frame {wanted.frame_id}")
        assert_allclose(got.occlusion, wanted.occlusion, atol=1e-3)
        assert_allclose(got.uncertainty, wanted.uncertainty, atol=1e-3)
        assert got.labels == wanted.labels
        assert (got.frame_id, got.width, got.height, got.model, got.input) == (
            wanted.frame_id,
            wanted.width,
            wanted.height,
            wanted.model,
            wanted.input,
        )
    assert Label("a") in found[-1].labels.values()


def test_it_needs_neither_torch_nor_what_exports(folder: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from online_tapir import ExportedTracker, subscribe\n"
        f"tracker = ExportedTracker({str(folder)!r})\n"
        "tracker.add([[40.0, 30.0]])\n"
        "assert tracker.step(np.zeros((80, 112, 3), np.uint8)).ids.tolist() == [0]\n"
        "assert not {'torch', 'triton', 'onnx', 'rerun', 'openvino'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_points_and_frames_are_refused_as_the_tracker_refuses_them(folder: Path) -> None:
    tracker, rgb = ExportedTracker(folder, window=2), pictures(1)[0]
    with pytest.raises(QueryError, match=r"\[2\]"):
        tracker.add([1.0, 2.0])
    tracker.add([[200.0, 5.0]])
    with pytest.raises(QueryError, match="outside"):
        tracker.step(rgb)
    for _ in range(3):
        tracker.step(rgb)
    with pytest.raises(QueryError, match="has left the window of 2"):
        tracker.add([[5.0, 5.0]], frame_id=0)
    with pytest.raises(QueryError, match="room for 32"):
        tracker.add(np.full((33, 2), 9.0))
    with pytest.raises(QueryError, match="no point 5"):
        tracker.remove([5])
    with pytest.raises(QueryError, match="inspected"):
        tracker.inspect(0)
    with closing(FlowTracker(tracker)) as flowing:
        flowing.add([[9, 9]])
        with pytest.raises(QueryError, match="inspected"):
            flowing.inspect(0)  # when it is asked, not later, where it would end the run
    with pytest.raises(FrameError):
        tracker.step(rgb.astype(np.float32))
    with pytest.raises(RuntimeError, match="no frame was submitted"):
        tracker.collect()


def test_a_folder_that_is_none_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    def changed(change: Callable[[dict[str, object]], object]) -> Path:
        told = json.loads((folder / "manifest.json").read_text())
        change(told)
        other = tmp_path / "other"
        other.mkdir(exist_ok=True)
        for graph in folder.glob("*.onnx"):
            (other / graph.name).write_bytes(graph.read_bytes())
        (other / "manifest.json").write_text(json.dumps(told))
        return other

    with pytest.raises(ConfigError, match="no exported model"):
        ExportedTracker(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="of version 2"):
        ExportedTracker(changed(lambda told: told.update(version=2)))
    with pytest.raises(ConfigError, match=r"no gone\.onnx"):
        ExportedTracker(changed(lambda told: told.update(graphs={"encoder": "gone.onnx"})))
    with pytest.raises(ConfigError, match="damaged"):
        ExportedTracker(changed(lambda told: told.pop("points")))


def test_a_runtime_that_is_not_installed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from online_tapir.engines import manifest as module

    assert set(RUNTIMES) == {"onnxruntime", "openvino"}
    monkeypatch.setattr(module, "missing", list)
    with pytest.raises(ConfigError, match="pip install onnxruntime"):
        ExportedTracker(folder)
