"""This machine needs nothing; others need a key that is allowed, or the word insecure; and a refusal is heard of."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from online_tapir import Controller, subscribe
from online_tapir.cli.app import main
from online_tapir.control.server import ControlServer
from online_tapir.errors import ConfigError, PublishError
from online_tapir.records import Frame
from online_tapir.sinks.zmq import ZmqPublisher
from online_tapir.testing import make_tracks
from online_tapir.wire.security import Access, AllowList, is_local, load_keys, new_keys, trust

FRAME = Frame(0, 0, 0, np.zeros((17, 33, 3), np.uint8))
TRACKS = make_tracks(7, (), size=(33, 17))
LOOPBACK = "tcp://127.0.0.1:0"
MANY = 1500  # half a minute of messages, for who hears the first that comes


class Party:
    """A tracker's folder of keys, a client's that it trusts, and a thief's."""

    def __init__(self, folder: Path) -> None:
        self.robot, self.laptop, self.thief = (folder / name for name in ("robot", "laptop", "thief"))
        for one in (self.robot, self.laptop, self.thief):
            new_keys(one)
        trust(self.laptop, self.robot / "robot.key")
        trust(self.thief, self.robot / "robot.key")
        trust(self.robot, self.laptop / "laptop.key")
        self.refusals: list[str] = []

    @property
    def access(self) -> Access:
        return Access(load_keys(self.robot), report=self.refusals.append)


@pytest.fixture
def party(tmp_path: Path) -> Party:
    return Party(tmp_path)


@pytest.fixture
def publisher(party: Party) -> Iterator[ZmqPublisher]:
    publisher = ZmqPublisher(LOOPBACK, access=party.access)
    yield publisher
    publisher.close()


def hears(publisher: ZmqPublisher, keys: Path | None, messages: int = 30) -> bool:
    """Whether any of so many messages arrives."""
    with subscribe(publisher.address, timeout_ms=20, keys=keys) as stream:
        for _ in range(messages):
            publisher.publish(FRAME, TRACKS)
            try:
                return next(stream).frame_id == 7
            except TimeoutError:
                continue
    return False


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.8.8.8:*", True),
        ("tcp://[::1]:5555", True),
        ("ipc:///run/tracks", True),
        ("inproc://x", True),
        ("tcp://*:5555", False),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://[::]:5555", False),
        ("tcp://eth0:5555", False),
        ("tcp://192.168.0.7:5555", False),
        ("tcp://127.0.0.1.example.org:5555", False),
        ("ws://10.0.0.1:80", False),
    ],
)
def test_what_only_this_machine_can_reach_is_local(address: str, local: bool) -> None:
    assert is_local(address) == local


def test_an_open_address_asks_for_keys_or_for_the_word() -> None:
    with pytest.raises(PublishError, match=r"--keys DIR.*--insecure"):
        ZmqPublisher("tcp://0.0.0.0:0")
    with pytest.raises(ConfigError, match=r"--keys DIR.*--insecure"):
        ControlServer("tcp://0.0.0.0:0")
    ZmqPublisher("tcp://0.0.0.0:0", access=Access(insecure=True)).close()


def test_an_open_address_may_be_bound_with_keys(party: Party) -> None:
    ZmqPublisher("tcp://0.0.0.0:0", access=party.access).close()


def test_keys_and_insecure_contradict_each_other(party: Party) -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        Access(load_keys(party.robot), insecure=True)


def test_an_allowed_key_reads_and_no_other(party: Party, publisher: ZmqPublisher) -> None:
    assert hears(publisher, party.laptop, messages=MANY)
    assert not hears(publisher, party.thief)
    assert not hears(publisher, None)
    assert hears(publisher, party.laptop, messages=MANY)


def test_a_refused_key_is_reported_once_however_often_it_knocks(party: Party, publisher: ZmqPublisher) -> None:
    for _ in range(100):
        assert not hears(publisher, party.thief, messages=10)
        if party.refusals:
            break
    assert not hears(publisher, party.thief, messages=60)
    thief = load_keys(party.thief).public.decode()
    assert party.refusals == [f"refused a client at {LOOPBACK}: its key {thief} is not in {party.robot / 'peers'}"]


def test_a_refused_key_is_reported_again_after_a_minute(party: Party) -> None:
    now = 0.0
    allowed = AllowList(load_keys(party.robot), party.refusals.append, LOOPBACK, monotonic=lambda: now)
    for now in (0.0, 30.0, 59.0, 60.0, 61.0):  # noqa: B007
        assert not allowed.callback("", load_keys(party.thief).public)
    assert len(party.refusals) == 2
    assert allowed.callback("", load_keys(party.laptop).public)


def test_a_key_counts_as_soon_as_it_is_in_the_folder(party: Party, publisher: ZmqPublisher) -> None:
    assert not hears(publisher, party.thief, messages=5)
    trust(party.robot, party.thief / "thief.key")
    assert hears(publisher, party.thief, messages=MANY)


def test_a_client_does_not_talk_to_a_tracker_of_another_key(party: Party, publisher: ZmqPublisher) -> None:
    (party.laptop / "peers" / "robot.key").unlink()
    trust(party.laptop, party.thief / "thief.key")
    assert not hears(publisher, party.laptop)


