"""A source that is not there yet is waited for, and the run lives meanwhile."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from online_tapir.camera import Awaited, Camera, Reconnect, SyntheticCamera
from online_tapir.errors import CameraError
from online_tapir.testing import FakeTracker, Grid, ListSink, run
from online_tapir.wire.messages import Heartbeat
from tests.cli.test_app import tracking_refused

LONG = 30.0


def test_a_stream_that_is_down_at_first_is_waited_for(make_frames: Callable[..., Any]) -> None:
    beaten, notes = threading.Event(), list[str]()

    class Sink(ListSink):
        def beat(self, heartbeat: Heartbeat) -> None:
            super().beat(heartbeat)
            if heartbeat.state == "lost":
                beaten.set()

    def reopen() -> Camera:
        assert beaten.wait(LONG)
        return SyntheticCamera(make_frames(3), name="door", live=True)

    sink = Sink()
    camera = Awaited("rtsp://ann:s3cret@host:7/live", None, CameraError("host:7 cannot be reached"))
    soon = Reconnect(first_wait_s=1e-3, longest_wait_s=1e-3)
    how: dict[str, Any] = {"heartbeat_s": 1e-3, "reopen": reopen, "reconnect": soon, "report": notes.append}
    run(camera, FakeTracker(), Grid(3, 2), [sink], **how)
    assert notes[0] == "host:7 cannot be reached; it is being opened again"
    lost = next(beat for beat in sink.heartbeats if beat.state == "lost")
    assert (lost.frame_id, lost.camera) == (-1, "host:7")
    assert {(tracks.width, tracks.height, tracks.camera) for tracks in sink.tracks} == {(96, 64, "host:7")}
    assert "s3cret" not in camera.description


def test_an_address_that_nobody_serves_is_waited_for_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    for words in (("--no-wait",), ("--no-reconnect",), ("--reconnect-attempts", 0)):
        assert "cannot be reached" in tracking_refused(capsys, "--camera", address, "--control", "off", *words)
    said = tracking_refused(capsys, "--camera", address, "--control", "off", "--reconnect-attempts", 1)
    assert "not open yet" in said
    assert "it is being opened again" in said
