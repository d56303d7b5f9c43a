"""The fleet on a real Ray of this machine: a rig that is killed comes back, and its cameras with their points."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from online_tapir import subscribe
from online_tapir.wire.directory import Directory
from online_tapir.wire.fleet import DirectoryReader

pytest.importorskip("ray")

PATIENCE_S = 150.0
CAMERAS = """
points = "grid:2"
size = "96x64"
fps = 15
input = "64x64"
[[camera]]
name = "door"
source = "demo:1"
[[camera]]
name = "yard"
source = "demo:2"
"""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "online_tapir", "fleet", *words]


def offspring(process: psutil.Process) -> dict[int, str]:
    """The processes that it has started, with their command lines."""
    found = {}
    for child in process.children(recursive=True):
        try:
            found[child.pid] = " ".join(child.cmdline())
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def fleet(tmp_path: Path) -> Iterator[tuple[psutil.Process, str]]:
    """A fleet of one rig; yields its process and where its directory is."""
    file, log = tmp_path / "cameras.toml", tmp_path / "log"
    file.write_text(CAMERAS)
    words = ["--name", "a-test", "--directory", "tcp://127.0.0.1:0", "--rig-cpus", "64", "--save-every", "0.2"]
    words += ["--rigs", "cpu", "--storage", str(tmp_path / "storage")]
    environment = {**os.environ, "ONLINE_TAPIR_CACHE": str(tmp_path / "cache")}
    with log.open("w") as out:
        running = subprocess.Popen(command("up", str(file), *words), stderr=out, env=environment)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while (found := re.search(r"directory at (\S+)", log.read_text())) is None:
                assert running.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield psutil.Process(running.pid), found[1]
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == 0, log.read_text()
        finally:
            running.kill()
            running.wait()


def until(reader: DirectoryReader, told: Callable[[Directory], bool]) -> Directory:
    deadline = time.monotonic() + PATIENCE_S
    for now in reader:
        if told(now):
            return now
        assert time.monotonic() < deadline, f"it never happened: {now}"
    raise AssertionError


def all_streaming(now: Directory) -> bool:
    return bool(now.cameras) and all(camera.state == "streaming" for camera in now.cameras)


def open_to_others(pids: dict[int, str]) -> list[str]:
    """Addresses other than loopback on which these processes listen."""
    found = []
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections("tcp")
        except psutil.NoSuchProcess:
            continue
        found += [one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN]
    return [ip for ip in found if not ip.removeprefix("::ffff:").startswith("127.") and ip != "::1"]


def test_a_killed_rig_comes_back_with_its_cameras_and_their_points(tmp_path: Path) -> None:
    with (
        fleet(tmp_path) as (process, where),
        DirectoryReader(where, timeout_ms=20_000) as reader,
        subscribe(fleet=where, cameras=["door"], timeout_ms=120_000) as stream,
    ):
        until(reader, all_streaming)
        ids = next(stream).ids.tolist()
        there = offspring(process)
        assert open_to_others(there) == []
        saves = [tmp_path / "storage" / "states" / camera for camera in ("door", "yard")]
        deadline = time.monotonic() + PATIENCE_S
        while not all(any(folder.glob("*")) for folder in saves):
            assert time.monotonic() < deadline, "the points were never saved"
            time.sleep(0.1)
        (rig,) = [pid for pid, words in there.items() if words.startswith("ray::RigRun")]
        os.kill(rig, signal.SIGKILL)
        for tracks in stream:
            if tracks.epoch == 2 and len(tracks.ids):  # the model has answered
                break
        assert tracks.ids.tolist() == ids
        now = until(reader, lambda now: all_streaming(now) and all(one.epoch == 2 for one in now.cameras))
        assert {camera.restarts for camera in now.cameras} == {1}
        assert now.rigs[0].restarts == 1
        refused = subprocess.run(command("add", "door", "demo", "--fleet", where), capture_output=True, text=True)
        assert (refused.returncode, "there is a camera 'door' already" in refused.stderr) == (2, True), refused.stderr
        subprocess.run(command("remove", "door", "--fleet", where), check=True)
        assert {camera.name for camera in until(reader, lambda now: len(now.cameras) == 1).cameras} == {"yard"}
        there = offspring(process)
    deadline = time.monotonic() + 20
    while left := [words for pid, words in there.items() if psutil.pid_exists(pid)]:
        assert time.monotonic() < deadline, f"processes stay behind: {left}"
        time.sleep(0.1)


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path) -> None:
    file = tmp_path / "cameras.toml"
    file.write_text(CAMERAS)
    words = ["--address", "127.0.0.1:9", "--storage", str(tmp_path)]
    found = subprocess.run(command("up", str(file), *words), capture_output=True, text=True, timeout=PATIENCE_S)
    assert found.returncode == 2
    assert "cannot join Ray at 127.0.0.1:9" in found.stderr


def test_a_fleet_in_a_cluster_needs_a_storage_that_all_machines_reach(tmp_path: Path) -> None:
    file = tmp_path / "cameras.toml"
    file.write_text(CAMERAS)
    found = subprocess.run(command("up", str(file), "--address", "auto"), capture_output=True, text=True)
    assert (found.returncode, "needs --storage" in found.stderr) == (2, True)
