"""The live bench measures the real program, and its arithmetic is right on hand-made messages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import live, stalled
from bench.command import BenchError
from bench.live import (
    NOT_THE_MODEL,
    Case,
    Measured,
    Received,
    Settings,
    figures,
    frames_by_second,
    jitter_ms,
    main,
    over_nothing,
    resizing_ms,
    spreads_ms,
    summary,
)
from bench.report import Spread
from online_tapir.records import StageTimes, Tracks

MS = 1_000_000
NONE = np.zeros(0, np.float32)


def message(index: int, frame_id: int | None = None, dropped: int = 0, late_ms: int = 0) -> Received:
    """Of a camera of 10 fps: grabbed at index * 100 ms, published 30 ms and received 32 ms later."""
    grabbed_ns = index * 100 * MS
    tracks = Tracks(
        frame_id=index if frame_id is None else frame_id,
        captured_ns=grabbed_ns,
        captured_unix_ns=grabbed_ns + 5,
        published_unix_ns=grabbed_ns + 5 + 30 * MS,
        width=33,
        height=17,
        ids=np.zeros(0, np.int32),
        xy=np.zeros((0, 2), np.float32),
        visible=np.zeros(0, np.bool_),
        occlusion=NONE,
        uncertainty=NONE,
        dropped=dropped,
        times=StageTimes(upload=MS, download=3 * MS, publish=index * MS),
    )
    received_ns = grabbed_ns + (32 + late_ms) * MS
    return Received(tracks, received_ns, received_ns + 5)


def test_latencies_begin_at_the_grab_and_end_where_they_say() -> None:
    spreads = spreads_ms([[message(i) for i in range(1, 8)]])
    assert (spreads["capture to publish"].p50, spreads["capture to receive"].max) == (30, 32)
    assert spreads["receive"].p95 == 2


def test_what_is_beside_the_model_takes_a_frames_publishing_from_the_message_after_it() -> None:
    spreads = spreads_ms([[message(i) for i in range(1, 4)]])
    beside = spreads[NOT_THE_MODEL]
    assert (beside.count, beside.p50, beside.max) == (2, 1 + 3 + 2 + 2, 1 + 3 + 3 + 2)


def test_a_late_message_is_jitter_twice() -> None:
    messages = [message(i, late_ms=7 * (i == 3)) for i in range(7)]
    np.testing.assert_allclose(jitter_ms(messages), [0, 0, 7, 7, 0, 0])


def test_rates_drops_and_gaps_are_counted() -> None:
    messages = [message(i, frame_id=2 * i, dropped=i) for i in range(31)]
    found = figures([Measured(messages, cpu_seconds=1.5, rss_mib=100.0)])
    assert (found["fps"], found["fps_median_second"], found["fps_slowest_second"]) == (10, 10, 10)
    assert (found["dropped_by_camera"], found["frame_ids_skipped"], found["cpus_busy"]) == (30, 30, 0.5)
    assert found["answered_share"] == 0.5


def test_rounds_are_pooled_without_the_time_between_them() -> None:
    rounds = [
        Measured([message(i) for i in range(11)], 0.5, 100.0),
        Measured([message(i) for i in range(91, 122)], 1, 90),
    ]
    found = figures(rounds)
    assert (found["fps"], found["cpus_busy"], found["rss_mib"], found["answered_share"]) == (10, 0.38, 100, 1)
    pooled = summary(rounds, Spread.of([0.25]))
    assert pooled["ms"]["capture to receive"].count == 42
    assert pooled["ms"]["jitter: interval of receipt, from its median"].max == 0
    assert pooled["not_the_model_p95_ms"] == pooled["ms"][NOT_THE_MODEL].p95 + 0.25


def test_a_run_is_held_against_the_one_at_its_rate_with_nothing_beside_it() -> None:
    def run(fps: float, beside: live.Beside, ms: float) -> dict[str, Any]:
        return {"setting": Case(fps, beside), "ms": {"capture to receive": Spread.of([ms])}}

    runs = [run(30, "nothing", 20), run(30, "rerun-stalled", 21), run(60, "rerun-stalled", 99)]
    assert [over_nothing(one, runs) for one in runs] == [{}, {"p50_over_nothing": 1.05, "p95_over_nothing": 1.05}, {}]


def test_resizing_is_timed_by_itself_after_warm_up() -> None:
    found = resizing_ms(Settings(size="49x33", warm_up=1, threads=1))
    assert len(found) == live.RESIZES
    assert found.min() > 0


def test_only_whole_seconds_are_counted() -> None:
    assert frames_by_second([message(i) for i in range(7)]).tolist() == []
    assert frames_by_second([message(i) for i in range(25)]).tolist() == [10, 10]


def test_the_real_program_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(points=7, size="49x33", frames=5, warm_up=1, threads=1)
    main(settings, json=tmp_path / "live.json", plot=tmp_path / "live.svg")
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document == json.loads((tmp_path / "live.json").read_text())
    (results,) = document["results"]["runs"]
    assert results["setting"] == {"fps": 0, "beside": "nothing"}
    assert results["distribution_ms"]["value"][-1] == results["ms"]["capture to receive"]["max"]
    assert (tmp_path / "live.svg").exists()
    assert (results["dropped_by_camera"], results["frame_ids_skipped"]) == (0, 0)
    assert results["ms"]["capture to receive"]["count"] == 5
    assert 0 < results["ms"]["encode"]["p50"] < results["ms"]["capture to publish"]["p50"]


def test_a_program_that_cannot_start_ends_the_bench(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BenchError, match="ended with 2"):
        main(Settings(size="8x8"))
    assert "must be 16 to 16384 pixels" in capfd.readouterr().err


@pytest.mark.parametrize("beside", ["rerun-stalled", "subscriber-stalled"])
def test_one_that_has_stopped_reading_stops_nothing(beside: live.Beside, capsys: pytest.CaptureFixture[str]) -> None:
    if beside == "rerun-stalled" and stalled.find_viewer() is None:
        pytest.skip("rerun's viewer is not installed")
    main(Settings(points=7, size="49x33", fps=(60,), beside=(beside,), frames=20, warm_up=30, threads=1))
    (run,) = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]["runs"]
    assert run["ms"]["capture to receive"]["count"] == 20
