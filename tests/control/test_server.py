"""The socket answers everything by result or by name, does nothing twice, and lets no flood hold up a frame."""

from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from online_tapir.control import protocol
from online_tapir.control.desk import BURST, REQUESTS_A_SECOND, Budgets
from online_tapir.control.protocol import ControlError, Request
from online_tapir.control.server import REQUESTS_A_FRAME, ControlServer
from online_tapir.errors import ConfigError, MemoryFullError
from online_tapir.live.stream import Stream

PATIENCE_MS = 5_000
ADD = {"xy": [[1, 2]]}


def asking(command: str, id: int = 0, controller: str = "", **arguments: Any) -> bytes:
    return protocol.encode_request(Request(command, arguments, id, controller))


def told(reply: bytes) -> dict[str, Any]:
    body: dict[str, Any] = msgpack.unpackb(reply)
    return body


class Peer:
    """A controller of few words."""

    def __init__(self, address: str, kind: int = zmq.DEALER) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(kind)
        self.socket.linger = 0
        self.socket.connect(address)

    def answer(self, server: ControlServer, stream: Stream) -> dict[str, Any]:
        """What comes back, while the server serves frame after frame."""
        for _ in range(PATIENCE_MS):
            server.serve(stream)
            if self.socket.poll(1):
                return told(self.socket.recv_multipart()[-1])
        raise AssertionError("no answer")

    def close(self) -> None:
        self.socket.close()
        self._context.term()


@pytest.fixture
def peers(server: ControlServer) -> Iterator[list[Peer]]:
    peers = [Peer(server.address), Peer(server.address)]
    yield peers
    for peer in peers:
        peer.close()


def test_each_controller_gets_its_own_answer_and_ids_of_its_own(
    server: ControlServer, stream: Stream, peers: list[Peer]
) -> None:
    for peer, id in zip(peers, (7, 8), strict=True):
        peer.socket.send(asking("add", id, **ADD))
    answers = [peer.answer(server, stream) for peer in peers]
    assert [answer["request"] for answer in answers] == [7, 8]
    assert sorted(answer["result"]["ids"][0] for answer in answers) == [0, 1]


def test_a_req_socket_is_answered_too(server: ControlServer, stream: Stream) -> None:
    peer = Peer(server.address, zmq.REQ)
    peer.socket.send(asking("list", 3))
    assert peer.answer(server, stream)["request"] == 3
    peer.close()


def test_many_parts_are_no_request(server: ControlServer, stream: Stream, peers: list[Peer]) -> None:
    peers[0].socket.send_multipart([b"", b"x", asking("stop")])
    assert peers[0].answer(server, stream)["error"] == "bad_request"
    assert not stream.stop.is_set()


def test_a_request_nested_deeper_than_python_goes_is_refused(
    server: ControlServer, stream: Stream, peers: list[Peer]
) -> None:
    body = {"schema": protocol.SCHEMA, "version": protocol.VERSION}
    packed = msgpack.packb(body)
    deep = bytes([packed[0] + 1]) + packed[1:] + msgpack.packb("command") + b"\x91" * 1000 + b"\xc0"
    peers[0].socket.send(deep)
    assert peers[0].answer(server, stream)["error"] == "bad_request"


def test_a_request_that_comes_again_is_answered_again_and_not_done_again(server: ControlServer, stream: Stream) -> None:
    first = server.answer(b"a", asking("add", 1, "desk", **ADD), stream)
    assert server.answer(b"b", asking("add", 1, "desk", **ADD), stream) == first  # over another connection, even
    assert stream.tracker.ids.tolist() == [0]
    for other in (asking("add", 2, "desk", **ADD), asking("add", 1, "lamp", **ADD), asking("add", 1, "", **ADD)):
        server.answer(b"a", other, stream)
    assert stream.tracker.ids.tolist() == [0, 1, 2, 3]


def test_a_question_that_comes_again_has_the_answer_of_now(server: ControlServer, stream: Stream) -> None:
    assert told(server.answer(b"a", asking("list", 1, "desk"), stream))["result"]["waiting"] == []
    stream.add(np.zeros((1, 2), np.float32), 5)
    assert told(server.answer(b"a", asking("list", 1, "desk"), stream))["result"]["waiting"] == [0]


def test_a_request_that_fails_in_an_unforeseen_way_ends_no_run(
    server: ControlServer, stream: Stream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: Any, **named: Any) -> Any:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(stream.tracker, "add", broken)
    reply = told(server.answer(b"a", asking("add", 1, "desk", **ADD), stream))
    assert (reply["error"], reply["message"]) == ("failed", "ZeroDivisionError: nobody thought of this")
    assert "add failed" in caplog.text
    assert told(server.answer(b"a", asking("list", 2, "desk"), stream))["result"]["waiting"] == []


