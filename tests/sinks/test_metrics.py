"""What Prometheus reads is what happened, whoever asks delays no frame, and other machines may not ask."""

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from online_tapir.camera import Capture, SyntheticCamera
from online_tapir.errors import ConfigError, PublishError
from online_tapir.live.stream import Stream
from online_tapir.records import Frame, StageTimes, Tracks
from online_tapir.sinks import metrics_server
from online_tapir.sinks.metrics import Metrics
from online_tapir.testing import FakeTracker, Grid, make_tracks, run
from online_tapir.wire.security import Access

RGB = np.zeros((33, 49, 3), np.uint8)
MS = 1_000_000


def port_of(served: Metrics) -> int:
    """The port that it serves on."""
    return int(served.url.rpartition(":")[2].partition("/")[0])


def made(frame_id: int = 7, visible: tuple[bool, ...] = (True, False, True), captured_ns: int = 0) -> Tracks:
    return make_tracks(
        frame_id,
        np.zeros((len(visible), 2)),
        visible=visible,
        captured_ns=captured_ns,
        captured_unix_ns=1_700_000_000_500_000_000,
        camera="desk",
        model="tiny",
        times=StageTimes(encode=20 * MS, refine=7 * MS),
    )


def read(served: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its labels' values."""
    with urllib.request.urlopen(served.url, timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


@pytest.fixture
def served() -> Iterator[Metrics]:
    with closing(Metrics("0", monotonic_ns=lambda: 40 * MS)) as served:
        yield served


@pytest.fixture
def watched(served: Metrics) -> tuple[Capture, Stream]:
    tracker: Any = FakeTracker()
    stream = Stream(Capture(SyntheticCamera([RGB], live=True)), tracker, threading.Event())
    served.begin(stream)
    return stream.capture, stream


@pytest.mark.parametrize("frames", [1, 7, 33])
def test_frames_and_their_latency_are_counted(served: Metrics, frames: int) -> None:
    for frame_id in range(frames):
        served.publish(Frame(frame_id, 0, 0, RGB), made(frame_id))
    found = read(served)
    assert found["online_tapir_frames_total", "desk"] == frames
    assert found["online_tapir_latency_seconds_count", "desk"] == frames
    assert found["online_tapir_latency_seconds_bucket", "desk", "0.033"] == 0
    assert found["online_tapir_latency_seconds_bucket", "desk", "0.05"] == frames
    assert found["online_tapir_latency_seconds_sum", "desk"] == pytest.approx(0.04 * frames)
    assert found["online_tapir_stage_seconds_sum", "desk", "encode"] == pytest.approx(0.02 * frames)
    assert found["online_tapir_stage_seconds_sum", "desk", "refine"] == pytest.approx(0.007 * frames)


def test_points_are_told_by_state_as_of_the_last_frame(served: Metrics) -> None:
    served.publish(Frame(1, 0, 0, RGB), made(visible=(True,) * 33))
    served.publish(Frame(2, 0, 0, RGB), made(visible=(True, False, False)))
    found = read(served)
    assert found["online_tapir_points", "desk", "visible"] == 1
    assert found["online_tapir_points", "desk", "hidden"] == 2
    assert found["online_tapir_last_frame_timestamp_seconds", "desk"] == 1_700_000_000.5


def test_the_process_and_what_it_runs_are_told(served: Metrics) -> None:
    served.publish(Frame(1, 0, 0, RGB), made())
    found = read(served)
    assert found["process_resident_memory_bytes",] > 1e6
    assert found["process_open_fds",] > 2
    assert any({"desk", "tiny"} <= set(key) for key in found if key[0] == "online_tapir_info")


def test_before_the_first_frame_there_is_an_answer_already(served: Metrics, watched: tuple[Capture, Stream]) -> None:
    found = read(served)
    assert found["online_tapir_frames_total", "synthetic"] == 0
    assert ("online_tapir_points", "synthetic", "visible") not in found


@pytest.mark.parametrize("state", ["streaming", "stalled", "lost"])
def test_the_source_is_told_as_it_is_when_somebody_asks(
    served: Metrics,
    watched: tuple[Capture, Stream],
    monkeypatch: pytest.MonkeyPatch,
    state: Literal["streaming", "stalled", "lost"],
) -> None:
    capture, stream = watched
    stream.skipped, stream.requests = 5, 33
    monkeypatch.setattr(capture, "_health", replace(capture.health, state=state, reconnects=3, corrupt=7))
    found = read(served)
    states = {key[2]: value for key, value in found.items() if key[0] == "online_tapir_source_state"}
    assert states == {one: float(one == state) for one in ("streaming", "stalled", "lost", "paused")}
    assert found["online_tapir_dropped_frames_total", "synthetic"] == 7 + 5
    assert found["online_tapir_corrupt_frames_total", "synthetic"] == 7
    assert found["online_tapir_reconnects_total", "synthetic"] == 3
    assert found["online_tapir_control_requests_total", "synthetic"] == 33


def test_a_paused_run_says_so_whatever_its_source_does(served: Metrics, watched: tuple[Capture, Stream]) -> None:
    watched[1].pause()
    found = read(served)
    assert found["online_tapir_source_state", "synthetic", "paused"] == 1
    assert found["online_tapir_source_state", "synthetic", "streaming"] == 0


def test_no_address_and_no_position_is_told(served: Metrics, watched: tuple[Capture, Stream]) -> None:
    served.publish(Frame(1, 0, 0, RGB), made())
    words = {word for key in read(served) for word in key}
    assert not [word for word in words if "://" in word or "xy" in word]


def test_a_client_that_says_nothing_delays_others_for_a_moment_only(
    served: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_connection(("127.0.0.1", port_of(served))) as silent:
        own = silent.getsockname()
        limit = property(lambda handler: 0.05 if handler.client_address == own else 30)
        monkeypatch.setattr(metrics_server._Handler, "timeout", limit)
        assert read(served)["process_open_fds",] > 0


def test_asking_often_needs_no_more_threads(served: Metrics) -> None:
    before = threading.active_count()
    for _ in range(7):
        read(served)
    assert threading.active_count() <= before


def test_counting_a_frame_takes_a_fraction_of_a_millisecond(served: Metrics) -> None:
    frame, tracks = Frame(1, 0, 0, RGB), made(visible=(True,) * 256)
    begun = time.thread_time_ns()
    for _ in range(1000):
        served.publish(frame, tracks)
    assert (time.thread_time_ns() - begun) / 1000 < 0.5 * MS


def test_when_it_is_closed_nobody_listens_and_the_thread_is_gone() -> None:
    before = threading.active_count()
    served = Metrics("0")
    port = port_of(served)
    served.close()
    served.close()
    assert threading.active_count() <= before
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))


def test_a_port_in_use_is_refused_with_another_to_try(served: Metrics) -> None:
    with pytest.raises(PublishError, match="choose another \\(for example --metrics"):
        Metrics(str(port_of(served)))


@pytest.mark.parametrize("address", ["0.0.0.0:0", ":::0", "*:0", "192.0.2.7:9464"])
def test_other_machines_may_not_ask_unless_anyone_may(address: str) -> None:
    with pytest.raises(PublishError, match="say --insecure"):
        Metrics(address)


def test_with_insecure_every_address_of_the_machine_answers() -> None:
    with closing(Metrics("0.0.0.0:0", access=Access(insecure=True))) as served:
        assert read(served)["process_open_fds",] > 0


@pytest.mark.parametrize("address", ["0", "127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_loopback_needs_no_word(address: str) -> None:
    try:
        served = Metrics(address)
    except PublishError as error:
        pytest.skip(f"this machine has no such loopback: {error}")
    with closing(served):
        assert read(served)["process_open_fds",] > 0


@pytest.mark.parametrize("address", ["", "http", "65536", "-1", "127.0.0.1:", "²", "9464/metrics"])
def test_what_is_no_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="is not a port; write 9464"):
        Metrics(address)


def test_the_loop_counts_every_frame(make_frames: Callable[..., Any]) -> None:
    with closing(Metrics("0")) as served:
        run(SyntheticCamera(make_frames(7)), FakeTracker(), Grid(3, 2), [served])
        found = read(served)
    assert found["online_tapir_frames_total", "synthetic"] == 7
    assert (
        found["online_tapir_points", "synthetic", "visible"] + found["online_tapir_points", "synthetic", "hidden"] == 6
    )
    assert found["online_tapir_dropped_frames_total", "synthetic"] == 0
