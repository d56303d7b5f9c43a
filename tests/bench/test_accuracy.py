"""The accuracy bench is `online-tapir eval`: what that reports is what it prints."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import accuracy
from online_tapir.errors import ConfigError
from online_tapir.evaluation.config import Scoring


def test_the_reports_of_eval_are_the_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def score(models: Sequence[str], settings: Scoring) -> list[dict[str, Any]]:
        asked.append((models, settings))
        return [{"tracker": name, "jitter_px": None} for name in models]

    monkeypatch.setattr(accuracy, "score", score)
    settings = accuracy.Settings(models=("small", "mine.safetensors"), photos=tmp_path, clips=7, frames=33, fps=15)
    accuracy.main(settings, json=tmp_path / "accuracy.json")
    assert asked == [(settings.models, settings)]
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [report["tracker"] for report in document["results"]["reports"]] == ["small", "mine.safetensors"]
    assert document == json.loads((tmp_path / "accuracy.json").read_text())


@pytest.mark.parametrize(("strided", "data", "points"), [(False, "davis, query-first", 2), (True, "davis, strided", 3)])
def test_a_data_set_is_scored_by_either_protocol(
    strided: bool, data: str, points: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    occluded = np.zeros((2, 6), bool)
    occluded[1, 0] = True  # strided: the first point on frames 0 and 5, the second on 5
    entry = {
        "video": rng.integers(0, 256, (6, 32, 48, 3), np.uint8),
        "points": rng.uniform(0.2, 0.8, (2, 6, 2)).astype(np.float32),
        "occluded": occluded,
    }
    (tmp_path / "davis.pkl").write_bytes(pickle.dumps({"goat": entry}))
    accuracy.main(accuracy.Settings(models=(), dataset=tmp_path / "davis.pkl", strided=strided))
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    reports = document["results"]["reports"]
    assert [report["tracker"] for report in reports] == ["LK", "LK, recovering", "DIS flow"]
    assert {(report["data"], report["points"]) for report in reports} == {(data, points)}
    assert all(0 <= report["scores"]["occlusion_accuracy"] <= 1 for report in reports)
    assert document["settings"]["dataset"] == "davis.pkl"
    assert "warm-up" in document["interval"]


def test_strided_queries_need_a_data_set() -> None:
    with pytest.raises(ConfigError, match="name a TAP-Vid file"):
        accuracy.main(accuracy.Settings(strided=True))
