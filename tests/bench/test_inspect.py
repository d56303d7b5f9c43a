"""The inspect bench holds both trackers against each other frame by frame, and has no figures where tracks differ."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench import inspect
from bench.command import BenchError
from bench.inspect import Settings, Took, Trial
from online_tapir.records import Inspection, Tracks
from online_tapir.tracking.tracker import Tracker

SETTINGS = Settings(points=3, size="49x33", blocks=2, frames=2, warm_up=1, device="cpu", threads=1)


def test_a_ratio_is_of_the_same_frame() -> None:
    pairs = [((10, 2), (11, 8)), ((100, 2), (110, 4)), ((20, 2), (60, 2))]
    trials = [Trial("on", Took(*never), Took(*now)) for never, now in pairs]
    assert inspect.ratios("on", trials) == {"on_over_never": 1.1, "on_over_never_cpu": 2}


def test_blocks_with_and_without_an_inspection_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Inspection | None, int]] = []
    step = Tracker.step

    def watched(self: Tracker, rgb: np.ndarray) -> Tracks:
        tracks = step(self, rgb)
        seen.append((tracks.inspection, tracks.frame_id))
        return tracks

    monkeypatch.setattr(Tracker, "step", watched)
    trials = inspect.measure(SETTINGS)
    assert [trial.inspection for trial in trials] == ["off"] * 2 + ["on"] * 2 + ["off"] * 2 + ["on"] * 2
    inspected = [(seen.id, frame_id) for seen, frame_id in seen if seen is not None]
    assert inspected == [(1, frame_id) for frame_id in (3, 4, 5, 9, 10, 11)]


def test_the_document_has_the_medians_and_their_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    inspect.main(SETTINGS)
    results = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert [results["ms"][kind]["count"] for kind in ("never inspected", "off", "on")] == [8, 4, 4]
    assert results["off_over_never"] > 0
    assert results["on_over_never"] > 0
    assert results["tracks_identical"]


def test_tracks_that_differ_are_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Tracker.step

    def spoilt(self: Tracker, rgb: np.ndarray) -> Tracks:
        tracks = step(self, rgb)
        return replace(tracks, xy=np.nextafter(tracks.xy, np.float32(1e9))) if tracks.inspection else tracks

    monkeypatch.setattr(Tracker, "step", spoilt)
    with pytest.raises(BenchError, match="frame 3: xy of the two trackers differ"):
        inspect.measure(SETTINGS)
