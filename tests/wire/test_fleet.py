"""The directory round-trips, and a subscriber of a fleet follows its cameras and hears no rig that has lost one."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from online_tapir import subscribe
from online_tapir.cli import fleet as cli
from online_tapir.errors import ConfigError, WireError
from online_tapir.fleet.forwarder import Forwarder
from online_tapir.records import Frame
from online_tapir.sinks.zmq import ZmqPublisher
from online_tapir.testing import make_tracks
from online_tapir.wire import directory as wire
from online_tapir.wire.diagnosis import why_fleet_silent
from online_tapir.wire.directory import CameraEntry, Directory, RigEntry
from online_tapir.wire.fleet import DirectoryReader
from online_tapir.wire.security import THIS_MACHINE, Access, BoundSocket, load_keys, new_keys, trust

FRAME = Frame(0, 0, 0, np.zeros((17, 33, 3), np.uint8))
PATIENCE_MS = 30_000
ENTRY = CameraEntry("door", "rig-a", "tcp://127.0.0.1:5", 3, "streaming", "", 29.5, 21.0, 16, 2)
WHOLE = Directory(
    "lab", "1.0", "127.0.0.1:6379", (ENTRY,), (RigEntry("rig-a", "10.0.0.1", "up", "", 8, 1, 0.5, 2),), 4, ("moved",), 7
)


def test_a_directory_round_trips() -> None:
    assert wire.decode(wire.encode(WHOLE)) == WHOLE


def changed(**changes: Any) -> bytes:
    head, _, packed = wire.encode(WHOLE).partition(b"\0")
    body = {key: value for key, value in {**msgpack.unpackb(packed), **changes}.items() if value is not ...}
    return head + b"\0" + msgpack.packb(body)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"version": 2}, "version 2 .* up to 1"),
        ({"fleet": "other"}, "topic says fleet 'lab'"),
        ({"cameras": [1]}, "cameras holds 1"),
        ({"cameras": [{"name": "door"}]}, "without 'rig'"),
        ({"rigs": ...}, "without 'rigs'"),
        ({"notes": [3]}, "notes holds"),
        ({"moves": -1}, "moves is -1"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(WireError, match=found):
        wire.decode(changed(**changes))


def test_keys_of_the_future_are_ignored() -> None:
    assert wire.decode(changed(colour="red")) == WHOLE


@given(st.lists(st.tuples(st.integers(0, len(wire.encode(WHOLE)) - 1), st.integers(0, 255)), max_size=8))
def test_a_mutated_directory_is_read_or_refused_and_nothing_else(edits: list[tuple[int, int]]) -> None:
    message = bytearray(wire.encode(WHOLE))
    for at, value in edits:
        message[at] = value
    try:
        found = wire.decode(bytes(message))
    except WireError:
        return
    wire.encode(found)


class Head:
    """Publishes a directory again and again, and two rigs' tracks when told."""

    def __init__(self, access: Access = THIS_MACHINE) -> None:
        self._bound = BoundSocket(zmq.PUB, "tcp://127.0.0.1:0", access, {})
        self.address = self._bound.address.removeprefix("tcp://")
        self.rigs = [ZmqPublisher("tcp://127.0.0.1:0") for _ in range(2)]
        self.now = Directory("lab")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go, daemon=True)
        self._thread.start()

    def _go(self) -> None:
        while not self._stop.wait(0.02):
            self._bound.socket.send(wire.encode(self.now))

    def place(self, epoch: int, rig: int, camera: str = "door") -> None:
        entry = CameraEntry(camera, f"rig-{rig}", self.rigs[rig].address, epoch, "streaming")
        others = tuple(one for one in self.now.cameras if one.name != camera)
        self.now = replace(self.now, cameras=(*others, entry))

    def send(self, rig: int, frame_id: int, epoch: int, camera: str = "door") -> None:
        tracks = make_tracks(frame_id, (), size=(33, 17), captured_ns=frame_id, camera=camera)
        self.rigs[rig].publish(FRAME, replace(tracks, epoch=epoch))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for rig in self.rigs:
            rig.close()
        self._bound.close(0)


@pytest.fixture
def head() -> Iterator[Head]:
    with closing(Head()) as head:
        yield head


def knock(head: Head, stream: Any, rig: int, epoch: int, camera: str = "door") -> None:
    """Until the subscription hears the rig."""
    arrived = threading.Event()

    def knocking() -> None:
        while not arrived.wait(0.01):
            head.send(rig, 0, epoch, camera)

    thread = threading.Thread(target=knocking, daemon=True)
    thread.start()
    try:
        while True:
            tracks = next(stream)
            if (tracks.epoch, tracks.camera) == (epoch, camera):
                break
    finally:
        arrived.set()
    thread.join()


def after_the_knocks(stream: Any) -> Any:
    while True:
        tracks = next(stream)
        if tracks.frame_id:
            return tracks


def test_a_subscriber_follows_a_camera_to_another_rig(head: Head) -> None:
    head.place(1, rig=0)
    with subscribe(fleet=head.address, cameras=["door"], timeout_ms=PATIENCE_MS) as stream:
        knock(head, stream, 0, epoch=1)
        head.send(0, 1, epoch=1)
        assert after_the_knocks(stream).frame_id == 1
        head.place(2, rig=1)
        knock(head, stream, 1, epoch=2)
        head.send(1, 2, epoch=2)
        assert (after_the_knocks(stream).frame_id, stream.directory.camera("door").epoch) == (2, 2)


