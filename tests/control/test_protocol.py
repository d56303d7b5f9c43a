"""Requests and replies keep their bytes, and whatever else comes is refused by a name of the closed set."""

from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_tapir.control import protocol
from online_tapir.control.protocol import ControlError, Request

GOLDEN = bytes.fromhex(
    "86"  # a map of 6
    "a6736368656d61b46f6e6c696e652d74617069722f636f6e74726f6c"
    "a776657273696f6e01"
    "aa636f6e74726f6c6c6572a46465736b"
    "a77265717565737407"
    "a7636f6d6d616e64a3616464"
    "a9617267756d656e747382"
    "a278799192cb405e000000000000cb4054200000000000"
    "a86672616d655f69640c"
)
ASKED = Request("add", {"xy": [(120.0, 80.5)], "frame_id": 12}, 7, "desk")

NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)


def read(packed: bytes) -> Request:
    return protocol.read_request(protocol.unpack(packed))


def request_with(**changes: Any) -> bytes:
    """The golden request with keys changed, or left out where the change is `...`."""
    body = {key: value for key, value in {**msgpack.unpackb(GOLDEN), **changes}.items() if value is not ...}
    packed: bytes = msgpack.packb(body)
    return packed


def asking(command: str, **arguments: Any) -> bytes:
    return request_with(command=command, arguments=arguments)


def outcome(packed: bytes) -> str:
    """The command that was read, or the name of the refusal."""
    try:
        return read(packed).command
    except ControlError as refusal:
        return refusal.name


def test_golden_bytes_are_what_is_asked() -> None:
    assert protocol.encode_request(ASKED).hex() == GOLDEN.hex()
    assert read(GOLDEN) == ASKED


def test_a_request_needs_neither_a_number_nor_a_controller_nor_arguments() -> None:
    assert read(request_with(request=..., controller=..., arguments=..., command="list")) == Request("list", {})


def test_every_command_is_documented_with_its_arguments() -> None:
    told = protocol.__doc__ or ""
    for command, arguments in protocol.ARGUMENTS.items():
        (line,) = [line for line in told.splitlines() if line.split()[:1] == [command]]
        assert all(f"{argument}:" in line for argument in arguments), line


@pytest.mark.parametrize(
    ("packed", "name", "found"),
    [
        (b"", "bad_request", "no msgpack map"),
        (b"\xc1", "bad_request", "no msgpack map"),
        (b"\x01", "bad_request", "a msgpack int where a map belongs"),
        (b"\x91" * 5_000, "bad_request", "no msgpack map"),
        (GOLDEN + b"\0", "bad_request", "no msgpack map"),
        (bytes(protocol.MAX_REQUEST_BYTES + 1), "too_large", "262145 bytes"),
        (request_with(schema="acme/boxes"), "bad_request", "acme/boxes"),
        (request_with(schema=...), "bad_request", "schema is None"),
        (request_with(version=2), "version", "version 2 .* knows 1"),
        (request_with(version=True), "bad_request", "version is True"),
        (
            request_with(command="fly"),
            "unknown_command",
            "'fly'; there are cameras, camera_add, camera_remove",
        ),
        (request_with(command=7), "bad_request", "command is 7, not text"),
        (request_with(request=-1), "bad_request", "request is -1"),
        (request_with(controller="x" * 65), "bad_request", "65 characters"),
        (request_with(arguments=[1]), "bad_request", "arguments are a list"),
        (asking("add"), "bad_request", "add needs xy"),
        (asking("clear", all=True), "bad_request", "clear has no argument 'all'; it takes none"),
        (asking("add", xy=[[1, 2, 3]]), "bad_request", r"xy is not a list of \[x, y\]"),
        (asking("add", xy=[[1, float("nan")]]), "bad_request", "y is nan, not a finite number"),
        (asking("add", xy=[[True, 1]]), "bad_request", "x is True"),
        (asking("add", xy=[[1, 10**18], [1, "2"]]), "bad_request", "y is str"),
        (asking("add", xy=[[0, 0]] * (protocol.MAX_ITEMS + 1)), "too_large", "4097 items; at most 4096"),
        (asking("add", xy=[[0, 0]], frame_id=1.0), "bad_request", "frame_id is 1.0"),
        (asking("remove", ids=[1, -1]), "bad_request", "an id is -1"),
        (asking("remove", ids=[2**40]), "unknown_point", "no id is as large"),
        (asking("inspect", id="3"), "bad_request", "id is str, not a whole number"),
        (asking("inspect", id=2**31), "unknown_point", "no id is as large as 2147483648"),
        (asking("replenish", on=1), "bad_request", "on is 1, not true or false"),
        (asking("set", heartbeat_s=b"1"), "bad_request", "heartbeat_s is bytes, not a finite number"),
    ],
)
def test_what_is_wrong_is_refused_by_name(packed: bytes, name: str, found: str) -> None:
    with pytest.raises(ControlError, match=found) as refusal:
        read(packed)
    assert refusal.value.name == name


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_by_name(noise: bytes) -> None:
    assert outcome(noise) in protocol.ERRORS


@given(
    edits=st.lists(st.tuples(st.integers(0, len(GOLDEN) - 1), st.integers(0, 255)), max_size=8),
    end=st.integers(0, len(GOLDEN)),
)
def test_a_mutated_request_is_read_or_refused_by_name(edits: list[tuple[int, int]], end: int) -> None:
    packed = bytearray(GOLDEN)
    for at, value in edits:
        packed[at] = value
    assert outcome(bytes(packed[:end])) in {*protocol.ARGUMENTS, *protocol.ERRORS}


@given(command=st.sampled_from(sorted(protocol.ARGUMENTS)), value=NESTED, data=st.data())
def test_any_value_of_any_argument_is_read_or_refused_by_name(command: str, value: Any, data: st.DataObject) -> None:
    argument = data.draw(st.sampled_from([*protocol.ARGUMENTS[command], "unheard_of"]))
    assert outcome(asking(command, **{argument: value})) in {command, *protocol.ERRORS}


def test_a_result_and_an_error_arrive_as_they_were_sent() -> None:
    body = protocol.unpack(protocol.encode_result(7, {"ids": [4, 5]}))
    assert (protocol.request_id(body), protocol.read_result(body)) == (7, {"ids": [4, 5]})
    body = protocol.unpack(protocol.encode_error(9, ControlError("no_room", "3 points, and room for 2")))
    assert protocol.request_id(body) == 9
    with pytest.raises(ControlError, match=r"^no_room: 3 points, and room for 2$"):
        protocol.read_result(body)


@given(st.dictionaries(st.sampled_from(["schema", "version", "request", "result", "error", "message"]), NESTED))
def test_whatever_comes_as_a_reply_is_a_result_or_a_control_error(body: dict[str, Any]) -> None:
    body = {"schema": protocol.SCHEMA, "version": protocol.VERSION, **body}
    with suppress(ControlError):
        assert isinstance(protocol.read_result(body), dict)
