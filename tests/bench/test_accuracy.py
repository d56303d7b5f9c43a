"""The accuracy bench is `online-tapir eval`: what that reports is what it prints."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import accuracy


def test_the_reports_of_eval_are_the_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def evaluate_models(models: list[str], *where: Any, **how: Any) -> list[dict[str, Any]]:
        asked.append((models, *where, how))
        return [{"tracker": name, "jitter_px": None} for name in models]

    monkeypatch.setattr(accuracy, "evaluate_models", evaluate_models)
    settings = accuracy.Settings(models=("small", "mine.safetensors"), photos=tmp_path, clips=7, frames=33)
    accuracy.main(settings, json=tmp_path / "accuracy.json")
    assert asked == [
        (["small", "mine.safetensors"], tmp_path, None, {"clips": 7, "frames": 33, "device": "auto"}),
    ]
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [report["tracker"] for report in document["results"]["reports"]] == ["small", "mine.safetensors"]
    assert document == json.loads((tmp_path / "accuracy.json").read_text())
