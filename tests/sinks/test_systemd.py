"""A service manager hears that the run is ready, that it lives, and that it ends; and may be deaf."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from online_tapir.live.stream import Stream
from online_tapir.records import Frame
from online_tapir.sinks.systemd import Watchdog
from online_tapir.testing import make_tracks
from online_tapir.wire.messages import Heartbeat

FRAME = Frame(7, 0, 0, np.zeros((33, 49, 3), np.uint8))
TRACKS = make_tracks(7, np.zeros((3, 2)), visible=[True, False, True], occlusion=0.5, uncertainty=0.5)
LOST = Heartbeat("desk", "lost", 7, 0, 3)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        yield manager


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_the_first_frame_is_readiness_and_later_ones_are_life(manager: socket.socket) -> None:
    now_ns = [0]
    watchdog = Watchdog(manager.getsockname(), monotonic_ns=lambda: now_ns[0])
    watchdog.publish(FRAME, TRACKS)
    assert heard(manager) == ["READY=1", "WATCHDOG=1", "STATUS=2 of 3 points visible on frame 7"]
    watchdog.publish(FRAME, TRACKS)  # within a second: nothing
    now_ns[0] += 1_000_000_000
    watchdog.beat(LOST)
    assert heard(manager) == ["WATCHDOG=1", "STATUS=lost; the last frame was 7"]
    watchdog.close()
    watchdog.close()
    assert heard(manager) == ["STOPPING=1"]


def test_a_run_that_is_silent_for_long_still_lives(manager: socket.socket) -> None:
    now_ns, stream = [0], Stream.__new__(Stream)
    with closing(Watchdog(manager.getsockname(), monotonic_ns=lambda: now_ns[0])) as watchdog:
        watchdog.serve(stream)  # not ready yet
        watchdog.publish(FRAME, TRACKS)
        assert heard(manager)[0] == "READY=1"
        for _ in range(3):
            watchdog.serve(stream)
            now_ns[0] += 1_000_000_000
            watchdog.serve(stream)
            assert heard(manager) == ["WATCHDOG=1"]
        watchdog.beat(LOST)  # in the same moment as a sign of life, and what it says is told all the same
        assert heard(manager) == ["WATCHDOG=1", "STATUS=lost; the last frame was 7"]


def test_a_run_whose_camera_gives_nothing_is_ready_all_the_same(manager: socket.socket) -> None:
    with closing(Watchdog(manager.getsockname())) as watchdog:
        watchdog.beat(LOST)
        assert heard(manager)[0] == "READY=1"


def test_a_manager_without_a_file_is_reached(manager: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind("")  # a name that is free
        abstract.settimeout(5)
        name = "@" + abstract.getsockname()[1:].decode()
        with closing(Watchdog(name)) as watchdog:
            watchdog.beat(LOST)
            assert "WATCHDOG=1" in heard(abstract)


def test_a_manager_that_does_not_listen_stops_nothing(tmp_path: Path) -> None:
    with closing(Watchdog(str(tmp_path / "nobody"))) as watchdog:
        watchdog.publish(FRAME, TRACKS)


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_nobody_is_told_who_did_not_ask(environ: dict[str, str]) -> None:
    assert Watchdog.asked_for(environ) is None


def test_whoever_asks_is_told(manager: socket.socket) -> None:
    watchdog = Watchdog.asked_for({"NOTIFY_SOCKET": manager.getsockname()})
    assert watchdog is not None
    watchdog.beat(LOST)
    assert heard(manager)[0] == "READY=1"
    watchdog.close()
