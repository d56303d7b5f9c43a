"""`online-tapir control` does what its words say to the run it reaches, and says why when it cannot."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from online_tapir.cli.app import main
from online_tapir.control.server import ControlServer
from online_tapir.live.stream import Stream


@pytest.fixture
def control(
    server: ControlServer,
    stream: Stream,
    served: Callable[[ControlServer, Stream], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[..., str]]:
    def control(*words: object) -> str:
        """What is printed on the standard output."""
        main(["control", *map(str, words), "--address", server.address])
        return capsys.readouterr().out

    with served(server, stream):
        yield control


def test_points_are_added_listed_and_removed(control: Callable[..., str], stream: Stream) -> None:
    assert control("add", "12,8", "30.5,2", "--frame", 4) == "0 1\n"
    assert control("add", "0.5,0.5 1,1", "--normalised") == "2 3\n"
    assert control("list").splitlines()[0] == "0 - - waiting for a frame"
    assert control("inspect", 2) == ""
    assert stream.tracker.inspected == 2
    assert control("inspect", "off") == ""
    assert stream.tracker.inspected is None
    assert control("remove", 0, 3) == ""
    assert stream.tracker.ids.tolist() == [1, 2]
    assert control("clear") == "2 points removed\n"


def test_the_run_is_paused_resumed_set_and_stopped(control: Callable[..., str], stream: Stream) -> None:
    control("pause")
    assert json.loads(control("status"))["state"] == "paused"
    control("resume")
    assert not stream.paused
    assert json.loads(control("set", "--patience", 7)) == {"heartbeat_s": 1.0, "patience_frames": 7}
    control("replenish", "on", "--points", 3)
    assert stream.replenishing == 3
    control("replenish", "off")
    assert stream.replenishing is None
    control("stop")
    assert stream.stop.is_set()


def test_what_was_saved_is_printed(control: Callable[..., str], keeps: Callable[[str], None]) -> None:
    keeps("")
    assert control("save") == "7 points of frame 5 saved\n"


@pytest.mark.parametrize(
    ("words", "points"),
    [
        (("12", "8"), 1),
        (("12,", "8"), 1),
        ((" 12 , 8 ",), 1),
        (("12 8",), 1),
        (("12", "8", "30.5", "2"), 2),
        (("12,8 30.5,2",), 2),
    ],
)
def test_points_may_be_written_as_the_shell_splits_them(
    control: Callable[..., str], stream: Stream, words: tuple[str, ...], points: int
) -> None:
    control("add", *words)
    (named,) = [queries.xy.tolist() for _, queries in stream._named]
    assert named == [[12, 8], [30.5, 2]][:points]


@pytest.mark.parametrize(
    ("name", "begins"), [("now.png", b"\x89PNG"), ("now.jpg", b"\xff\xd8"), ("NOW.JPEG", b"\xff\xd8")]
)
def test_a_snapshot_is_written_and_its_frame_printed(
    control: Callable[..., str], tmp_path: Path, name: str, begins: bytes
) -> None:
    assert control("snapshot", tmp_path / name) == "5\n"
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "12"), "'12' is not a point; write x,y"),
        (("add", "12,eight"), "is not a point"),
        (("add", "12", "8", "30"), "'12' is not a point"),
        (("add", "12,8", "30"), "'30' is not a point"),
        (("add", "1,2,3"), "'1,2,3' is not a point"),
        (("snapshot", "now.gif"), "cannot be written as now.gif; name a .jpg, .jpeg, .png file"),
        (("snapshot", "now"), "cannot be written as now; name a"),
        (("add", "50,8"), "outside_frame"),
        (("add", "12,8", "--frame", "1"), "frame_left_window"),
        (("remove", "7"), "unknown_point"),
        (("save",), "not_saved"),
        (("inspect", "7"), "unknown_point"),
        (("inspect", "none"), "none"),
        (("snapshot", "/no/such/folder/now.png"), "cannot write"),
        (("status", "--camera", "other"), "no camera is called 'other'"),
        (("fly",), "fly"),
    ],
)
def test_what_cannot_be_done_is_said_by_name(
    control: Callable[..., str], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as end:
        control(*words)
    assert end.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_nobody_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["control", "pause", "--address", "tcp://127.0.0.1:1", "--timeout", "0.05"])
    assert "no reply from tcp://127.0.0.1:1" in " ".join(capsys.readouterr().err.split())
