"""The viewer bench fills a real server of Rerun, and holds its memory at the end against that when it was full."""

import json

import pytest

from bench import viewer
from bench.command import BenchError
from bench.viewer import Sample, Settings, figures, main
from online_tapir.sinks.rerun import viewer as rerun

SETTINGS = Settings(memory=1, frames=240, fps=60, every=20, points=7, size="49x33", scene=3, pictures=("49x33",))


def test_the_end_is_held_against_the_first_sample_that_is_full() -> None:
    rss = [(100, 50.0), (200, 100.0), (300, 130.0), (400, 105.0)]
    found = figures([Sample(frames, frames / 60, mib, 10.0) for frames, mib in rss], full_at=150)
    assert (found["full_at_frame"], found["rss_mib_at_first"], found["rss_mib_when_full"]) == (200, 50, 100)
    assert (found["ratio"], found["highest_ratio"], found["rss_mib_highest"]) == (1.05, 1.3, 130)


def test_a_real_server_is_filled_and_watched(capsys: pytest.CaptureFixture[str]) -> None:
    if rerun.find_viewer() is None:
        pytest.skip("rerun's viewer is not installed")
    main(SETTINGS)
    results = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert [sample["frames"] for sample in results["samples"]] == list(range(20, 241, 20))
    assert results["rss_mib_at_the_end"] > 1
    assert results["bytes_a_frame_to_a_viewer"] > 1000
    assert set(results["pictures"]["49x33"]) == {"whole", "1280 pixels at most"}


def test_a_run_too_short_to_fill_the_viewer_is_refused_with_one_that_is_not() -> None:
    with pytest.raises(BenchError, match=r"fill 100 MB too late; raise --frames to \d+"):
        main(Settings(memory=100, frames=10, points=1, size="49x33", scene=2, pictures=()))


def test_a_window_that_is_open_already_is_not_drawn_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "listens", lambda host, port: True)
    with pytest.raises(BenchError, match="open on port"), viewer.started(Settings(viewer="window")):
        pass
