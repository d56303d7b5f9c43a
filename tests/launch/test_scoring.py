"""`online-tapir eval` scores every model at every input, and says what computed it."""

from pathlib import Path

import pytest

from online_tapir.errors import ConfigError
from online_tapir.evaluation.config import Scoring
from online_tapir.launch import scoring
from online_tapir.model.checkpoint import save_weights
from online_tapir.testing import tiny_model


@pytest.fixture
def weights(tmp_path: Path) -> str:
    save_weights(tmp_path / "mine.safetensors", tiny_model(), {})
    return str(tmp_path / "mine.safetensors")


def test_a_model_is_scored_at_every_input(
    weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scoring, "still_videos", lambda photos, clips: scoring.validation_videos(photos, 1, 2))
    asked = Scoring(inputs=("96x64", "64"), clips=1, frames=3, fps=0)
    reports = scoring.score([weights], asked)
    names = [f"{weights} 96x64", f"{weights} 64x64", "LK", "LK, recovering", "DIS flow"]
    assert [report["tracker"] for report in reports] == 3 * names
    assert [report["engine"] for report in reports[:5]] == 2 * ["torch in float32"] + 3 * ["OpenCV"]
    wide, square = (report["scores"]["position_accuracy"] for report in reports[:2])
    assert wide != square, "another input is another result"
    printed = capsys.readouterr().out
    assert printed.count("the best Average Jaccard in a given time of a frame") == 3
    assert "is computed by torch in float32" in printed


@pytest.mark.parametrize("said", ["auto", "70x64"])
def test_an_input_that_is_none_is_refused_before_a_model_is_loaded(said: str) -> None:
    with pytest.raises(ConfigError, match=f"--inputs '?{said}"):
        scoring.score(["no model"], Scoring(inputs=(said,)))