def test_the_private_key_is_its_owners_alone_and_the_public_one_is_beside_it(party: Party) -> None:
    assert (party.robot / "robot.key_secret").stat().st_mode & 0o777 == 0o600
    assert "secret" not in (party.robot / "robot.key").read_text()
    assert "secret-key" in (party.robot / "robot.key_secret").read_text()
    assert "secret" not in repr(load_keys(party.robot))


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_private_key_that_others_may_read_is_refused(party: Party) -> None:
    (party.robot / "robot.key_secret").chmod(0o640)
    with pytest.raises(ConfigError, match=r"mode 640\); chmod 600"):
        load_keys(party.robot)


def test_a_folder_of_keys_is_never_made_anew(party: Party) -> None:
    with pytest.raises(ConfigError, match="has a private key already"):
        new_keys(party.robot)


def test_a_new_private_key_is_not_put_beside_another_keys_public_one(party: Party) -> None:
    (party.robot / "robot.key_secret").unlink()
    with pytest.raises(ConfigError, match="has a public key already"):
        new_keys(party.robot)
    assert not (party.robot / "robot.key_secret").exists()


def test_an_ipc_address_is_taken_from_no_program_that_uses_it(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/tracks"
    first = ZmqPublisher(address)
    with pytest.raises(PublishError, match="another program"):
        ZmqPublisher(address)
    first.close()
    (tmp_path / "tracks").touch()  # what a program that was killed leaves
    ZmqPublisher(address).close()


def test_what_is_no_folder_of_keys_is_refused(party: Party, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 0 private keys"):
        load_keys(tmp_path / "nowhere")
    secret = party.robot / "robot.key_secret"
    short = 'public-key = "short"\nsecret-key = "short"\n'
    for content in ("", short, secret.read_text().replace("secret-key", "x")):
        secret.write_text(content)
        with pytest.raises(ConfigError, match=r"robot\.key_secret"):
            load_keys(party.robot)
    with pytest.raises(ConfigError, match="is not a public key"):
        trust(party.laptop, tmp_path / "nowhere.key")


def test_a_client_needs_one_tracker_to_trust(party: Party) -> None:
    trust(party.laptop, party.thief / "thief.key")
    with pytest.raises(ConfigError, match="holds 2 public keys"):
        subscribe(LOOPBACK, keys=party.laptop)
    new_keys(party.laptop.parent / "new")
    with pytest.raises(ConfigError, match="holds 0 public keys"):
        Controller(LOOPBACK, keys=party.laptop.parent / "new")


def test_garbage_among_the_peers_lets_nobody_in_and_keeps_nobody_out(party: Party, publisher: ZmqPublisher) -> None:
    (party.robot / "peers" / "empty.key").write_bytes(b"")
    (party.robot / "peers" / "odd.key").write_bytes(b"public-key = \xff\n")
    (party.robot / "peers" / "folder.key").mkdir()
    assert hears(publisher, party.laptop, messages=MANY)
    assert not hears(publisher, party.thief, messages=5)


def test_keys_are_made_and_exchanged_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("robot", "laptop"):
        main(["keys", "new", str(tmp_path / name)])
    main(["keys", "trust", str(tmp_path / "robot"), str(tmp_path / "laptop" / "laptop.key")])
    assert load_keys(tmp_path / "robot").allowed() == {load_keys(tmp_path / "laptop").public}
    assert load_keys(tmp_path / "laptop").secret.decode() not in capsys.readouterr().out


def test_closing_leaves_no_thread_and_the_port_is_free_again(party: Party) -> None:
    first = ZmqPublisher(LOOPBACK, access=party.access)
    first.close()
    first.close()
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.bind(first.address)


def test_a_private_key_is_neither_trusted_nor_copied(party: Party, tmp_path: Path) -> None:
    secret = party.thief / "thief.key_secret"
    renamed = Path(shutil.copy(secret, tmp_path / "friend.key"))
    for file in (secret, renamed):
        with pytest.raises(ConfigError, match=r"holds a private key.*nothing was copied"):
            trust(party.robot, file)
    assert [file.name for file in (party.robot / "peers").iterdir()] == ["laptop.key"]


def test_a_copy_holds_the_public_key_and_nothing_else(party: Party, tmp_path: Path) -> None:
    public = tmp_path / "friend.key"
    public.write_text((party.thief / "thief.key").read_text() + "# call me at 555\n")
    copy = trust(party.robot, public)
    assert "555" not in copy.read_text()
    assert load_keys(party.thief).public in load_keys(party.robot).allowed()


def test_trusting_twice_changes_nothing_and_another_key_of_that_name_is_refused(party: Party, tmp_path: Path) -> None:
    before = load_keys(party.robot).allowed()
    trust(party.robot, party.laptop / "laptop.key")
    new_keys(tmp_path / "other" / "laptop")
    with pytest.raises(ConfigError, match="holds another key already"):
        trust(party.robot, tmp_path / "other" / "laptop" / "laptop.key")
    assert load_keys(party.robot).allowed() == before
