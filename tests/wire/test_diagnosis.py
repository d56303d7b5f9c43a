"""Whoever hears nothing is told why: nobody there, other cameras, no frame yet, or keys."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest

from online_tapir.records import Frame
from online_tapir.sinks.zmq import ZmqPublisher
from online_tapir.testing import make_tracks
from online_tapir.wire.diagnosis import why_silent
from online_tapir.wire.messages import Heartbeat
from online_tapir.wire.security import Access, load_keys, new_keys, trust

LOOPBACK = "tcp://127.0.0.1:0"
FRAME = Frame(0, 0, 0, np.zeros((33, 49, 3), np.uint8))
SHORT, LONG = 300, 30_000  # milliseconds to listen; only a broken diagnosis uses all of the long one


def told_at_last(address: str, camera: str | None, wanted: str) -> str:
    """What is told after a short time, when that is what is `wanted`; a slow machine may need several attempts."""
    for _ in range(60):
        told = why_silent(address, camera, None, SHORT)
        if told == wanted:
            break
    return told


@pytest.fixture
def publishing() -> Iterator[Callable[[str], str]]:
    """Publishes tracks of a camera over and over; returns the address."""
    over = threading.Event()
    with ExitStack() as opened:

        def publish(camera: str) -> str:
            publisher = opened.enter_context(closing(ZmqPublisher(LOOPBACK)))

            def go() -> None:
                while not over.wait(0.005):
                    publisher.publish(FRAME, make_tracks(camera=camera))

            thread = threading.Thread(target=go)
            thread.start()
            opened.callback(thread.join)
            return publisher.address

        yield publish
        over.set()


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """Of a tracker, and of a client that it does not know."""
    robot, stranger = tmp_path / "robot", tmp_path / "stranger"
    for folder in (robot, stranger):
        new_keys(folder)
    trust(stranger, robot / "robot.key")
    return robot, stranger


def test_other_cameras_that_are_published_are_named(publishing: Callable[[str], str]) -> None:
    address = publishing("desk")
    wanted = {"door": f"{address} publishes desk; name one of these with --camera"}
    for camera in ("door", "desk", None):
        told = wanted.get(camera or "", f"{address} has begun to publish")
        assert told_at_last(address, camera, told) == told


def test_a_publisher_without_a_frame_is_told_from_none() -> None:
    with closing(ZmqPublisher(LOOPBACK)) as publisher:
        attempts = (why_silent(publisher.address, None, None, SHORT) for _ in range(60))
        assert any(told.endswith("where nothing has been published for 0.3 s") for told in attempts)
    assert why_silent(publisher.address, None, None, LONG).startswith(f"nobody listens at {publisher.address}")


@pytest.mark.parametrize("states", [["lost"], ["lost", "paused"]])
def test_cameras_that_send_no_frames_are_told_with_their_state(states: list[str]) -> None:
    over = threading.Event()
    with closing(ZmqPublisher(LOOPBACK)) as publisher:

        def go() -> None:
            while not over.wait(0.005):
                for number, state in enumerate(states):
                    publisher.beat(Heartbeat(f"camera{number}", state, 5, 0, 1))  # type: ignore[arg-type]

        there = ", ".join(f"camera{number} is {state}" for number, state in enumerate(states))
        wanted = f"{publisher.address} sends no frames: {there}"
        thread = threading.Thread(target=go)
        thread.start()
        try:
            assert told_at_last(publisher.address, None, wanted) == wanted
        finally:
            over.set()
            thread.join()


def test_keys_that_are_missing_unknown_or_needless_are_told_apart(keys: tuple[Path, Path]) -> None:
    robot, stranger = keys
    with closing(ZmqPublisher(LOOPBACK, access=Access(load_keys(robot)))) as guarded:
        assert why_silent(guarded.address, None, None, LONG).endswith("admits only trusted keys; add --keys FOLDER")
        assert "does not trust this key" in why_silent(guarded.address, None, stranger, LONG)
    with closing(ZmqPublisher(LOOPBACK)) as plain:
        assert why_silent(plain.address, None, stranger, LONG).endswith("uses no keys; leave out --keys")
