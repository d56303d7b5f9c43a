"""The wire round-trips, keeps its bytes, and meets foreign bytes with `WireError` alone."""

from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from online_tapir.errors import WireError
from online_tapir.records import StageTimes, Tracks
from online_tapir.testing import make_tracks
from online_tapir.wire import messages as wire
from online_tapir.wire.envelope import MAX_CAMERA_BYTES, MAX_MESSAGE_BYTES, topic

ARRAYS = ("ids", "xy", "visible", "occlusion", "uncertainty")
SCALARS = ("frame_id", "captured_ns", "captured_unix_ns", "published_unix_ns", "width", "height", "dropped", "camera",
           "model", "times")  # fmt: skip

GOLDEN = bytes.fromhex(
    "747261636b732f6465736b00"  # tracks/desk and its zero byte
    "de0011"  # a map of 17
    "a6736368656d61b36f6e6c696e652d74617069722f747261636b73"
    "a776657273696f6e01"
    "a663616d657261a46465736b"
    "a86672616d655f696407"
    "ab63617074757265645f6e73cd03e8"
    "b063617074757265645f756e69785f6e73cf17979cfe362a0000"
    "b17075626c69736865645f756e69785f6e73cf17979cfe36392300"
    "a57769647468cd0280"
    "a6686569676874cd01e0"
    "a764726f7070656403"
    "a56d6f64656ca5736d616c6c"
    "a574696d657387"
    "a76361707475726501a675706c6f616402a6656e636f646503a56d6174636804"
    "a6726566696e6505a8646f776e6c6f616406a77075626c69736807"
    "a3696473c4080200000009000000"
    "a27879c4100000f042000080420000003f00000000"
    "a776697369626c65c4020100"
    "a96f63636c7573696f6ec4080000803e0000403f"
    "ab756e6365727461696e7479c408000000000000803f"
)


GOLDEN_HEARTBEAT = bytes.fromhex(
    "6865617274626561742f6465736b00"  # heartbeat/desk and its zero byte
    "88"  # a map of 8
    "a6736368656d61b66f6e6c696e652d74617069722f686561727462656174"
    "a776657273696f6e01"
    "a663616d657261a46465736b"
    "a57374617465a46c6f7374"
    "a86672616d655f696407"
    "ad73696e63655f756e69785f6e73cf17979cfe362a0000"
    "a6706f696e747302"
    "b17075626c69736865645f756e69785f6e73cf17979cfe36392300"
)
LOST = wire.Heartbeat("desk", "lost", 7, 1_700_000_000_000_000_000, 2, 1_700_000_000_000_992_000)


def desk() -> Tracks:
    return make_tracks(
        7,
        [[120.0, 64.0], [0.5, 0.0]],
        ids=[2, 9],
        visible=[True, False],
        occlusion=[0.25, 0.75],
        uncertainty=[0.0, 1.0],
        size=(640, 480),
        captured_ns=1_000,
        captured_unix_ns=1_700_000_000_000_000_000,
        published_unix_ns=1_700_000_000_000_992_000,
        dropped=3,
        camera="desk",
        model="small",
        times=StageTimes(1, 2, 3, 4, 5, 6, 7),
    )


def random_tracks(count: int, seed: int, camera: str = "0") -> Tracks:
    rng = np.random.default_rng(seed)
    return replace(
        desk(),
        ids=np.sort(rng.choice(1_000, count, replace=False)).astype(np.int32),
        xy=rng.normal(300, 400, (count, 2)).astype(np.float32),
        visible=rng.random(count) < 0.5,
        occlusion=rng.random(count, np.float32),
        uncertainty=rng.random(count, np.float32),
        camera=camera,
    )


def assert_same(one: Tracks, other: Tracks) -> None:
    for name in SCALARS:
        assert getattr(one, name) == getattr(other, name), name
    for name in ARRAYS:
        assert getattr(one, name).dtype == getattr(other, name).dtype, name
        assert_array_equal(getattr(one, name), getattr(other, name))


def message_with(**changes: Any) -> bytes:
    """The golden message with keys changed, or left out where the change is `...`."""
    head, _, packed = GOLDEN.partition(b"\0")
    body = {key: value for key, value in {**msgpack.unpackb(packed), **changes}.items() if value is not ...}
    return head + b"\0" + msgpack.packb(body)


def test_golden_bytes_are_what_encode_makes() -> None:
    assert wire.encode(desk()).hex() == GOLDEN.hex()


def test_golden_bytes_decode_to_the_tracks_they_were_made_of() -> None:
    assert_same(wire.decode(GOLDEN), desk())


