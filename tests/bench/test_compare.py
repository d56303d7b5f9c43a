"""The comparison with the public code times every stage, and names what it was not given."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench import compare
from bench.command import BenchError
from bench.compare import Settings, main, public_model, public_state
from online_tapir.model.config import PRESETS, TapirConfig

TINY_PUBLIC = TapirConfig(name="tapir", widths=(8, 8, 8, 8), stem_width=8, extra_convs=0, mixer_width=16, mixer_depth=2)


class Standing:
    """Answers as the public model does: every point stays where it was asked for."""

    def get_feature_grids(self, video: Any, is_training: bool) -> None:
        assert video.shape == (1, 1, compare.SIDE, compare.SIDE, 3)

    def get_query_features(self, video: Any, is_training: bool, query_points: Any, feature_grids: None) -> Any:
        self.xy = query_points[:, :, None, [2, 1]]  # from [1, N, (t, y, x)]
        return SimpleNamespace(resolutions=[(256, 256)] * 2)

    def construct_initial_causal_state(self, points: int, resolutions: int) -> int:
        assert resolutions == 1
        return points

    def estimate_trajectories(self, size: Any, **_: Any) -> dict[str, Any]:
        return {"tracks": [self.xy], "occlusion": [torch.zeros(1, self.xy.shape[1], 1)], "causal_context": None}


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture(autouse=True)
def _tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tapir", TINY_PUBLIC)


def test_alone_every_stage_is_timed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = Settings(model="tapir", points=(1, 7), frames=3, warm_up=1, threads=1)
    main(settings, json=tmp_path / "out.json")
    found = document(capsys)
    assert [run["points"] for run in found["results"]["runs"]] == [1, 7]
    for run in found["results"]["runs"]:
        assert set(run["ms"]) == {*compare.STAGES, "frame"}
        assert all(spread["count"] == 3 for spread in run["ms"].values())
        assert sum(run["ms"][stage]["p50"] for stage in compare.STAGES) < 2 * run["ms"]["frame"]["max"]
        assert "times_faster" not in run
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == found
    assert {"machine", "versions", "commit", "settings"} <= set(found)


def test_beside_the_public_code_both_are_timed_and_held_against_each_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compare, "public_model", lambda *_: Standing())
    main(Settings(model="tapir", public=tmp_path, points=(7,), frames=2, warm_up=0, threads=1))
    (run,) = document(capsys)["results"]["runs"]
    assert set(run["ms"]) > {"frame", "public encode", "public match and refine", "public frame"}
    ratio = run["ms"]["public frame"]["p50"] / run["ms"]["frame"]["p50"]
    assert run["times_faster"] == pytest.approx(ratio, abs=0.01)
    assert run["difference_px"] > 0


def test_a_folder_without_the_public_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="is not a checkout of tapnet"):
        public_model(tmp_path, TINY_PUBLIC, {})


def test_a_checkpoint_that_is_not_public_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "own.pt")
    with pytest.raises(BenchError, match="is not a public checkpoint"):
        public_state(tmp_path / "own.pt", TINY_PUBLIC)


def test_the_texture_moves_by_two_pixels_a_frame() -> None:
    frames = list(compare.sliding_texture(3))
    assert np.array_equal(frames[2][:, :-4], frames[0][:, 4:])
