"""What the README tells a reader to copy works."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from online_tapir.recording.tables import Settings
from online_tapir.recording.writer import RecordingWriter
from online_tapir.records import Frame, Label, TrackedObject
from online_tapir.sinks.background import WriterSink
from online_tapir.sinks.zmq import ZmqPublisher
from online_tapir.testing import FakeTracker, Grid, SyntheticCamera, make_tracks, run, sliding_pictures
from online_tapir.wire.messages import DEFAULT_ADDRESS

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = README.parent / "docs" / "examples"
MESSAGES = 3


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["subscribe.py", "subscribe_plain.py"])
def test_the_subscriber_receives_what_is_published(name: str) -> None:
    code = (EXAMPLES / name).read_text(encoding="utf-8")
    lines = first_lines(lambda address: [sys.executable, "-c", code.replace(DEFAULT_ADDRESS, address)])
    assert all("5.5" in line and "6.2" in line and "3" in line for line in lines), lines


def test_the_subscriber_in_another_language_receives_the_same(tmp_path: Path) -> None:
    code = (EXAMPLES / "listen.cpp").read_text(encoding="utf-8")
    includes = "".join(re.findall(r"^#include <.*>\n", code, re.MULTILINE))
    if not built(includes + "int main() {}", tmp_path):
        pytest.skip("no g++ here, or no cppzmq and msgpack-cxx for it")

    def command(address: str) -> list[str]:
        assert built(code.replace(DEFAULT_ADDRESS, address), tmp_path), "it does not compile"
        return ["stdbuf", "-oL", str(tmp_path / "listen")]

    assert set(first_lines(command)) == {"point 3 at 5.5, 6.2\n"}


def test_the_subscriber_in_the_readme_is_the_example() -> None:
    (code,) = (block for block in blocks("python") if "import subscribe" in block)
    assert (EXAMPLES / "subscribe.py").read_text(encoding="utf-8").endswith(code)


def test_the_example_of_a_sink_passes_its_own_test() -> None:
    runpy.run_path(str(EXAMPLES / "my_sink.py"), run_name="__main__")


def test_the_analysis_reads_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink = WriterSink(RecordingWriter(tmp_path / "run", Settings()), "the recording")
    run(SyntheticCamera(sliding_pictures(3)), FakeTracker(lambda xy, on, now: (xy + now, True)), Grid(2, 1), [sink])
    sink.close()
    arguments = [sys.executable, str(EXAMPLES / "analyse_recording.py"), str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    printed = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True).stdout
    assert printed.splitlines() == [f"point {id}: 2.8 px over 3 visible frames" for id in (0, 1)]


def built(code: str, folder: Path) -> bool:
    """Whether a C++ program could be made of `code`, with no warning: `folder`/listen."""
    if shutil.which("g++") is None or shutil.which("stdbuf") is None:
        return False
    (folder / "listen.cpp").write_text(code, encoding="utf-8")
    words = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "listen.cpp", "-o", "listen", "-lzmq"]
    return subprocess.run(words, cwd=folder, capture_output=True, check=False).returncode == 0


def first_lines(command: Callable[[str], list[str]]) -> list[str]:
    """What a subscriber prints of point 3 at 5.5, 6.25, which is published at the address that `command` is given."""
    rgb = np.zeros((16, 16, 3), np.uint8)
    publisher = ZmqPublisher("tcp://127.0.0.1:0")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
    words = command(publisher.address)
    with subprocess.Popen(words, env=environment, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda pipe=process.stdout: lines.extend(islice(pipe, MESSAGES)))
        reader.start()
        frame_id = 0
        while reader.is_alive():  # what is published before the subscriber has joined is lost
            tracks = make_tracks(frame_id, [(5.5, 6.25)], ids=[3], size=(16, 16), captured_ns=1)
            publisher.publish(Frame(frame_id, 1, 1, rgb), tracks)
            frame_id += 1
            reader.join(0.01)
        process.kill()
    publisher.close()
    assert len(lines) == MESSAGES
    return lines


def test_the_commands_that_ci_and_readers_run_are_marked() -> None:
    text = README.read_text(encoding="utf-8")
    for marker, command in (("main-command", "online-tapir --camera demo"), ("test-command", "pytest")):
        found = re.search(rf"^<!-- {marker} -->\n```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        assert found is not None, marker
        assert command in found[1]


def test_every_file_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target


@pytest.mark.parametrize("camera", ["0", "192.168.1.5:554", "küche", "cam 0"])
def test_the_ros_nodes_topics_are_names_that_ros_takes(camera: str) -> None:
    node = runpy.run_path(str(EXAMPLES / "ros2_node.py"))
    for topic in node["messages"](make_tracks(7, [[20.5, 12.5]], camera=camera)):
        for token in topic.split("/"):
            assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", token), topic


def test_the_ros_node_turns_tracks_into_standard_messages() -> None:
    """Its messages are dictionaries until ROS is there; the names are those of vision_msgs 4."""
    node = runpy.run_path(str(EXAMPLES / "ros2_node.py"))
    box = np.array([[10, 10], [30, 10], [30, 20], [10, 20]], np.float32)
    cup = TrackedObject("cup", np.eye(3), box, 2, np.array([3], np.int32), np.array([4], np.int32), {})
    tracks = make_tracks(
        7, [[20.5, 12.5], [40, 30]], ids=[3, 4], visible=[True, False], camera="cam 0", uncertainty=0.5,
        captured_unix_ns=12_000_000_345, labels={3: Label("rim", "cup")}, objects=(cup,),
    )  # fmt: skip
    found = node["messages"](tracks)
    points, things = found["tapir/cam_0/points"], found["tapir/cam_0/objects"]
    assert points["header"] == {"stamp": {"sec": 12, "nanosec": 345}, "frame_id": "cam 0"}
    (point,), (thing,) = points["detections"], things["detections"]
    assert point["id"] == "rim"
    assert point["bbox"]["center"] == {"position": {"x": 20.5, "y": 12.5}, "theta": 0.0}
    assert point["results"] == [{"hypothesis": {"class_id": "rim", "score": 0.5}}]
    assert (thing["id"], thing["bbox"]["size_x"], thing["bbox"]["size_y"]) == ("cup", 20.0, 10.0)
    assert thing["results"][0]["hypothesis"]["score"] == 0.5
