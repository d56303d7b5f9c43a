"""The publisher binds or says why not, never blocks, and stamps what it sends."""

import numpy as np
import pytest
import zmq

from online_tapir.errors import PublishError
from online_tapir.records import Frame, Tracks
from online_tapir.sinks.zmq import ZmqPublisher
from online_tapir.testing import make_tracks
from online_tapir.wire import messages as wire

LOOPBACK = "tcp://127.0.0.1:0"


def tracks(frame_id: int, points: int = 7) -> Tracks:
    numbers = np.linspace(0, 1, points, dtype=np.float32)
    xy = np.stack([numbers, numbers], axis=1)
    return make_tracks(
        frame_id,
        xy,
        visible=numbers < 0.5,
        occlusion=numbers,
        uncertainty=numbers,
        size=(33, 17),
        captured_ns=frame_id,
    )


FRAME = Frame(0, 0, 0, np.zeros((17, 33, 3), np.uint8))


@pytest.mark.parametrize("address", [LOOPBACK, "tcp://127.0.0.1:*"])
def test_a_free_port_is_taken_and_told(address: str) -> None:
    publisher = ZmqPublisher(address)
    port = int(publisher.address.removeprefix("tcp://127.0.0.1:"))
    publisher.close()
    assert port > 0


def test_a_port_in_use_is_said_with_another_to_try() -> None:
    publisher = ZmqPublisher(LOOPBACK)
    with pytest.raises(PublishError, match=rf"{publisher.address}: another program.*--publish tcp://"):
        ZmqPublisher(publisher.address)
    publisher.close()
    ZmqPublisher(publisher.address).close()  # and is free again at once


@pytest.mark.parametrize("address", ["5555", "udpp://127.0.0.1:1", "tcp://127.0.0.1:99999", "tcp://192.0.2.1:5555", ""])
def test_an_address_that_cannot_be_bound_is_refused(address: str) -> None:
    with pytest.raises(PublishError, match="cannot publish on"):
        ZmqPublisher(address)


def test_a_message_is_one_part_and_carries_the_moment_of_sending() -> None:
    publisher = ZmqPublisher(LOOPBACK, unix_clock=lambda: 123)
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.connect(publisher.address)
        subscriber.subscribe(b"")
        parts: list[bytes] = []
        while not parts:  # until the subscription has arrived, messages go nowhere
            publisher.publish(FRAME, tracks(5))
            if subscriber.poll(10):
                parts = subscriber.recv_multipart()
    publisher.close()
    assert len(parts) == 1
    assert wire.decode(parts[0]).published_unix_ns == 123


def test_a_subscriber_that_never_reads_does_not_block_the_publisher() -> None:
    publisher = ZmqPublisher(LOOPBACK)
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.setsockopt(zmq.RCVHWM, 1)
        subscriber.connect(publisher.address)
        subscriber.subscribe(b"")
        while not subscriber.poll(10):
            publisher.publish(FRAME, tracks(0))
        for frame_id in range(500):  # 42 MB: more than any socket buffer takes
            publisher.publish(FRAME, tracks(frame_id, points=4_000))
    publisher.close()


def test_what_was_published_just_before_the_end_still_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("online_tapir.sinks.zmq._LINGER_MS", 20_000)
    publisher = ZmqPublisher(LOOPBACK)
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.setsockopt(zmq.RCVTIMEO, 30_000)
        subscriber.connect(publisher.address)
        subscriber.subscribe(b"")
        while not subscriber.poll(10):
            publisher.publish(FRAME, tracks(0))
        for frame_id in range(1, 34):
            publisher.publish(FRAME, tracks(frame_id, points=256))
        publisher.close()
        while wire.decode(subscriber.recv()).frame_id != 33:
            pass


def test_closing_twice_is_closing_once() -> None:
    publisher = ZmqPublisher(LOOPBACK)
    publisher.close()
    publisher.close()