def test_the_frame_that_the_model_saw_goes_along_where_it_is_known() -> None:
    assert wire.decode(GOLDEN).model_frame_id == -1
    assert wire.decode(wire.encode(replace(desk(), model_frame_id=7))).model_frame_id == 7


@given(
    count=st.sampled_from([0, 1, 7, 33]),
    seed=st.integers(0, 2**32 - 1),
    camera=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50),
    frame_id=st.integers(0, 2**63 - 1),
    captured_ns=st.integers(-(2**63), 2**63 - 1),
)
def test_tracks_round_trip(count: int, seed: int, camera: str, frame_id: int, captured_ns: int) -> None:
    tracks = replace(random_tracks(count, seed, camera), frame_id=frame_id, captured_ns=captured_ns)
    assert_same(wire.decode(wire.encode(tracks)), tracks)


def test_strided_and_foreign_endian_arrays_round_trip() -> None:
    tracks = random_tracks(33, seed=1)
    odd = replace(tracks, xy=np.asfortranarray(tracks.xy), ids=tracks.ids.astype(">i4"))
    assert_same(wire.decode(wire.encode(odd)), tracks)


def test_decoded_arrays_belong_to_the_reader() -> None:
    tracks = wire.decode(GOLDEN)
    tracks.xy[0] = 0
    assert_same(wire.decode(GOLDEN), desk())


def test_non_finite_positions_arrive_as_they_are() -> None:
    tracks = replace(desk(), xy=np.array([[np.nan, 1], [np.inf, -np.inf]], np.float32))
    assert_same(wire.decode(wire.encode(tracks)), tracks)


def test_keys_of_the_future_are_ignored() -> None:
    times = {"encode": 3, "teleport": 9}
    tracks = wire.decode(message_with(colour="red", nested={"a": [1]}, times=times))
    assert tracks.times == StageTimes(encode=3)
    assert_array_equal(tracks.ids, desk().ids)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"version": 2}, "version 2 .* up to 1"),
        ({"version": 0}, "version 0"),
        ({"version": True}, "version is a bool"),
        ({"schema": "acme/boxes"}, "acme/boxes"),
        ({"schema": ...}, "without 'schema'"),
        ({"camera": "10"}, "topic says camera 'desk', the message says '10'"),
        ({"frame_id": -1}, "frame_id is -1"),
        ({"captured_ns": 2**64 - 1}, "captured_ns is 18446744073709551615"),
        ({"width": 640.0}, "width is a float"),
        ({"times": [1, 2]}, "times is a list"),
        ({"times": {"encode": "soon"}}, "encode is a str"),
        ({"ids": b"12345"}, "ids has 5 bytes"),
        ({"ids": bytes(4 * (wire.MAX_POINTS + 1))}, "65536 points"),
        ({"ids": "text"}, "ids is a str"),
        ({"xy": bytes(8)}, "xy has 8 bytes where the ids ask for 16"),
        ({"visible": b"\0\2"}, "visible holds 2"),
        ({"occlusion": ...}, "without 'occlusion'"),
        ({"uncertainty": bytes(12)}, "uncertainty has 12 bytes"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(WireError, match=found):
        wire.decode(message_with(**changes))


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (b"", "begins with b''"),
        (b"hello", "begins with b'hello'"),
        (b"tracks/no zero byte", "zero byte"),
        (b"tracks/" + b"x" * 5_000 + b"\0\x80", "zero byte"),
        (b"tracks/\xff\0\x80", "not a msgpack map"),
        (b"tracks/0\0", "not a msgpack map"),
        (b"tracks/0\0\xc1", "not a msgpack map"),
        (b"tracks/0\0\x01", "msgpack int"),
        (b"tracks/0\0" + b"\x91" * 5_000, "not a msgpack map"),
        (GOLDEN + b"\0", "not a msgpack map"),
        (bytes(MAX_MESSAGE_BYTES + 1), "at most 4194304"),
    ],
)
def test_foreign_bytes_are_refused_and_named(message: bytes, found: str) -> None:
    with pytest.raises(WireError, match=found):
        wire.decode(message)


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_raise_wire_errors_only(noise: bytes, with_topic: bool) -> None:
    with pytest.raises(WireError):
        wire.decode(b"tracks/0\0" + noise if with_topic else noise)


