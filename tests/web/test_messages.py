"""What goes over the page's link, both ways: all that is not the page's own is refused."""

import json
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_tapir.control.protocol import ControlError, read_request
from online_tapir.records import Frame
from online_tapir.testing import make_tracks
from online_tapir.web.messages import (
    MAX_MESSAGE_BYTES,
    Ack,
    Ask,
    HostileMessageError,
    Look,
    Moment,
    Standing,
    answer,
    encode,
    read,
)

STANDING = Standing("streaming", -1, False, True, 9, 3, 29.97, "")


def moment(**changes: Any) -> Moment:
    tracks = make_tracks(7, [[1.254, 2], [30.5, np.nan]], visible=[True, False], ids=[3, 8], camera="left", **changes)
    colors = np.array([[255, 128, 1], [0, 0, 2]], np.uint8)
    return Moment(5, Frame(7, 0, 0, np.zeros((33, 49, 3), np.uint8)), tracks, colors, STANDING)


def split(message: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack_from("<I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def test_a_frame_is_told_whole() -> None:
    header, rest = split(encode(moment(searching=("left knee",)), 12, [b"JPEG", b"MORE"], 34.56))
    assert rest == b"JPEGMORE"
    assert header["pictures"] == [4, 4]
    assert header["ids"] == [3, 8]
    assert header["xy"] == [125, 200, 3050, 0]
    assert header["visible"] == [1, 0]
    assert header["colors"] == [0xFF8001, 2]
    assert (header["number"], header["camera"], header["frame"], header["latency_ms"]) == (12, "left", 7, 34.6)
    assert header["searching"] == "searching for left knee"
    assert (header["width"], header["height"], header["recording"], header["room"]) == (49, 33, True, 9)


def test_the_page_acknowledges_looks_and_asks() -> None:
    assert read('{"ack": 4}', "me") == Ack(4)
    assert read('{"look": {"camera": null, "width": 640}}', "me") == Look(None, 640)
    assert read('{"look": {"camera": "left", "width": 640}}', "me") == Look("left", 640)
    asked = read('{"ask": 2, "camera": "left", "command": "remove", "arguments": {"ids": [1]}}', "me")
    assert isinstance(asked, Ask)
    request = read_request(asked.body)
    assert (request.command, request.arguments, request.camera) == ("remove", {"ids": [1]}, "left")
    assert (request.controller, request.id) == ("me", 2)


HOSTILE = [
    "",
    "null",
    "[]",
    '{"ack": "4"}',
    '{"ack": 4',
    '{"look": {"camera": 3, "width": 640}}',
    '{"look": {"width": 640}}',
    '{"ask": 1}',
    '{"ask": 1, "command": "add", "schema": "x"}',
    '{"ask": 1, "command": "add", "controller": "another"}',
    "[" * 50_000,
    '{"ack": ' + "4" * MAX_MESSAGE_BYTES + "}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_anything_else_is_hostile(text: str) -> None:
    with pytest.raises(HostileMessageError):
        read(text, "me")


KEYS = st.sampled_from(["ack", "look", "ask", "command", "camera", "width"]) | st.text()
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(LEAVES, lambda one: st.lists(one) | st.dictionaries(KEYS, one)))
def test_any_json_is_read_or_refused(body: Any) -> None:
    with suppress(HostileMessageError):
        assert isinstance(read(json.dumps(body), "me"), Ack | Look | Ask)


def test_answers_carry_results_and_refusals() -> None:
    assert json.loads(answer(3, {"ids": [1]})) == {"answer": 3, "result": {"ids": [1]}}
    told = json.loads(answer(4, ControlError("no_room", "room for 1")))
    assert told == {"answer": 4, "error": "no_room", "message": "room for 1"}