def test_a_rig_that_was_cut_off_is_not_heard(head: Head) -> None:
    head.place(1, rig=0)
    head.place(1, rig=0, camera="yard")
    with subscribe(fleet=head.address, timeout_ms=PATIENCE_MS) as stream:
        knock(head, stream, 0, epoch=1)
        head.place(2, rig=1)  # rig 0 goes on with the yard, and does not know that it has lost the door
        knock(head, stream, 1, epoch=2)
        head.send(0, 1, epoch=1)
        head.send(0, 2, epoch=1, camera="yard")
        heard = after_the_knocks(stream)
    assert (heard.camera, heard.frame_id) == ("yard", 2)


def test_newest_keeps_the_newest_of_each_camera(head: Head) -> None:
    head.place(1, rig=0)
    head.place(1, rig=0, camera="yard")
    with subscribe(fleet=head.address, newest=True, timeout_ms=PATIENCE_MS) as stream:
        knock(head, stream, 0, epoch=1)
        knock(head, stream, 0, epoch=1, camera="yard")
        for frame_id in range(1, 30):
            head.send(0, frame_id, epoch=1)
            head.send(0, frame_id, epoch=1, camera="yard")
        time.sleep(0.2)
        newest, count = dict[str, int](), 0
        while newest != {"door": 29, "yard": 29}:
            one = after_the_knocks(stream)
            newest[one.camera], count = one.frame_id, count + 1
    assert count < 30  # of 58


def test_the_forwarder_gives_one_address_and_keeps_the_fence(head: Head) -> None:
    head.place(1, rig=0)
    head.place(1, rig=0, camera="yard")
    stop = threading.Event()
    with closing(Forwarder(head.address, "tcp://127.0.0.1:0", access=THIS_MACHINE)) as forwarder:
        thread = threading.Thread(target=forwarder.go, args=(stop,))
        thread.start()
        try:
            with subscribe(forwarder.address, timeout_ms=PATIENCE_MS) as stream:
                knock(head, stream, 0, epoch=1)
                head.place(2, rig=1)
                knock(head, stream, 1, epoch=2)
                head.send(0, 1, epoch=1)
                head.send(0, 2, epoch=1, camera="yard")
                assert after_the_knocks(stream).camera == "yard"
        finally:
            stop.set()
            thread.join()


def test_silence_is_explained_by_the_directory(head: Head) -> None:
    head.now = Directory("lab", cameras=(CameraEntry("door", state="waiting", reason="no rig is up"),))
    assert why_fleet_silent(head.address, None, None, PATIENCE_MS) == "door is waiting (no rig is up)"
    assert "has no camera 'yard'; there are door" in why_fleet_silent(head.address, "yard", None, PATIENCE_MS)
    with subscribe(fleet=head.address, timeout_ms=300) as stream:
        while stream.directory is None:
            with suppress(TimeoutError):
                next(stream)
        with pytest.raises(TimeoutError, match="door is waiting"):
            next(stream)


@pytest.mark.parametrize("clients", [0, 1, 2])
def test_a_fleet_with_keys_is_reached_by_whom_it_trusts_and_by_itself(
    clients: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "ANSWER_MS", PATIENCE_MS)
    own = tmp_path / "fleet"
    new_keys(own)
    for number in range(clients):
        new_keys(tmp_path / f"client{number}")
        trust(own, tmp_path / f"client{number}" / f"client{number}.key")
        trust(tmp_path / f"client{number}", own / "fleet.key")
    new_keys(tmp_path / "stranger")
    trust(tmp_path / "stranger", own / "fleet.key")
    with closing(Head(Access(load_keys(own)))) as head:
        for folder in [own, *(tmp_path / f"client{number}" for number in range(clients))]:
            assert cli.directory_of(cli.Reach(fleet=head.address, keys=folder)).fleet == "lab"
        forwarder = Forwarder(head.address, "tcp://127.0.0.1:0", access=THIS_MACHINE, keys=own, itself=True)
        with closing(forwarder):
            while forwarder._raw.directory is None:
                with suppress(TimeoutError):
                    forwarder._raw.receive(300)
            with pytest.raises(TimeoutError, match="it has no cameras"):
                forwarder._raw.receive(300)
        monkeypatch.setattr(cli, "ANSWER_MS", 1500)
        for keys, hint in ((tmp_path / "stranger", "are these keys trusted there"), (None, "give --keys")):
            with pytest.raises(ConfigError, match=hint):
                cli.directory_of(cli.Reach(fleet=head.address, keys=keys))


def test_without_a_fleet_there_is_no_directory() -> None:
    with DirectoryReader("127.0.0.1:9", timeout_ms=50) as reader, pytest.raises(TimeoutError, match="is a fleet up"):
        next(reader)


@pytest.mark.parametrize(
    "how",
    [{}, {"address": "tcp://a:1", "fleet": "b:1"}, {"address": "tcp://a:1", "cameras": ["x"]}],
    ids=["neither", "both", "cameras of an address"],
)
def test_an_address_and_a_fleet_exclude_each_other(how: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        subscribe(**how)


def test_a_fleet_takes_names_in_a_list() -> None:
    with pytest.raises(ConfigError, match=r"cameras=\['door'\]"):
        subscribe(None, "door", fleet="127.0.0.1:1")  # type: ignore[call-overload]
