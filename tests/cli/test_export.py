"""An exported folder gives the tracker's positions without torch: in Python, and in C++."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from online_tapir.cli.app import main
from online_tapir.model.checkpoint import load_model, save_weights
from online_tapir.testing import sliding_pictures, tiny_model
from online_tapir.tracking.tracker import Tracker
from tests.configs import LIKE_SMALL

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SIZE = (96, 64)  # width, height: of the frames and of the input
XY = [[40.5, 30.25], [70.0, 20.0]]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_weights(path, tiny_model(LIKE_SMALL), {})
    return path


def pictures() -> list[NDArray[np.uint8]]:
    return [np.ascontiguousarray(rgb) for rgb in sliding_pictures(5, SIZE[1], SIZE[0])]


def expected(weights: Path) -> NDArray[np.float32]:
    """[T, N, 2] of the tracker in torch."""
    tracker = Tracker(load_model(weights, device="cpu"), max_points=4)
    tracker.add(XY)
    return np.stack([tracker.step(rgb).xy for rgb in pictures()])


def exported(weights: Path, out: Path, *more: str) -> Path:
    main(["export", str(weights), str(out), "--input", "96x64", "--max-points", "10", *more])
    return out


def test_the_runner_in_python_gives_the_trackers_positions_without_torch(weights: Path, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    out = exported(weights, tmp_path / "out")
    video = tmp_path / "frames_%03d.png"
    for number, rgb in enumerate(pictures()):
        cv2.imwrite(str(video) % number, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    code = (EXAMPLES / "exported.py").read_text(encoding="utf-8") + "\nassert 'torch' not in sys.modules\n"
    points = [f"{x},{y}" for x, y in XY]
    ran = subprocess.run(
        [sys.executable, "-c", code, str(out), str(video), *points], check=True, capture_output=True, text=True
    )
    told = np.array([line.split()[1:3] for line in ran.stdout.splitlines()], np.float32).reshape(5, 2, 2)
    assert_allclose(told, expected(weights), atol=2e-3)


def test_the_runner_in_cpp_gives_the_trackers_positions(weights: Path, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    out = exported(weights, tmp_path / "out", "--format", "openvino")
    root = Path(openvino.__file__).parent
    libraries = sorted((root / "libs").glob("libopenvino.so.*"))
    if not libraries:
        pytest.skip("this openvino brings no library to link with")
    binary = tmp_path / "exported"
    command = ["g++", "-std=c++17", str(EXAMPLES / "exported.cpp"), "-o", str(binary), f"-I{root / 'include'}"]
    try:
        subprocess.run([*command, str(libraries[0]), f"-Wl,-rpath,{root / 'libs'}"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no g++ here")
    frames = b"".join(rgb.tobytes() for rgb in pictures())
    words = [str(binary), f"{out}/", ".xml", *map(str, XY[0])]
    ran = subprocess.run(words, input=frames, check=True, capture_output=True)
    told = np.array([line.split()[1:3] for line in ran.stdout.decode().splitlines()], np.float32)
    assert_allclose(told, expected(weights)[:, 0], atol=2e-3)


def test_the_manifest_says_what_goes_in_and_out(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    out = exported(weights, tmp_path / "out", "--format", "openvino")
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["points"] == 16
    assert manifest["input"]["height"] == 64
    assert manifest["tensors"]["step"]["outputs"]["estimates"] == [16, 4]
    states = {name for name in manifest["tensors"]["step"]["inputs"] if not name.startswith("level")}
    assert states == set(manifest["begin"])
    assert {f"next.{name}" for name in states} >= set(manifest["tensors"]["step"]["outputs"]) - {"estimates"}
    assert all((out / file).is_file() for file in manifest["graphs"].values())


def test_a_folder_with_something_in_it_is_refused(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit) as end:
        exported(weights, tmp_path / "out", "--format", "openvino")
    assert end.value.code == 2
    assert "name a new folder" in " ".join(capsys.readouterr().err.split())
