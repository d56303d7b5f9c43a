"""The command line as a user meets it: clear refusals, runs that end by themselves or when told, data on a pipe."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from online_tapir import Controller, Tracker, load_model, subscribe
from online_tapir.camera import CameraInfo
from online_tapir.camera import opencv as opencv_camera
from online_tapir.cli import app as command_line
from online_tapir.cli.app import main
from online_tapir.launch import outputs, threads
from online_tapir.launch.threads import check_threads
from online_tapir.wire.security import new_keys, trust

LONG = 60  # seconds; only a broken program takes so long
ANY_PORT = "tcp://127.0.0.1:0"
DEMO = ("--camera", "demo", "--size", "49x33", "--fps", "0")
RUN = ("--rerun", "off", "--threads", "1", "--points", "grid:2")


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command line is refused with, on one line."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    printed = capsys.readouterr()
    assert end.value.code == 2
    assert "Traceback" not in printed.err + printed.out
    return " ".join(printed.err.split())


def tracking_refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    return refused(capsys, "--publish", "off", "--rerun", "off", "--frames", 1, *words)


def write_video(path: Path, pictures: list[NDArray[np.uint8]]) -> Path:
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (width, height))
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


def noise(count: int, *shape: int, dtype: type[np.unsignedinteger[Any]] = np.uint8) -> list[NDArray[Any]]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype) for _ in range(count)]


def program(*words: object, **pipes: Any) -> subprocess.Popen[str]:
    """`online-tapir` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "online_tapir", *map(str, words)]
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def address_of(process: subprocess.Popen[str]) -> str:
    """Where it publishes, once it says so."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("publishing on "):
            return line.split()[-1]
    raise AssertionError("it ended without publishing")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.avi", noise(33, 33, 49, 3))


def test_no_such_camera_names_those_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = CameraInfo(5, "/dev/video5", "Desk Cam")
    monkeypatch.setattr(opencv_camera, "list_cameras", lambda: [there])
    message = tracking_refused(capsys, "--camera", "97")
    assert "no camera 97" in message
    assert str(there) in message


def test_no_camera_at_all_points_to_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opencv_camera, "list_cameras", list)
    assert "this machine has none; attach one, or try `--camera demo`" in tracking_refused(capsys, "--camera", "97")


def test_a_missing_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no file" in tracking_refused(capsys, "--camera", tmp_path / "gone.mp4")


@pytest.mark.parametrize(("content", "reason"), [(b"", "is an empty file"), (b"no video at all", "is not a video")])
def test_a_file_that_is_no_video_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, reason: str
) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(content)
    message = tracking_refused(capsys, "--camera", file)
    assert str(file) in message
    assert reason in message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_refused(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video.chmod(0)
    assert "permission denied" in tracking_refused(capsys, "--camera", video)


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no images in it" in tracking_refused(capsys, "--camera", tmp_path)


def test_an_address_that_nobody_serves_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "cannot be reached" in tracking_refused(capsys, "--camera", f"tcp://127.0.0.1:{port}", "--no-wait")


def test_an_unknown_preset_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    message = tracking_refused(capsys, *DEMO, "--model", "enormous")
    assert "'enormous'" in message
    assert all(name in message for name in ("small", "bootstapir", "tapir"))


def test_a_port_in_use_is_refused_with_another_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        message = refused(capsys, *DEMO, "--rerun", "off", "--frames", 1, "--publish", address)
    assert f"cannot publish on {address}" in message
    assert "--publish tcp://" in message


def test_more_points_than_there_is_room_for_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    message = tracking_refused(capsys, *DEMO, "--points", "grid:3", "--max-points", "7")
    assert "9 points" in message
    assert "room for 7" in message
    assert "--max-points" in message


def test_points_outside_the_frame_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    message = tracking_refused(capsys, *DEMO, "--points", "7,7 50,7")
    assert "point 1 at (50, 7) is outside the 49x33 frame" in message


@pytest.mark.parametrize("points", ["", "grid:0", "auto:many", "gone.csv", "7;7"])
def test_points_that_are_none_are_refused(capsys: pytest.CaptureFixture[str], points: str) -> None:
    assert "online-tapir: " in tracking_refused(capsys, *DEMO, "--points", points)


def test_a_mask_of_the_wrong_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "mask.npy", np.ones((64, 64), np.bool_))
    message = tracking_refused(capsys, *DEMO, "--mask", tmp_path / "mask.npy")
    assert "mask.npy is 64x64, the frames are 49x33" in message


def test_a_mask_without_the_object_is_refused_with_those_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "mask.npy", np.full((33, 49), 3, np.uint8))
    message = tracking_refused(capsys, *DEMO, "--mask", tmp_path / "mask.npy", "--mask-id", "7")
    assert "has no object 7: it has 3" in message


def test_a_mask_beside_points_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give one of them" in tracking_refused(capsys, *DEMO, "--points", "grid:2", "--mask", tmp_path / "mask.npy")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"not weights at all, but long enough to look at"])
def test_a_corrupt_weights_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, content: bytes
) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    assert str(file) in tracking_refused(capsys, *DEMO, "--weights", file)


def test_a_missing_weights_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no weights file" in tracking_refused(capsys, *DEMO, "--weights", tmp_path / "gone.safetensors")


@pytest.mark.parametrize("flag", ["--weights", "--model"])
def test_a_foreign_weights_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    file = tmp_path / "foreign.safetensors"
    save_file({"somebody.elses": np.zeros((7, 3), np.float32)}, file)
    assert str(file) in tracking_refused(capsys, *DEMO, flag, file)


def test_frames_too_small_to_track_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_video(tmp_path / "tiny.avi", noise(2, 8, 12, 3))
    message = tracking_refused(capsys, "--camera", file)
    assert "at least 16x16 pixels, not 12x8" in message


@pytest.mark.parametrize(
    "words",
    [
        ("--size", "wide"),
        ("--size", "8x8"),
        ("--fps", "-1"),
        ("--mask-id", "0"),
        ("--max-points", "many"),
        ("--threads", "0"),
        ("--device", "abacus"),
        ("--rerun", "sideways"),
        ("--rerun", "connect=nowhere"),
        ("--inspect", "-1"),
        ("--inspect", "3", "--rerun", "off"),
        ("--no-such-flag",),
        ("no-such-command",),
        ("listen", "5555"),
        ("listen", "--jsonl", "--csv"),
        ("listen", "--count", "0"),
        ("eval", "--photos", "no such folder"),
    ],
    ids=" ".join,
)
def test_what_no_flag_means_is_refused(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    beside = () if words[0] in ("listen", "eval", "no-such-command") else ("--publish", "off", "--frames", 1, *DEMO)
    assert "online-tapir: " in refused(capsys, *beside, *words)


def test_debug_shows_where_an_error_came_from(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--publish", "off", "--rerun", "off", "--debug", "--camera", str(tmp_path / "gone.mp4")])
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "CameraError: there is no file" in printed


def test_a_run_ends_by_itself_with_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    main([*DEMO, *RUN, "--publish", ANY_PORT, "--frames", "5"])
    printed = capsys.readouterr()
    assert re.search(r"^5 frames in \d", printed.err, re.MULTILINE)
    assert "median error on visible points" in printed.err
    assert printed.out == ""


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    main([*DEMO, *RUN, "--publish", ANY_PORT, "--frames", "2", "--quiet"])
    assert capsys.readouterr() == ("", "")


def test_the_json_log_is_one_object_a_line_with_the_summary_last(capsys: pytest.CaptureFixture[str]) -> None:
    main([*DEMO, *RUN, "--publish", ANY_PORT, "--frames", "5", "--json-log"])
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert {line["event"] for line in lines} == {"note", "status", "summary"}
    assert (lines[-1]["event"], lines[-1]["frames"]) == ("summary", 5)
    assert printed.err == ""


@pytest.mark.parametrize(
    ("shape", "dtype"), [((33, 49), np.uint8), ((33, 49, 4), np.uint8), ((33, 49, 3), np.uint16)], ids=str
)
def test_grey_alpha_and_16_bit_pictures_are_tracked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: tuple[int, ...], dtype: type[np.unsignedinteger[Any]]
) -> None:
    for i, picture in enumerate(noise(2, *shape, dtype=dtype)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture)
    main(["--camera", str(tmp_path), *RUN, "--publish", "off"])
    assert "2 frames in" in capsys.readouterr().err


def test_a_size_that_changes_in_the_middle_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, picture in enumerate([*noise(1, 33, 49, 3), *noise(3, 64, 96, 3)]):
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture)
    main(["--camera", str(tmp_path), *RUN, "--publish", "off"])
    assert capsys.readouterr().err.count("scaled to 49x33") == 1


def test_a_mask_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "mask.npy", np.pad(np.full((16, 24), 7, np.uint8), ((9, 8), (13, 12))))
    mask = ("--mask", str(tmp_path / "mask.npy"), "--mask-id", "7", "--max-points", "100")
    main([*DEMO, "--rerun", "off", "--publish", "off", "--frames", "2", *mask])
    assert "2 frames in" in capsys.readouterr().err


def test_a_second_tracker_on_a_machine_runs_and_says_that_it_is_not_controlled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(outputs, "CONTROL_ADDRESS", address)
        main([*DEMO, *RUN, "--publish", "off", "--frames", "1"])
    said = capsys.readouterr().err
    assert f"no control socket: cannot be controlled at {address}: another program" in said
    assert "1 frames in" in said


def test_a_control_address_that_was_asked_for_is_had_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        assert f"cannot be controlled at {address}: another program" in tracking_refused(
            capsys, *DEMO, "--control", address
        )


@pytest.mark.parametrize("flag", ["--publish", "--control"])
def test_an_address_open_to_other_machines_is_refused_with_both_ways_out(
    capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    flags = {"--publish": "off", "--control": "off", flag: "tcp://*:0"}
    message = refused(capsys, *DEMO, *RUN, "--frames", 1, *(word for pair in flags.items() for word in pair))
    assert "--keys DIR" in message
    assert "--insecure" in message


def test_insecure_is_said_and_does(capsys: pytest.CaptureFixture[str]) -> None:
    main([*DEMO, *RUN, "--publish", "tcp://*:0", "--control", "off", "--frames", "1", "--insecure"])
    said = " ".join(capsys.readouterr().err.split())
    assert "--insecure: where an address is open" in said
    assert "1 frames in" in said


def test_a_run_is_read_controlled_and_stopped_by_those_who_have_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    robot, laptop = tmp_path / "robot", tmp_path / "laptop"
    for keys in (robot, laptop):
        new_keys(keys)
    trust(robot, laptop / "laptop.key")
    trust(laptop, robot / "robot.key")
    at = ("--publish", f"ipc://{tmp_path}/tracks", "--control", f"ipc://{tmp_path}/control", "--keys", robot)
    with program(*DEMO[:4], *RUN, *at, stderr=subprocess.PIPE) as process:
        address_of(process)
        with subscribe(f"ipc://{tmp_path}/tracks", keys=laptop, timeout_ms=1000 * LONG) as stream:
            next(stream)
            with Controller(f"ipc://{tmp_path}/control", keys=laptop, timeout_ms=1000 * LONG) as controller:
                (id_,) = controller.add([[20, 20]])
                while id_ not in next(stream).ids:
                    pass
                controller.stop()
        assert process.stderr is not None
        last_words = process.stderr.read()
        assert process.wait(LONG) == 0
    assert "5 points at the end" in last_words


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def told_to_stop(request: pytest.FixtureRequest) -> tuple[int, str, float]:
    """Exit code, last words and seconds to the end of a run that got a signal once its first message was out."""
    with program(*DEMO[:4], *RUN, "--publish", ANY_PORT, stderr=subprocess.PIPE) as process:
        with subscribe(address_of(process), timeout_ms=1000 * LONG) as stream:
            next(stream)
        told = time.monotonic()
        process.send_signal(request.param)
        last_words = process.communicate(timeout=LONG)[1]
        seconds = time.monotonic() - told
    return process.returncode, last_words, seconds


def test_a_signal_ends_the_run_with_a_summary_long_before_a_time_out(told_to_stop: tuple[int, str, float]) -> None:
    code, last_words, seconds = told_to_stop
    assert code == 0
    assert re.search(r"^\d+ frames in \d", last_words, re.MULTILINE)
    assert "Traceback" not in last_words
    assert seconds < LONG / 2  # about 0.3 on an idle machine


def test_points_live_on_when_a_run_is_ended_and_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, tracks, control = tmp_path / "points", f"ipc://{tmp_path}/tracks", f"ipc://{tmp_path}/control"
    addresses = ("--publish", tracks, "--control", control)
    run = (*DEMO[:4], "--rerun", "off", "--threads", "1", *addresses, "--save-state", state, "--resume", state)
    with program(*run, "--points", "grid:2", stderr=subprocess.PIPE) as process:
        address_of(process)
        with (
            subscribe(tracks, timeout_ms=1000 * LONG) as stream,
            Controller(control, timeout_ms=1000 * LONG) as controller,
        ):
            next(stream)
            controller.remove([1])
            controller.add([[20, 20]])
            assert controller.save_state().points == 4
            assert state.exists()
            controller.remove([2])
        process.send_signal(signal.SIGTERM)
        last_words = process.communicate(timeout=LONG)[1]
        assert process.returncode == 0
    assert "does not exist yet: this run begins without saved points" in last_words
    assert re.search(rf"3 points of frame \d+ saved to {state}", last_words)
    main([str(word) for word in (*DEMO, *run[4:], "--frames", 3)])
    assert "continuing with 3 points saved" in capsys.readouterr().err
    listed = ("--points", "20,20", "--replenish", "--json-log")
    main([str(word) for word in (*DEMO, *run[4:], "--frames", 3, *listed)])
    *_, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (summary["frames"], summary["points"]) == (3, 3), "the points of the command are in the file"
    again = Tracker(load_model("small", device="cpu"))
    again.load_state(state)
    assert again.ids.tolist() == [0, 3, 4]


def test_a_state_that_does_not_fit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "points"
    main([str(word) for word in (*DEMO, *RUN, "--publish", "off", "--frames", 1, "--save-state", state)])
    capsys.readouterr()
    for words, said in [
        (("--resume", tmp_path / "gone"), "there is no saved state"),
        (("--resume", state, "--dtype", "bfloat16"), "this computes in 'bfloat16'"),
        (("--resume", state, "--iterations", 2), "with iterations 1, but here it is 2"),
        (("--resume", state, "--resolution", "96x64"), "refined at 256x256, but here at 96x64"),
        (("--resume", state, "--max-points", 3), "has 4 points, but there is room for 3"),
        (("--resume", state, "--points", "grid:2", "--max-points", 7), "4 points asked for beside the 4 there are"),
        (("--save-state", tmp_path), "exists and is not a saved state"),
        (("--save-state", tmp_path / "gone" / "points"), "No such file or directory"),
        (("--save-state-every", 9), "add --save-state FILE"),
    ]:
        assert said in tracking_refused(capsys, *DEMO, *words)


def test_a_listener_in_another_process_gets_every_frame_of_a_file_in_order(tmp_path: Path) -> None:
    frames = 25
    video = write_video(tmp_path / "clip.avi", noise(frames, 33, 49, 3))
    address = f"ipc://{tmp_path}/tracks"
    listening = ("listen", address, "--jsonl", "--timeout", LONG, "--count", frames)
    with program(*listening, stdout=subprocess.PIPE) as listener:
        with program("--camera", video, *RUN, "--publish", address, "--quiet") as tracker:
            written = listener.communicate(timeout=LONG)[0]
        assert tracker.returncode == 0
    assert listener.returncode == 0
    heard = [json.loads(line) for line in written.splitlines()]
    assert [line["frame_id"] for line in heard] == list(range(frames))
    stamps = [line["captured_unix_ns"] for line in heard]
    assert stamps == sorted(set(stamps))
    assert all(len(line["points"]) == 4 for line in heard)


def test_a_listener_that_hears_nothing_gives_up_when_told_to(tmp_path: Path) -> None:
    with program("listen", f"ipc://{tmp_path}/tracks", "--timeout", "0.1", stderr=subprocess.PIPE) as listener:
        said = listener.communicate(timeout=LONG)[1]
    assert listener.returncode == 2
    assert "nothing from ipc://" in said
    assert "Traceback" not in said


def test_the_help_and_the_version_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["--help"],
        ["listen", "--help"],
        ["eval", "--help"],
        ["train", "--help"],
        ["cameras", "--help"],
        ["control", "--help"],
        ["control", "add", "--help"],
        ["keys", "--help"],
    ):
        main(words)
    assert "--max-points" in capsys.readouterr().out


def test_more_threads_than_cpus_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threads, "usable_cpus", lambda: 4)
    assert [check_threads(asked) for asked in (None, 1, 4)] == [None, 1, 4]
    for asked in (5, 10_000):
        message = tracking_refused(capsys, *DEMO, "--threads", asked)
        assert f"--threads {asked}: this machine has 4 CPUs; give 1 to 4" in message


def test_the_default_points_fit_the_room(capsys: pytest.CaptureFixture[str]) -> None:
    main([*DEMO, "--rerun", "off", "--publish", "off", "--control", "off", "--frames", "1", "--max-points", "10"])
    assert "10 points at the end" in capsys.readouterr().err


def test_the_camera_of_the_environment_is_the_source_and_chooses_none_of_those_that_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONLINE_TAPIR_CAMERA", "/dev/video7")
    monkeypatch.setenv("ONLINE_TAPIR_TIMEOUT", "3")
    command_line._with_settings([])

    def bound(words: list[str]) -> dict[str, Any]:
        _, found, _ = command_line.app.parse_args(words, exit_on_error=False, print_error=False)
        return dict(found.arguments)

    assert bound([])["config"].source.camera == "/dev/video7"
    assert bound(["listen"]) == {"timeout": 3.0}
    assert bound(["listen", "--camera", "door"]) == {"camera": "door", "timeout": 3.0}
    assert all(getattr(one, "camera", "") == "" for one in bound(["control", "list"]).values())
