"""What is to stall is connected first, and stands still then."""

import socket

import psutil  # type: ignore[import-untyped]
import pytest

from bench import stalled
from bench.command import BenchError
from bench.stalled import RerunServer, free_port, rerun_server


def test_a_connected_viewer_is_stopped_and_ended_all_the_same() -> None:
    if stalled.find_viewer() is None:
        pytest.skip("rerun's viewer is not installed")
    with rerun_server() as server, socket.create_connection(("127.0.0.1", server.port)):
        server.stop_reading(psutil.Process())
        assert server.process.status() == psutil.STATUS_STOPPED
    assert not server.process.is_running()


def test_a_viewer_that_nobody_is_connected_to_does_not_stall() -> None:
    process = psutil.Process()
    with pytest.raises(BenchError, match="not connected to the Rerun viewer"):
        RerunServer(process, 1).stop_reading(process)


def test_a_missing_viewer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalled, "find_viewer", lambda: None)
    with pytest.raises(BenchError, match="pip install rerun-sdk"), rerun_server():
        pass


def test_a_viewer_that_does_not_listen_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalled, "PATIENCE_S", 0.0)
    with pytest.raises(BenchError, match="did not listen"):
        stalled.wait_for_listener(free_port())