def test_a_full_memory_ends_the_run_that_has_lost_its_points(
    server: ControlServer, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **named: Any) -> Any:
        raise MemoryFullError("use fewer points")

    monkeypatch.setattr(stream.tracker, "add", full)
    with pytest.raises(MemoryFullError):
        server.answer(b"a", asking("add", 1, "desk", **ADD), stream)


def test_what_was_refused_may_be_asked_again(server: ControlServer, stream: Stream) -> None:
    asked = asking("remove", 1, "desk", ids=[0])
    assert told(server.answer(b"a", asked, stream))["error"] == "unknown_point"
    stream.add(np.zeros((1, 2), np.float32), 5)
    assert told(server.answer(b"a", asked, stream))["result"] == {"removed": 1}


def test_a_refusal_carries_the_number_of_its_request(server: ControlServer, stream: Stream) -> None:
    for asked, name in [
        (asking("fly", 9), "unknown_command"),
        (asking("add", 9, xy=[[1, float("inf")]]), "bad_request"),
        (asking("add", 9, xy=[[50, 1]]), "outside_frame"),
        (asking("add", 9, xy=[[1, 1]], frame_id=1), "frame_left_window"),
    ]:
        reply = told(server.answer(b"a", asked, stream))
        assert (reply["request"], reply["error"]) == (9, name)
        assert reply["message"]


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_have_an_answer(noise: bytes, as_arguments: bool) -> None:
    server = ControlServer("inproc://control", monotonic_ns=lambda: 0)
    packed = asking("add", xy=noise) if as_arguments else noise
    assert told(server.answer(b"a", packed, None))["error"] in protocol.ERRORS  # type: ignore[arg-type]
    server.close()


def test_a_request_too_large_is_refused_and_one_beyond_reason_is_not_even_read(
    server: ControlServer, stream: Stream, peers: list[Peer]
) -> None:
    peers[0].socket.send(bytes(protocol.MAX_REQUEST_BYTES + 1))
    assert peers[0].answer(server, stream)["error"] == "too_large"
    peers[0].socket.send(bytes(5 * protocol.MAX_REQUEST_BYTES))
    peers[1].socket.send(asking("list", 4))
    assert peers[1].answer(server, stream)["request"] == 4
    assert not peers[0].socket.poll(50)


def test_a_flood_of_ten_thousand_is_served_a_few_a_frame_and_others_get_their_turn(
    server: ControlServer, stream: Stream, peers: list[Peer]
) -> None:
    flood, other = peers
    for id in range(10_000):
        try:
            flood.socket.send(asking("status", id), zmq.NOBLOCK)
        except zmq.Again:
            server.serve(stream)
    other.socket.send(asking("list", 5))
    served, frames = 0, 0
    while not other.socket.poll(1):
        share = server.serve(stream)
        assert share <= REQUESTS_A_FRAME
        served, frames = served + share, frames + 1
        assert frames < PATIENCE_MS
    assert told(other.socket.recv())["request"] == 5
    assert served < 5_000  # long before the flood was over


def test_a_budget_is_a_senders_own_and_fills_with_time() -> None:
    now_ns = 0
    budgets = Budgets(lambda: now_ns)
    for _ in range(int(BURST)):
        budgets.spend(b"a", 1)
    with pytest.raises(ControlError, match="rate_limited"):
        budgets.spend(b"a", 1)
    budgets.spend(b"b", BURST)
    now_ns = 1_000_000_000
    budgets.spend(b"a", REQUESTS_A_SECOND)
    with pytest.raises(ControlError, match="rate_limited"):
        budgets.spend(b"a", 1)


def test_budgets_of_senders_that_come_and_go_take_no_more_and_more_memory() -> None:
    budgets = Budgets(lambda: 0)
    for sender in range(10_000):
        budgets.spend(str(sender).encode(), 1)
    assert len(budgets._left) < 1_000


def test_answers_are_remembered_for_the_newest_requests_only(stream: Stream) -> None:
    now_ns = iter(range(0, 10**15, 10**9))
    server = ControlServer("inproc://control", monotonic_ns=lambda: next(now_ns))
    for id in range(1_000):
        server.answer(b"a", asking("pause", id, "desk"), stream)
    assert len(server._desk._results) < 500
    server.close()


@pytest.mark.parametrize("address", ["5556", "udpp://127.0.0.1:1", "tcp://192.0.2.1:5556", "tcp://*:5556"])
def test_an_address_that_cannot_be_bound_or_is_open_to_others_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="cannot be controlled at"):
        ControlServer(address)
