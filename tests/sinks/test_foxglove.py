"""What Foxglove gets: a file that its own reader decodes, and a server that refuses strangers."""

import json
import struct
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from online_tapir.errors import ConfigError, PublishError
from online_tapir.recording.steps import Source, TrackedFrame
from online_tapir.records import Frame, Label, TrackedObject
from online_tapir.testing import make_tracks, sliding_pictures

foxglove = pytest.importorskip("online_tapir.sinks.foxglove", reason="foxglove-sdk is in the extra [foxglove]")
reader = pytest.importorskip("mcap.reader", reason="mcap-protobuf-support is in the extra [dev]")
decoder = pytest.importorskip("mcap_protobuf.decoder", reason="mcap-protobuf-support is in the extra [dev]")

SECOND = 1_000_000_000
PATIENCE_S = 30.0
BOX = np.array([[1, 2], [30, 2], [30, 20], [1, 20]], np.float32)


def steps(camera: str, frames: int = 3) -> list[TrackedFrame]:
    cup = TrackedObject("cup", np.eye(3), BOX, 1, np.array([0], np.int32), np.zeros(0, np.int32), {})
    found = []
    for number, picture in enumerate(sliding_pictures(frames, 48, 64)):
        tracks = make_tracks(
            number, [[10.5 + number, 20.25], [40, 30]], visible=[True, False], size=(64, 48),
            captured_unix_ns=(100 + number) * SECOND, camera=camera, labels={0: Label("rim", "cup", 0xFF0000)},
            objects=(cup,),
        )  # fmt: skip
        found.append(TrackedFrame(Frame(number, 0, (100 + number) * SECOND, picture), tracks))
    return found


def read(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """The decoded messages of an MCAP file by topic, with their times."""
    found: dict[str, list[tuple[int, Any]]] = {}
    with path.open("rb") as file:
        for _, channel, message, decoded in reader.make_reader(
            file, decoder_factories=[decoder.DecoderFactory(), JsonFactory()]
        ).iter_decoded_messages():
            found.setdefault(channel.topic, []).append((message.log_time, decoded))
    return found


class JsonFactory:
    """Leaves JSON as it is."""

    def decoder_for(self, encoding: str, schema: Any) -> Any:
        return bytes if encoding == "json" else None


def test_a_file_holds_picture_points_and_status_of_every_camera(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    file = foxglove.McapFile(path)
    for camera in ("left", "right"):
        file.begin(Source(camera))
        for step in steps(camera):
            file.write(step)
    file.close("the run ended")
    found = read(path)
    assert sorted(found) == [
        f"/{camera}/{topic}" for camera in ("left", "right") for topic in ("image", "points", "status")
    ]
    assert [at for at, _ in found["/left/points"]] == [100 * SECOND, 101 * SECOND, 102 * SECOND]
    (_, image), (_, points) = found["/left/image"][1], found["/left/points"][1]
    assert (image.format, image.frame_id, image.data[:3]) == ("jpeg", "left", b"\xff\xd8\xff")
    seen, hidden = points.circles
    assert (seen.position.x, seen.position.y) == (11.5, 20.25)
    assert (seen.fill_color.r, seen.fill_color.a, hidden.fill_color.a) == (1, 1, 0)
    assert {pair.key: pair.value for pair in seen.metadata} == {
        "id": "0", "name": "rim", "group": "cup", "state": "visible",
    }  # fmt: skip
    assert [text.text for text in points.texts] == ["rim"]
    assert [(point.x, point.y) for point in points.points[0].points] == [tuple(corner) for corner in BOX.tolist()]
    assert b'"visible": 1' in found["/right/status"][0][1] or b'"visible":1' in found["/right/status"][0][1]


def test_a_lost_object_has_no_box(tmp_path: Path) -> None:
    (step,) = steps("left", 1)
    lost = replace(step.tracks.objects[0], box=None, matrix=None)
    file = foxglove.McapFile(tmp_path / "run.mcap")
    file.write(replace(step, tracks=replace(step.tracks, objects=(lost,))))
    file.close("")
    assert not read(tmp_path / "run.mcap")["/left/points"][0][1].points


def test_the_file_is_readable_in_rerun(tmp_path: Path) -> None:
    rr = pytest.importorskip("rerun")
    file = foxglove.McapFile(tmp_path / "run.mcap")
    for step in steps("left"):
        file.write(step)
    file.close("")
    recording = rr.RecordingStream("a test")
    recording.save(tmp_path / "run.rrd")
    recording.log_file_from_path(tmp_path / "run.mcap")
    recording.disconnect()
    whole = (tmp_path / "run.rrd").read_bytes()
    assert b"left/image" in whole


def test_a_server_is_for_this_machine_unless_said_otherwise() -> None:
    scene, address = foxglove.open_server("0")
    assert address.startswith("ws://127.0.0.1:")
    for step in steps("left"):
        scene.write(step)  # nobody watches
    scene.close("")
    with pytest.raises(PublishError, match="other machines could watch"):
        foxglove.open_server("0.0.0.0:0")


def test_a_client_receives_a_hundred_frames() -> None:
    """Foxglove's own protocol over a WebSocket: the channels are advertised, subscribed to, and deliver every frame."""
    client = pytest.importorskip("websockets.sync.client")
    scene, address = foxglove.open_server("0")
    scene.begin(Source("left"))
    sent = iter(steps("left", 200))  # more than a hundred: those before the subscription holds are not received
    with client.connect(address, subprotocols=["foxglove.sdk.v1"], max_size=None) as socket:
        scene.write(next(sent))  # its channels appear with it
        channels: dict[int, str] = {}
        while len(channels) < 3:
            told = socket.recv(timeout=PATIENCE_S)
            if isinstance(told, str) and (message := json.loads(told))["op"] == "advertise":
                channels |= {one["id"]: one["topic"] for one in message["channels"]}
        assert {"/left/image", "/left/points"} <= set(channels.values())
        asked = [{"id": id, "channelId": id} for id in channels]
        socket.send(json.dumps({"op": "subscribe", "subscriptions": asked}))
        received: dict[str, list[int]] = {topic: [] for topic in channels.values()}
        deadline, silent = time.monotonic() + PATIENCE_S, True
        while min(map(len, received.values())) < 100:
            assert time.monotonic() < deadline, {topic: len(some) for topic, some in received.items()}
            if silent or len({len(some) for some in received.values()}) == 1:  # all of the last frame has come
                scene.write(next(sent))
            silent = True  # the subscriptions begin one after another, so one may have missed a frame
            with suppress(TimeoutError):
                told = socket.recv(timeout=0.2)
                silent = False
                if isinstance(told, bytes) and told[0] == 1:  # message data: its subscription and time follow
                    id, stamp = struct.unpack_from("<IQ", told, 1)
                    received[channels[id]].append(stamp)
    scene.close("")
    for stamps in received.values():
        assert stamps == sorted(set(stamps))


@pytest.mark.parametrize("address", ["", "eight", "127.0.0.1:x", "70000"])
def test_what_is_no_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="is not a port"):
        foxglove.open_server(address)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.mcap"):
        foxglove.McapFile(tmp_path / "run.bag")
    with pytest.raises(PublishError, match="cannot write"):
        foxglove.McapFile(tmp_path / "nowhere" / "run.mcap")