@given(
    edits=st.lists(st.tuples(st.integers(0, len(GOLDEN) - 1), st.integers(0, 255)), max_size=8),
    end=st.integers(0, len(GOLDEN)),
)
def test_a_mutated_message_is_read_or_refused_and_nothing_else(edits: list[tuple[int, int]], end: int) -> None:
    message = bytearray(GOLDEN)
    for at, value in edits:
        message[at] = value
    try:
        tracks = wire.decode(bytes(message[:end]))
    except WireError:
        return
    assert tracks.xy.shape == (len(tracks.ids), 2)
    wire.encode(tracks)


def test_the_topic_of_one_camera_is_no_prefix_of_another() -> None:
    assert not topic("10", wire.TOPIC).startswith(topic("1", wire.TOPIC))


@pytest.mark.parametrize("camera", ["a\0b", "x" * (MAX_CAMERA_BYTES + 1)])
def test_a_camera_that_cannot_be_a_topic_is_refused(camera: str) -> None:
    with pytest.raises(WireError, match="cannot be a topic"):
        wire.encode(random_tracks(1, seed=0, camera=camera))


def test_the_largest_message_encode_makes_is_one_that_decode_reads() -> None:
    count = wire.MAX_POINTS
    zeros = np.zeros(count, np.float32)
    tracks = replace(
        desk(),
        ids=np.arange(count, dtype=np.int32),
        xy=np.zeros((count, 2), np.float32),
        visible=np.zeros(count, np.bool_),
        occlusion=zeros,
        uncertainty=zeros,
        camera="x" * MAX_CAMERA_BYTES,
    )
    assert len(wire.decode(wire.encode(tracks)).ids) == count
    with pytest.raises(WireError, match="65537 points"):
        wire.encode(replace(tracks, ids=np.arange(count + 1, dtype=np.int32)))


def heartbeat_with(**changes: Any) -> bytes:
    """The golden heartbeat with keys changed, or left out where the change is `...`."""
    head, _, packed = GOLDEN_HEARTBEAT.partition(b"\0")
    body = {key: value for key, value in {**msgpack.unpackb(packed), **changes}.items() if value is not ...}
    return head + b"\0" + msgpack.packb(body)


def test_a_heartbeats_golden_bytes_are_what_is_encoded_and_decoded() -> None:
    assert wire.encode_heartbeat(LOST).hex() == GOLDEN_HEARTBEAT.hex()
    assert wire.decode_heartbeat(GOLDEN_HEARTBEAT) == LOST


@given(
    camera=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50),
    state=st.sampled_from(get_args(wire.State)),
    frame_id=st.integers(-1, 2**63 - 1),
    points=st.integers(0, 2**31),
)
def test_heartbeats_round_trip(camera: str, state: wire.State, frame_id: int, points: int) -> None:
    heartbeat = wire.Heartbeat(camera, state, frame_id, 1, points, 2)
    assert wire.decode_heartbeat(wire.encode_heartbeat(heartbeat)) == heartbeat


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"version": 2}, "version 2 .* up to 1"),
        ({"schema": wire.SCHEMA}, "this reader knows 'online-tapir/heartbeat'"),
        ({"camera": "10"}, "topic says camera 'desk'"),
        ({"state": "asleep"}, "state 'asleep' is none of streaming, stalled, lost, paused"),
        ({"frame_id": -2}, "frame_id is -2"),
        ({"points": ...}, "without 'points'"),
    ],
)
def test_a_wrong_field_of_a_heartbeat_is_refused_by_name(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(WireError, match=found):
        wire.decode_heartbeat(heartbeat_with(**changes))


def test_keys_of_the_future_are_ignored_in_a_heartbeat() -> None:
    assert wire.decode_heartbeat(heartbeat_with(colour="red")) == LOST


def test_neither_message_is_taken_for_the_other() -> None:
    with pytest.raises(WireError, match="begins with"):
        wire.decode(GOLDEN_HEARTBEAT)
    with pytest.raises(WireError, match="begins with"):
        wire.decode_heartbeat(GOLDEN)


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_no_heartbeat(noise: bytes, with_topic: bool) -> None:
    with pytest.raises(WireError):
        wire.decode_heartbeat(b"heartbeat/0\0" + noise if with_topic else noise)


@given(
    edits=st.lists(st.tuples(st.integers(0, len(GOLDEN_HEARTBEAT) - 1), st.integers(0, 255)), max_size=8),
    end=st.integers(0, len(GOLDEN_HEARTBEAT)),
)
def test_a_mutated_heartbeat_is_read_or_refused_and_nothing_else(edits: list[tuple[int, int]], end: int) -> None:
    message = bytearray(GOLDEN_HEARTBEAT)
    for at, value in edits:
        message[at] = value
    with suppress(WireError):
        assert wire.decode_heartbeat(bytes(message[:end])).state in get_args(wire.State)
