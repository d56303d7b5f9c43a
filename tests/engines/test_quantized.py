"""An encoder in int8: it belongs to its weights, serves every input size, and gives nearly the same tracks."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.cli.app import main
from online_tapir.cli.quantize import _pictures
from online_tapir.engines import engine as engines
from online_tapir.engines import quantized
from online_tapir.engines.engine import Engine
from online_tapir.engines.export import LEAST_ROWS
from online_tapir.engines.runtimes import OPENVINO
from online_tapir.errors import ConfigError
from online_tapir.model.checkpoint import load_model, save_weights
from online_tapir.model.tapir import Tapir
from online_tapir.model.weights_store import CACHE_VARIABLE
from online_tapir.testing import sliding_pictures, tiny_config, tiny_model
from online_tapir.tracking.tracker import Tracker
from tests.configs import LIKE_SMALL

MakeFrames = Callable[..., list[NDArray[np.uint8]]]


@pytest.fixture(autouse=True)
def _few_rows_and_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(engines, "ROWS", LEAST_ROWS)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def tracked(
    model: Tapir, precision: str, size: tuple[int, int], frames: list[NDArray[np.uint8]]
) -> NDArray[np.float32]:
    """Positions [T, N, 2] of a grid of points."""
    tracker = Tracker(model, 16, 1, input_size=size, engine=Engine(OPENVINO, precision, 1, lambda note: None))
    height, width = frames[0].shape[:2]
    tracker.add(np.stack(np.meshgrid(np.linspace(8, width - 8, 4), np.linspace(8, height - 8, 4)), -1).reshape(-1, 2))
    return np.stack([tracker.step(rgb).xy for rgb in frames])


def test_the_package_has_the_encoder_of_the_weights_that_it_has() -> None:
    small = load_model("small", device="cpu")
    found = quantized.find(small)
    assert found is not None, "calibrate again: online-tapir quantize small --photos FOLDER --out online_tapir/weights"
    assert found.with_suffix(".bin").is_file()
    assert quantized.embedded("small")
    assert not quantized.embedded("bootstapir")
    next(small.parameters()).data += 1
    assert quantized.find(small) is None, "other weights"


def test_its_tracks_are_those_of_float32_at_another_size_than_it_was_calibrated_at() -> None:
    size = (96, 160)
    small, frames = load_model("small", device="cpu"), list(sliding_pictures(6, 120, 200))
    exact, found = (tracked(small, precision, size, frames) for precision in ("float32", "int8"))
    apart = np.linalg.norm(exact - found, axis=-1)
    assert 0 < np.median(apart) < 0.3
    assert not np.array_equal(exact, found), "int8 was not used"


def test_weights_that_are_calibrated_here_are_found_here(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    weights, photos = tmp_path / "mine.safetensors", tmp_path / "photos"
    model = tiny_model(LIKE_SMALL)
    save_weights(weights, model, {})
    frames = list(sliding_pictures(4, 64, 96))
    with pytest.raises(ConfigError, match="online-tapir quantize"):
        tracked(model, "int8", (64, 96), frames)
    photos.mkdir()
    for number, rgb in enumerate(frames):
        cv2.imwrite(str(photos / f"{number}.png"), rgb)
    main(["quantize", str(weights), "--photos", str(photos)])
    assert quantized.find(load_model(weights, device="cpu")) is not None
    assert np.isfinite(tracked(load_model(weights, device="cpu"), "int8", (64, 96), frames)).all()


def test_an_interrupted_calibration_leaves_nothing_that_could_be_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nncf")

    def torn(stage: object, path: Path) -> None:
        path.write_text("what is not quantised yet")
        raise KeyboardInterrupt

    monkeypatch.setattr(quantized.export, "write", torn)
    with pytest.raises(KeyboardInterrupt):
        quantized.calibrate(tiny_model(LIKE_SMALL), sliding_pictures(1, 64, 96), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_lean_encoder_whose_graph_is_of_one_size_is_not_calibrated(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    lean = tiny_model(tiny_config(trunk="lean", grid_widths=(16, 32), described_by=(1, 3), extra_convs=0))
    with pytest.raises(ConfigError, match="of one"):
        quantized.calibrate(lean, sliding_pictures(1, 64, 96), tmp_path)
    assert quantized.find(lean) is None


def test_pictures_are_chosen_from_the_whole_folder(tmp_path: Path) -> None:
    for number in range(7):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((64, 64, 3), 30 * number, np.uint8))
    seen = [int(rgb.mean()) for rgb in _pictures(tmp_path, 4, (64, 64))]
    assert seen == [0, 60, 120, 180]


def test_no_picture_no_calibration() -> None:
    pytest.importorskip("nncf")
    with pytest.raises(ConfigError, match="no picture"):
        quantized.calibrate(tiny_model(LIKE_SMALL), [], Path("nowhere"))


def test_an_engine_reports_to_nobody(tmp_path: Path) -> None:
    """OpenVINO's package would tell its makers of every import, and leave a folder in the home of its user."""
    code = (
        "import sys\n"
        "from online_tapir.engines.runtimes import openvino\n"
        "openvino().Core()\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run([sys.executable, "-c", code], check=True, env={"HOME": str(home)}, timeout=120)
    assert not list(home.iterdir())
