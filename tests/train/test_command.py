"""Laws of what `online-tapir train` and `online-tapir scenes` do."""

from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from torch import nn

from online_tapir.cli.app import main
from online_tapir.errors import ConfigError
from online_tapir.model.backbone import Backbone
from online_tapir.model.checkpoint import load_model, save_weights
from online_tapir.model.config import LEAN_SMALL, PRESETS
from online_tapir.scenes.clips import SceneConfig
from online_tapir.testing import tiny_config, tiny_model
from online_tapir.train import command
from online_tapir.train.config import TrainConfig

ONE_STEP = TrainConfig(steps=1, size=64, frames=2, clips=1, points=4, warmup=1)


def test_a_model_of_another_width_is_trained_and_loads_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "VALIDATION_CLIPS", 1)
    monkeypatch.setattr(command, "PROCEDURAL_TEXTURES", 4)
    command.train_model(tmp_path, ONE_STEP, None, None, None, "cpu", width=0.25)
    model = load_model(tmp_path / "small.safetensors")
    assert model.config == PRESETS["small"].scaled(0.25)
    assert model.config.mixer_width == 48
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_frozen_backbone_keeps_its_features_while_the_rest_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "VALIDATION_CLIPS", 1)
    monkeypatch.setattr(command, "PROCEDURAL_TEXTURES", 4)
    command.train_model(tmp_path / "a", ONE_STEP, None, None, None, "cpu", width=0.25)
    start = tmp_path / "a" / "small.safetensors"
    again = replace(ONE_STEP, freeze_backbone=True, learning_rate=0.1)
    command.train_model(tmp_path / "b", again, str(start), None, None, "cpu")
    before, after = load_model(start).state_dict(), load_model(tmp_path / "b" / "small.safetensors").state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    backbone = {name for name in before if name.startswith("backbone.")}
    assert backbone <= same
    assert len(set(before) - backbone - same) > 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of the compiler's own code
def test_a_compiled_backbone_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the last step of compiling, which writes C++ and takes half a minute."""
    monkeypatch.setattr(command, "VALIDATION_CLIPS", 1)
    monkeypatch.setattr(command, "PROCEDURAL_TEXTURES", 4)
    compiled = []
    monkeypatch.setattr(Backbone, "compile", lambda self: compiled.append(nn.Module.compile(self, backend="aot_eager")))
    learned = []
    for told in (True, False):
        out = tmp_path / str(told)
        command.train_model(out, replace(ONE_STEP, compile=told), None, None, None, "cpu", width=0.25)
        assert len(compiled) == 1
        learned.append(load_model(out / "small.safetensors").state_dict())
    for name, tensor in learned[0].items():
        torch.testing.assert_close(tensor, learned[1][name], rtol=1e-2, atol=1e-4, msg=name)


def test_a_width_of_its_own_is_refused_for_weights_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--width 0\.5 .* small"):
        command.train_model(tmp_path, ONE_STEP, "small", None, None, "cpu", width=0.5)


def test_scenes_are_drawn_as_a_sheet_and_as_a_video_of_all_their_frames(tmp_path: Path) -> None:
    command.draw_scenes(tmp_path, None, SceneConfig(height=64, width=64, frames=3, points=5), clips=2, seed=0)
    sheet = cv2.imread(str(tmp_path / "scenes.jpg"))
    assert sheet is not None
    assert sheet.std() > 1
    video = cv2.VideoCapture(str(tmp_path / "scenes.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    video.release()


def test_a_sheet_is_of_frames_about_256_pixels_wide_and_small_enough_to_mail(tmp_path: Path) -> None:
    for side in (64, 256):
        scene = SceneConfig(height=side, width=side, frames=8, points=5)
        command.draw_scenes(tmp_path, None, scene, clips=1, seed=0)
        sheet = cv2.imread(str(tmp_path / "scenes.jpg"))
        assert sheet is not None
        assert sheet.shape == (260, 8 * 260, 3)
        assert (tmp_path / "scenes.jpg").stat().st_size < 400_000


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--learning-rate", "-1", "Must be > 0"),
        ("--learning-rate", "nan", "Must be"),
        ("--size", "100", "Must be a multiple of 8"),
        ("--average", "1", "Must be < 1"),
        ("--warmup", "-1", "Must be >= 0"),
        ("--weight-decay", "-1", "Must be >= 0"),
        ("--seed", "-1", "Must be >= 0"),
        ("--width", "inf", "Must be <= 16"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, says: str
) -> None:
    message = refused(capsys, "train", tmp_path / "out", flag, value)
    assert f"{flag}. {says}" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["train", "scenes"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    assert f"cannot write into the folder {out}: Not a directory; name another folder" in refused(capsys, command, out)


def test_figures_that_cannot_be_written_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none" / "figures.json"
    assert f"--json {file} cannot be written: No such file or directory" in refused(capsys, "eval", "--json", file)


def test_the_first_small_grows_into_todays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "VALIDATION_CLIPS", 1)
    monkeypatch.setattr(command, "PROCEDURAL_TEXTURES", 4)
    narrow = PRESETS["small"].scaled(0.25)
    first = tiny_model(replace(narrow, neighbour_grids=0))
    save_weights(tmp_path / "first.safetensors", first, {})
    command.train_model(tmp_path, ONE_STEP, str(tmp_path / "first.safetensors"), None, None, "cpu", grow=True)
    assert load_model(tmp_path / "small.safetensors").config == narrow


def test_a_lean_model_grows_into_the_next_one() -> None:
    before = replace(LEAN_SMALL, grid_widths=LEAN_SMALL.grid_widths[1:], described_by=(1, 3))
    assert command._next(before) == LEAN_SMALL


def test_only_what_is_small_or_lean_can_grow(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name them"):
        command.train_model(tmp_path, ONE_STEP, None, None, None, "cpu", grow=True)
    save_weights(tmp_path / "other.safetensors", tiny_model(tiny_config(name="other")), {})
    with pytest.raises(ConfigError, match="other is neither"):
        command.train_model(tmp_path, ONE_STEP, str(tmp_path / "other.safetensors"), None, None, "cpu", grow=True)
