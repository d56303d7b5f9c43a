"""Figures by hand, memory that does not grow, and each way of showing them."""

import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from online_tapir.live.status import (
    Histogram,
    JsonStatus,
    PlainStatus,
    Rolling,
    RunStatistics,
    Status,
    StatusLine,
    Summary,
    open_status,
    percentile,
)
from online_tapir.records import Frame, StageTimes, Tracks
from online_tapir.testing import make_tracks

MS = 1_000_000
SECOND = 1_000 * MS
HIDDEN = math.nan


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def tracks(
    frame_id: int, captured_ns: int, visible: tuple[bool, ...] = (True, False, True), dropped: int = 0
) -> Tracks:
    return make_tracks(
        frame_id,
        np.zeros((len(visible), 2)),
        visible=visible,
        size=(33, 17),
        captured_ns=captured_ns,
        dropped=dropped,
        camera="demo",
        times=StageTimes(encode=3 * MS, match=MS),
    )


FRAME = Frame(0, 0, 0, np.zeros((17, 33, 3), np.uint8))


def add(statistics: RunStatistics, now_ns: int, of: Tracks, error_px: np.ndarray) -> None:
    statistics.judge(now_ns, of, error_px)
    statistics.add(now_ns, of)


def run(status: Status, clock: Hand, frames: int, period_ms: int = 100, latency_ms: int = 20) -> None:
    for frame_id in range(frames):
        clock.now_ns = frame_id * period_ms * MS
        status.publish(FRAME, tracks(frame_id, clock.now_ns - latency_ms * MS))


def test_percentiles_are_the_nearest_rank() -> None:
    values = [15, 20, 35, 40, 50]
    assert [percentile(values, q) for q in (0, 5, 30, 40, 50, 100)] == [15, 15, 20, 20, 35, 50]
    assert percentile([7], 99) == 7
    assert math.isnan(percentile([], 50))


def test_rolling_forgets_what_is_older_than_its_window() -> None:
    rolling = Rolling(window_ns=SECOND)
    assert rolling.rate() == 0
    for tenth in range(50):
        rolling.add(tenth * 100 * MS, value=tenth)
    assert rolling.rate() == pytest.approx(10)
    assert rolling.percentile(0) == 39
    assert rolling.percentile(100) == 49


def test_rolling_keeps_a_bounded_number_at_any_rate() -> None:
    rolling = Rolling(window_ns=SECOND, capacity=7)
    for now_ns in range(100):
        rolling.add(now_ns, math.nan if now_ns == 99 else now_ns)
    assert rolling.percentile(0) == 93
    assert rolling.percentile(100) == 98
    assert rolling.rate() == pytest.approx(1e9)


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=33), st.floats(0, 100))
def test_a_histogram_is_right_to_one_per_cent(values: list[float], q: float) -> None:
    histogram = Histogram()
    histogram.add(values)
    assert histogram.percentile(q) == pytest.approx(percentile(values, q), rel=0.0101)
    assert histogram.max == max(values)
    assert histogram.count == len(values)


def test_a_histogram_takes_anything_from_nothing_to_beyond_its_range() -> None:
    histogram = Histogram()
    assert math.isnan(histogram.percentile(50))
    histogram.add([])
    histogram.add([-1.0, 0.0, 1e12])
    assert histogram.count == 3
    assert histogram.max == 1e12


def test_recent_figures_by_hand() -> None:
    statistics = RunStatistics()
    for frame_id in range(5):
        now_ns = frame_id * 40 * MS
        add(statistics, now_ns, tracks(frame_id, now_ns - (frame_id + 1) * MS, dropped=2), np.array([1.0, HIDDEN, 3.0]))
    recent = statistics.recent()
    assert recent.fps == pytest.approx(25)
    assert (recent.latency_p50_ms, recent.latency_p95_ms) == (3, 5)
    assert (recent.visible, recent.points, recent.dropped, recent.error_px) == (2, 3, 2, 1.0)
    assert "2/3 visible · 2 dropped · error 1.00 px" in str(recent)


