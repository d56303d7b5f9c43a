"""What was published arrives, in order, of the camera asked for, and sockets do not outlive their owner."""

import gc
import threading
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from online_tapir import subscribe
from online_tapir.errors import ConfigError, WireError
from online_tapir.records import Frame, Tracks
from online_tapir.sinks.zmq import ZmqPublisher
from online_tapir.testing import make_tracks
from online_tapir.wire.messages import Heartbeat, State
from online_tapir.wire.subscriber import Subscription

FRAME = Frame(0, 0, 0, np.zeros((17, 33, 3), np.uint8))
PATIENCE_MS = 30_000


def tracks(frame_id: int, camera: str = "0") -> Tracks:
    return make_tracks(frame_id, (), size=(33, 17), captured_ns=frame_id, camera=camera)


@pytest.fixture
def publisher() -> Iterator[ZmqPublisher]:
    publisher = ZmqPublisher("tcp://127.0.0.1:0")
    yield publisher
    publisher.close()


def connected(publisher: ZmqPublisher, camera: str | None = None, *, newest: bool = False) -> Subscription[Tracks]:
    """A subscription that has begun to receive: until it has, frames numbered 0 are published."""
    subscription = subscribe(publisher.address, camera, newest=newest, timeout_ms=PATIENCE_MS)
    arrived = threading.Event()

    def knock() -> None:
        while not arrived.wait(0.005):
            publisher.publish(FRAME, tracks(0, camera or "0"))

    knocker = threading.Thread(target=knock, daemon=True)
    knocker.start()
    try:
        next(subscription)
    finally:
        arrived.set()
    knocker.join()
    return subscription


def test_frames_arrive_in_the_order_of_publication(publisher: ZmqPublisher) -> None:
    with connected(publisher) as stream:
        for frame_id in range(1, 6):
            publisher.publish(FRAME, tracks(frame_id))
        seen = [0]
        while seen[-1] < 5:
            seen.append(next(stream).frame_id)
    assert [frame_id for frame_id in seen if frame_id] == [1, 2, 3, 4, 5]


def test_camera_1_is_not_camera_10(publisher: ZmqPublisher) -> None:
    with connected(publisher, "1") as stream:
        publisher.publish(FRAME, tracks(1, camera="10"))
        publisher.publish(FRAME, tracks(2, camera="1"))
        seen = next(stream)
        while seen.frame_id == 0:
            seen = next(stream)
    assert (seen.camera, seen.frame_id) == ("1", 2)


def test_newest_skips_what_the_reader_was_too_slow_for(publisher: ZmqPublisher) -> None:
    with connected(publisher, newest=True) as newest, connected(publisher) as every:
        for frame_id in range(1, 101):
            publisher.publish(FRAME, tracks(frame_id))
            while next(every).frame_id != frame_id:  # lockstep: the publisher's own queue never fills
                pass
        seen = [0]
        while seen[-1] != 100:
            seen.append(next(newest).frame_id)
    assert len(seen) < 50


def beat(state: State = "lost", camera: str = "0", frame_id: int = 1) -> Heartbeat:
    return Heartbeat(camera, state, frame_id, since_unix_ns=1, points=0)


def hearing(publisher: ZmqPublisher, camera: str | None = None) -> Subscription[Tracks | Heartbeat]:
    """A subscription that has begun to receive, on both of its sockets."""
    stream = subscribe(publisher.address, camera, heartbeats=True, timeout_ms=20)
    waited_for: set[type] = {Tracks, Heartbeat}
    while waited_for:
        publisher.publish(FRAME, tracks(0, camera or "0"))
        publisher.beat(beat(camera=camera or "0", frame_id=0))
        with suppress(TimeoutError):
            waited_for.discard(type(next(stream)))
    stream.timeout_ms = PATIENCE_MS
    return stream


def next_new(stream: Subscription[Tracks | Heartbeat]) -> Tracks | Heartbeat:
    """The next message of after it heard; tracks and heartbeats from before, each on a socket of their own, may lag."""
    while (seen := next(stream)).frame_id == 0:
        pass
    return seen


def test_heartbeats_come_to_those_who_want_them_and_break_a_silence(publisher: ZmqPublisher) -> None:
    with hearing(publisher, "1") as stream:
        publisher.beat(beat(camera="10"))
        publisher.beat(beat("stalled", camera="1"))
        seen = next_new(stream)
        assert isinstance(seen, Heartbeat)
        assert (seen.camera, seen.state) == ("1", "stalled")
        assert seen.seconds > 0
        stream.timeout_ms = 20
        with pytest.raises(TimeoutError):
            next_new(stream)


def test_a_subscriber_of_tracks_never_sees_a_heartbeat(publisher: ZmqPublisher) -> None:
    with connected(publisher) as stream:
        publisher.beat(beat())
        publisher.publish(FRAME, tracks(1))
        seen = [next(stream)]
        while seen[-1].frame_id == 0:
            seen.append(next(stream))
    assert {type(message) for message in seen} == {Tracks}


def test_a_subscriber_that_comes_late_begins_with_the_next_message(publisher: ZmqPublisher) -> None:
    for frame_id in range(1_000, 1_100):
        publisher.publish(FRAME, tracks(frame_id))
    with connected(publisher) as stream:
        publisher.publish(FRAME, tracks(7))
        seen = [next(stream).frame_id]
        while seen[-1] != 7:
            seen.append(next(stream).frame_id)
    assert max(seen) == 7


def test_silence_is_a_timeout_that_names_the_address_and_the_stream_goes_on(publisher: ZmqPublisher) -> None:
    with subscribe(publisher.address, timeout_ms=20) as stream:
        with pytest.raises(TimeoutError, match=f"nothing from {publisher.address} in 20 ms"):
            next(stream)
        received = None
        while received is None:
            publisher.publish(FRAME, tracks(3))
            try:
                received = next(stream)
            except TimeoutError:
                continue
    assert received.frame_id == 3


def test_foreign_bytes_on_our_topic_are_an_error(publisher: ZmqPublisher) -> None:
    with connected(publisher) as stream:
        publisher._bound.socket.send(b"tracks/0\0not msgpack")
        with pytest.raises(WireError):
            list(stream)


@pytest.mark.parametrize("address", ["5555", "nowhere://x", ""])
def test_an_address_that_is_none_is_refused_at_the_call(address: str) -> None:
    with pytest.raises(ConfigError, match="cannot subscribe to"):
        subscribe(address)


def test_a_closed_stream_is_over() -> None:
    stream = subscribe("tcp://127.0.0.1:1")
    stream.close()
    stream.close()
    assert list(stream) == []


def test_a_stream_that_nobody_holds_closes_its_socket() -> None:
    stream = subscribe("tcp://127.0.0.1:1")
    context = stream._context
    del stream
    assert context.closed


def test_a_stream_that_is_part_of_a_garbage_cycle_closes_its_socket() -> None:
    cycle: list[object] = [subscribe("tcp://127.0.0.1:1")]
    context = cycle[0]._context  # type: ignore[attr-defined]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert context.closed


def test_ctrl_c_closes_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = subscribe("tcp://127.0.0.1:1")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zmq.select", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert stream._context.closed
