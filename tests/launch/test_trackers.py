"""A whole run on an exported model: without torch, and refusing by name what only the model itself can do."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from online_tapir.engines.export import write_folder
from online_tapir.errors import ConfigError
from online_tapir.launch.config import LiveConfig, ModelConfig, OutputConfig, PointsConfig
from online_tapir.launch.pace import Needs
from online_tapir.launch.trackers import ExportedTrackers, trackers
from online_tapir.testing import sliding_pictures, tiny_model
from online_tapir.tracking.exported import ExportedTracker

SIZE = (64, 96)  # height, width
WITHOUT_TORCH = "import sys\nfor name in ('torch', 'triton', 'rerun'): sys.modules[name] = None\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    path = tmp_path_factory.mktemp("exported")
    write_folder(tiny_model().at(SIZE), SIZE, 16, path, "onnx")
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    path = tmp_path / "frames"
    path.mkdir()
    for number, rgb in enumerate(sliding_pictures(8, *SIZE)):
        cv2.imwrite(str(path / f"{number:03}.png"), cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR))
    return path


def run(code: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command line in a process of its own, where torch is not installed."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith("ONLINE_TAPIR_")}
    script = code + "from online_tapir.cli.app import main\nmain(sys.argv[1:])\n"
    return subprocess.run(
        [sys.executable, "-c", script, *words], env=usual, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("flow", ["on", "off"])
def test_a_run_on_an_exported_model_needs_no_torch(folder: Path, frames: Path, tmp_path: Path, flow: str) -> None:
    out = tmp_path / "record"
    words = ["--model", str(folder), "--camera", str(frames), "--points", "40,30 70,20", "--flow", flow]
    ran = run(WITHOUT_TORCH, *words, "--rerun", "off", "--publish", "off", "--control", "off", "--record", str(out))
    assert ran.returncode == 0, ran.stderr
    assert f"model tiny at {SIZE[1]}x{SIZE[0]} from {folder}" in ran.stdout + ran.stderr
    from online_tapir.recording.tables import read_table

    tracks = read_table(out, "tracks").to_pydict()
    assert sorted(set(tracks["id"])) == [0, 1]
    assert len(tracks["id"]) == 16
    assert np.isfinite(tracks["x"]).all()


@pytest.mark.parametrize(("words", "package"), [(("--record", "OUT"), "pyarrow"), (("--save-video", "OUT.mp4"), "av")])
def test_what_is_not_installed_is_named(
    folder: Path, frames: Path, tmp_path: Path, words: tuple[str, str], package: str
) -> None:
    flag, out = words
    asked = [flag, str(tmp_path / out), "--rerun", "off", "--publish", "off", "--control", "off"]
    lacking = WITHOUT_TORCH + f"sys.modules[{package!r}] = None\n"
    ran = run(lacking, "--model", str(folder), "--camera", str(frames), *asked)
    assert ran.returncode == 2
    assert f"pip install {package}" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_without_torch_info_tells_what_can_be_run() -> None:
    code = "from online_tapir.engines import runtimes\nruntimes.missing = lambda names: list(names)\n"
    ran = run(WITHOUT_TORCH + code, "info")
    assert ran.returncode == 0, ran.stderr
    assert "online-tapir export" in " ".join(ran.stdout.split())


def test_the_model_itself_without_torch_is_refused_with_the_way_out(frames: Path) -> None:
    ran = run(WITHOUT_TORCH, "--model", "small", "--camera", str(frames), "--rerun", "off", "--publish", "off")
    assert ran.returncode == 2
    assert "pip install torch" in ran.stderr
    assert "online-tapir export" in ran.stderr


@pytest.mark.parametrize(
    ("config", "flag"),
    [
        (LiveConfig(model=ModelConfig(input="512")), "--input"),
        (LiveConfig(model=ModelConfig(precision="int8")), "--precision"),
        (LiveConfig(model=ModelConfig(weights=Path("w"))), "--weights"),
        (LiveConfig(model=ModelConfig(device="cuda")), "--device"),
        (LiveConfig(points=PointsConfig(templates=Path("t"))), "--templates"),
        (LiveConfig(points=PointsConfig(inspect=0)), "--inspect"),
        (LiveConfig(output=OutputConfig(save_state=Path("s"))), "--save-state"),
    ],
)
def test_what_only_the_model_itself_can_do_is_refused_by_name(folder: Path, config: LiveConfig, flag: str) -> None:
    made = trackers(ModelConfig(model=str(folder)))
    with ExitStack() as held, pytest.raises(ConfigError, match=f"^{flag} needs the model itself"):
        made.make(config, Needs((96, 64)), held, print)


def test_the_threshold_of_the_run_replaces_the_folders(folder: Path) -> None:
    made = trackers(ModelConfig(model=str(folder)))
    assert isinstance(made, ExportedTrackers)

    def shown(above: float | None) -> int:
        config = LiveConfig(model=ModelConfig(visible_above=above))
        with ExitStack() as held:
            tracker = made.make(config, Needs((96, 64), fps=30, flows=True), held, lambda note: None)
        assert isinstance(tracker, ExportedTracker)
        tracker.add(np.random.default_rng(0).uniform(5, 60, (16, 2)))
        return int([tracker.step(np.ascontiguousarray(rgb)) for rgb in sliding_pictures(3, *SIZE)][-1].visible.sum())

    assert shown(0.0) == 16
    assert shown(0.999) < 16
