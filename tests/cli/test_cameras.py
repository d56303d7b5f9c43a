"""Several cameras in one run: from words and from tables, with settings, outputs and names of their own."""

import json
import threading
import time
from pathlib import Path

import pytest

from online_tapir.cli.app import main
from online_tapir.cli.cameras import names_of, split
from online_tapir.cli.fleet import read_cameras
from online_tapir.control.client import CameraState, Controller
from online_tapir.control.protocol import ControlError
from online_tapir.errors import ConfigError
from online_tapir.recording.reader import Recording

ALONE = ("--rerun", "off", "--publish", "off", "--control", "off")
QUICK = ("--size", "64x64", "--fps", "0", "--flow", "off", "--points", "grid:2", "--quiet")


def test_words_are_split_into_sources_and_the_rest() -> None:
    assert split(["--camera", "0", "--fps", "9", "--camera=rtsp://x/?a=b"]) == (["0", "rtsp://x/?a=b"], ["--fps", "9"])
    assert split([]) == ([], [])


def test_every_camera_is_recorded_under_its_own_name(tmp_path: Path) -> None:
    words = ["--camera", "demo", "--camera", "demo:7", *ALONE, *QUICK, "--frames", "30"]
    main([*words, "--record", str(tmp_path / "run")])
    recordings = {folder.name: Recording(folder) for folder in (tmp_path / "run").iterdir()}
    assert set(recordings) == {"demo", "demo-2"}
    assert all(one.manifest.camera.name == name for name, one in recordings.items())
    assert sum(len(one) for one in recordings.values()) == 30
    assert min(len(one) for one in recordings.values()) >= 3, "one camera starved"


def test_cameras_are_called_by_their_sources_whatever_their_order() -> None:
    cameras = [(None, "0"), (None, "rtsp://me:secret@10.0.0.7:554/stream"), ("yard", "2"), (None, "/dev/video2")]
    names = names_of(cameras)
    assert names == ["0", "10.0.0.7:554", "yard", "video2"]
    assert names_of(cameras[::-1]) == names[::-1]
    assert names_of([(None, "rtsp://cam/s?user=a&password=pa@ss"), (None, "rtsp://u:p?a@ss@cam/1")]) == [
        "hidden",
        "cam",
    ]
    assert names_of([(None, "a.mp4"), (None, "b/a.mp4"), ("a", "c.mp4")]) == ["a-2", "a-3", "a"]