def test_a_summary_by_hand() -> None:
    statistics = RunStatistics()
    for frame_id in range(11):
        now_ns = SECOND + frame_id * 100 * MS
        latency_ms = 90 if frame_id == 4 else 10
        statistics.add(now_ns, tracks(frame_id, now_ns - latency_ms * MS, dropped=frame_id))
    summary = statistics.summary()
    assert (summary.frames, summary.seconds, summary.fps, summary.dropped, summary.points) == (11, 1, 10, 10, 3)
    assert summary.latency_p50_ms == pytest.approx(10, rel=0.01)
    assert summary.latency_p99_ms == pytest.approx(90, rel=0.01)
    assert summary.latency_max_ms == 90
    assert summary.stages_ms["encode"] == pytest.approx(3, rel=0.01)
    assert (summary.error_px, summary.occlusion_accuracy) == (None, None)
    assert "11 frames in 1.0 s: 10.0 fps, 10 dropped" in str(summary)


def test_the_truth_judges_positions_where_visible_and_occlusion_everywhere() -> None:
    statistics = RunStatistics()
    visible = (True, True, False, False)
    add(statistics, 0, tracks(0, 0, visible), np.array([2.0, HIDDEN, HIDDEN, 4.0]))
    add(statistics, 1, tracks(1, 0, visible), np.array([2.0, 2.0, HIDDEN, HIDDEN]))
    add(statistics, 2, tracks(2, 0, visible), np.full(4, HIDDEN))
    summary = statistics.summary()
    assert summary.error_px == pytest.approx(2, rel=0.01)
    assert summary.occlusion_accuracy == (2 + 4 + 2) / 12
    assert statistics.recent().error_px == 2
    assert "median error on visible points: 2." in str(summary)


def test_errors_for_other_points_are_our_mistake() -> None:
    with pytest.raises(AssertionError, match="2 errors for 3 points"):
        RunStatistics().judge(0, tracks(0, 0), np.zeros(2))


def test_no_points_and_no_frames_are_no_trouble() -> None:
    statistics = RunStatistics()
    assert str(statistics.summary()) == "no frames"
    add(statistics, 0, tracks(0, 0, visible=()), np.zeros(0))
    assert statistics.recent().error_px is None
    assert statistics.summary().fps == 0


def test_a_pipe_gets_a_line_every_five_seconds_then_the_summary() -> None:
    out, clock = io.StringIO(), Hand()
    status = PlainStatus(Console(file=out, width=40), monotonic_ns=clock)
    run(status, clock, frames=101)
    status.note("camera [red]0[/red] is back")
    status.finish()
    lines = out.getvalue().splitlines()
    assert [line.split(" ·")[0] for line in lines[:3]] == ["demo #0", "demo #50", "demo #100"]
    assert "10.0 fps · p50 20.0 p95 20.0 ms" in lines[2]
    assert lines[3] == "camera [red]0[/red] is back"
    assert lines[4].startswith("101 frames in 10.0 s")


def test_a_terminal_has_one_line_and_gets_it_back() -> None:
    out, clock = io.StringIO(), Hand()
    status = StatusLine(Console(file=out, width=120, force_terminal=True, _environ={}), monotonic_ns=clock)
    run(status, clock, frames=5)
    status.note("hello")
    status.finish()
    status.close()
    assert "demo #4" in out.getvalue()
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1  # cursor hidden, and shown again
    assert "5 frames in 0.4 s" in out.getvalue()


def test_a_json_log_has_an_object_a_second_and_no_nan() -> None:
    out, clock = io.StringIO(), Hand()
    status = JsonStatus(out, monotonic_ns=clock, unix_ns=lambda: 7)
    run(status, clock, frames=21)
    status.note("ünïcode")
    status.finish()
    JsonStatus(out, unix_ns=lambda: 8).finish()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    events = [json.loads(line, parse_constant=refuse) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["status", "status", "status", "note", "summary", "summary"]
    assert [event["frame_id"] for event in events[:3]] == [0, 10, 20]
    assert events[2]["unix_ns"] == 7
    assert events[2]["error_px"] is None
    assert events[4]["frames"] == 21
    assert events[5]["latency_p50_ms"] is None


def test_quiet_counts_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    clock = Hand()
    status = Status(monotonic_ns=clock)
    run(status, clock, frames=100)
    status.note("nobody hears this")
    status.finish()
    assert isinstance(status.summary(), Summary)
    assert status.summary().frames == 100
    assert capfd.readouterr() == ("", "")


def test_the_flags_choose_the_status() -> None:
    assert type(open_status(quiet=True)) is Status
    assert type(open_status(json_log=True)) is JsonStatus
    assert type(open_status()) is PlainStatus  # pytest's stderr is no terminal
