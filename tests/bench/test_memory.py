"""The memory bench runs the real loop, and compares the first sample after warm-up with the last."""

import json

import pytest

from bench.command import BenchError
from bench.memory import Sample, Settings, figures, main


def test_the_end_is_held_against_the_first_sample_after_warm_up() -> None:
    samples = [Sample(100, 90.0, 9, 9), Sample(200, 100.0, 10, 4), Sample(300, 130.0, 12, 5), Sample(400, 105.0, 11, 4)]
    found = figures(samples, warm_up=150)
    assert (found["rss_mib_after_warm_up"], found["rss_mib_at_the_end"], found["ratio"]) == (100, 105, 1.05)
    assert (found["open_files_fewest"], found["open_files_most"]) == (10, 12)
    assert (found["threads_fewest"], found["threads_most"]) == (4, 5)


def test_the_real_loop_is_watched_to_its_last_frame(capsys: pytest.CaptureFixture[str]) -> None:
    main(Settings(points=7, size="49x33", frames=5, warm_up=2, every=2))
    results = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert [sample["frames"] for sample in results["samples"]] == [2, 4, 5]
    assert results["points_added"] >= 7
    assert results["rss_mib_at_the_end"] > 0


def test_a_run_shorter_than_its_warm_up_is_refused() -> None:
    with pytest.raises(BenchError, match="end before"):
        main(Settings(frames=7, warm_up=33))