def test_points_are_not_saved_under_names_that_depend_on_the_order(tmp_path: Path) -> None:
    words = ["--camera", "demo", "--camera", "demo:7", *ALONE, *QUICK, "--frames", "2"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--save-state", str(tmp_path / "points")])
    assert end.value.code == 2
    cameras = tmp_path / "cameras.toml"
    cameras.write_text('[[camera]]\nsource = "rtsp://nvr/1"\n[[camera]]\nsource = "rtsp://nvr/2"\n')
    with pytest.raises(ConfigError, match="two cameras would be called 'nvr'"):
        read_cameras(cameras)


def test_tables_give_each_camera_its_own_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        'rerun = "off"\npublish = "off"\ncontrol = "off"\nframes = 30\nsize = "64x64"\nfps = 0\nflow = "off"\n'
        'points = "grid:2"\njson-log = true\n'
        '[[camera]]\nsource = "demo"\nname = "left"\n'
        '[[camera]]\nsource = "demo:3"\nname = "right"\npoints = "grid:3"\n'
    )
    main(["--config", str(config)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    points = {line["camera"]: line["points"] for line in lines if line["event"] == "summary"}
    assert points == {"left": 4, "right": 9}


def test_a_list_of_sources_in_a_file_is_several_cameras(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.toml"
    head = 'size = "64x64"\nfps = 0\nflow = "off"\nframes = 30\npoints = "grid:2"\njson-log = true\n'
    config.write_text(head + 'camera = ["demo", "demo:3"]\n')
    main(["--config", str(config), *ALONE])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(line["camera"] for line in lines if line["event"] == "summary") == ["demo", "demo-2"]
    for wrong, said in (("[]", "an empty list"), ("[1]", "names no source"), ('[["a"]]', "names no source")):
        config.write_text(f"{head}camera = {wrong}\n")
        with pytest.raises(SystemExit) as end:
            main(["--config", str(config), *ALONE])
        assert end.value.code == 2
        assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('name = "left"', "names no source"),
        ('source = "demo"\npints = 3', "Did you mean --points"),
        ('source = "demo"\nname = "twin"\n[[camera]]\nsource = "demo"\nname = "twin"', "called 'twin'"),
        ('source = "no such file.mp4"', "no such file"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, said: str) -> None:
    config = tmp_path / "run.toml"
    config.write_text(f'size = "64x64"\n[[camera]]\nsource = "demo:1"\n[[camera]]\n{table}\n')
    with pytest.raises(SystemExit) as end:
        main(["--config", str(config), *ALONE, "--frames", "2"])
    assert end.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_cameras_come_from_words_or_from_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.toml"
    config.write_text('[[camera]]\nsource = "demo"\n')
    with pytest.raises(SystemExit):
        main(["--config", str(config), "--camera", "demo", *ALONE])
    assert "not from both" in " ".join(capsys.readouterr().err.split())


def test_a_request_reaches_the_camera_that_it_names(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/control"
    words = ["--camera", "demo", "--camera", "demo:7", "--rerun", "off", "--publish", "off", "--control", address]
    refusals: list[str] = []
    found: dict[str, object] = {}

    def ask() -> None:
        with Controller(address, timeout_ms=20_000) as any_camera, Controller(address, camera="demo-2") as second:
            found["cameras"] = any_camera.cameras()
            while second.status()["frame_id"] < 0:
                time.sleep(0.01)
            found["cleared"] = second.clear()
            for camera in ("", "third"):
                try:
                    Controller(address, camera=camera).status()
                except ControlError as error:
                    refusals.append(error.name)
            found["first"] = Controller(address, camera="demo").status()["points"]
            found["second"] = second.status()["points"]
            any_camera.stop()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    main([*words, *QUICK, "--frames", "20000"])
    asking.join(10)
    assert found == {"cameras": ["demo", "demo-2"], "cleared": 4, "first": 4, "second": 0}
    assert refusals == ["which_camera", "which_camera"]


def test_cameras_join_and_leave_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"ipc://{tmp_path}/control"
    words = ["--camera", "demo", "--rerun", "off", "--publish", "off", "--control", address]
    where = ["--address", address, "--timeout", "20"]
    states: list[list[CameraState]] = []
    refused: list[str] = []

    def ask() -> None:
        with Controller(address, timeout_ms=20_000) as controller:
            while controller.status()["frame_id"] < 0:
                time.sleep(0.01)
            main(["control", "camera", "add", "demo:7", "--set.points", "grid:3", "--set.size", "64x64", *where])
            with Controller(address, camera="demo-2") as joined:
                while joined.status()["points"] != 9:
                    time.sleep(0.01)
            for wrong in (
                {"source": "demo", "pints": 3},
                {"source": "no such.mp4"},
                {"source": "demo", "name": "demo"},
            ):
                try:
                    added = controller.add_camera(**{"source": "demo", **wrong})
                    while (state := next(c for c in controller.camera_states() if c.name == added)).state == "opening":
                        time.sleep(0.01)
                    refused.append(state.reason)
                except ControlError as error:
                    refused.append(error.message)
            main(["control", "camera", "remove", "demo", *where])
            while "demo" in controller.cameras():
                time.sleep(0.01)
            states.append(controller.camera_states())
            controller.stop()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    main([*words, *QUICK, "--frames", "50000"])
    asking.join(10)
    assert {state.name for state in states[0]} == {"demo-2", "demo-3", "no-such"}
    assert {state.state for state in states[0]} == {"streaming", "failed"}
    assert "did you mean 'points'?" in refused[0]
    assert "there is no file no such.mp4" in refused[1]
    assert "there is a camera 'demo' already" in refused[2]
    assert "demo-2" in capsys.readouterr().out.split()
