"""Every engine tracks the same clips, and its drift is measured from torch's tracks."""

import json
from pathlib import Path

import pytest

from bench import engines
from bench.command import BenchError
from online_tapir.model.checkpoint import save_weights
from online_tapir.model.weights_store import CACHE_VARIABLE
from online_tapir.testing import tiny_model
from tests.configs import LIKE_SMALL


def test_the_figures_of_an_engine_that_computes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    weights = tmp_path / "tiny.safetensors"
    save_weights(weights, tiny_model(LIKE_SMALL), {})
    settings = engines.Settings(
        models=(str(weights),),
        engines=("torch float32", "openvino float32"),
        inputs=("96x64",),
        clips=1,
        frames=10,
        size="96x64",
        points=6,
    )
    engines.main(settings, json=tmp_path / "found.json", plot=tmp_path / "found.svg")
    found = json.loads((tmp_path / "found.json").read_text())["results"]
    names = [row["name"] for row in found["rows"]]
    assert names == ["tiny, torch float32, 96x64", "tiny, openvino float32, 96x64", "LK, recovering", "DIS flow"]
    assert found["drift_px"]["tiny, openvino float32, 96x64"]["p95"] < 0.01
    assert found["rows"][0]["jaccard"] == found["rows"][1]["jaccard"]
    assert all(found["ms"][name]["p50"] > 0 for name in names)
    assert (tmp_path / "found.svg").read_text().count("<svg") == 1


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(BenchError, match="openvino float32"):
        engines.main(engines.Settings(engines=("tensorrt",)))
