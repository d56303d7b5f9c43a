"""Laws of what `online-tapir train` and `online-tapir scenes` do."""

from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from torch import nn

from online_tapir.errors import ConfigError
from online_tapir.model.backbone import Backbone
from online_tapir.model.checkpoint import load_model
from online_tapir.model.config import PRESETS
from online_tapir.scenes.clips import SceneConfig
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
    sheet = cv2.imread(str(tmp_path / "scenes.png"))
    assert sheet is not None
    assert sheet.std() > 1
    video = cv2.VideoCapture(str(tmp_path / "scenes.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    video.release()
