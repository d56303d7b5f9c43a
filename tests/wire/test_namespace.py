"""Two hosts, by Linux network namespaces with a cable between them: what keys let through it and what they keep.

The tracker is the real program, on one host; readers and controllers are on the other, and so is one who listens on the
cable. A second tracker, `--insecure`, shows that what is not found of the first could have been.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from online_tapir.control.protocol import ARGUMENTS
from online_tapir.model.checkpoint import save_weights
from online_tapir.model.tapir import Tapir
from online_tapir.wire.security import new_keys, trust

LONG = 60  # seconds; only a broken program takes so long
ROBOT = "10.77.0.1"
LAPTOP = "10.77.0.2"
KEYED, OPEN = (5555, 5556), (6555, 6556)  # published and controlled; in a namespace every port is free
RUN = (
    *("--camera", "demo", "--size", "64x64", "--fps", "10", "--points", "grid:2", "--threads", "1"),
    *("--rerun", "off"),
)
CLIENT = """
import json, sys
from online_tapir import Controller, subscribe
from online_tapir.control.protocol import ControlError

published, controlled, keys, patience_ms = sys.argv[1], sys.argv[2], sys.argv[3] or None, int(sys.argv[4])
commands, answers = json.loads(sys.argv[5]), {}
with Controller(controlled, timeout_ms=patience_ms, keys=keys) as controller:
    for command, arguments in commands:
        try:
            controller._ask(command, **arguments)
            answers[command] = "done"
        except ControlError as error:
            answers[command] = error.name
        if command == "list":
            with subscribe(published, timeout_ms=patience_ms, keys=keys) as stream:
                try:
                    heard = [next(stream).frame_id for _ in range(5)]
                except TimeoutError:
                    heard = []
print(json.dumps({"heard": heard, "answers": answers}))
"""
LISTENER = """
import json, signal, socket, sys

def over(number, frame):
    raise SystemExit

cable = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))  # IPv4
cable.bind((sys.argv[1], 0x0800))
signal.signal(signal.SIGTERM, over)
print("listening", flush=True)
sent = {}  # by the port it came from
try:
    while True:
        packet = cable.recv(2**17)
        head = 4 * (packet[0] & 15)
        port = int.from_bytes(packet[head : head + 2], "big")
        data = packet[head + 4 * (packet[head + 12] >> 4) : int.from_bytes(packet[2:4], "big")]
        sent[port] = sent.get(port, b"") + data
finally:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    words = sys.argv[2:]
    print(json.dumps({port: [len(data), [w for w in words if w.encode() in data]] for port, data in sent.items()}))
"""
EVERY = [
    ("list", {}), ("status", {}), ("add", {"xy": [[0.5, 0.5]], "normalised": True}), ("inspect", {"id": 1}),
    ("set", {"heartbeat_s": 0.5}), ("replenish", {"on": False}), ("snapshot", {"format": "png"}), ("save", {}),
    ("pause", {}), ("resume", {}), ("remove", {"ids": [0]}),
    ("label", {"id": 1, "name": "knee"}), ("clear", {}),
    ("record", {"on": False}), ("templates", {}), ("camera_add", {"source": "demo:7", "name": "more"}),
    ("camera_remove", {"name": "more"}), ("cameras", {}), ("stop", {}),
]  # fmt: skip


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=LONG)


class Hosts:
    """`robot` and `laptop`, each a network of its own; what runs on them ends with the `opened` of whoever asked."""

    def __init__(self, robot: str, laptop: str) -> None:
        self.robot, self.laptop = robot, laptop

    def start(self, opened: ExitStack, host: str, *words: object, **pipes: Any) -> "subprocess.Popen[str]":
        """Python with these words on a host."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        command = ["ip", "netns", "exec", host, sys.executable, *map(str, words)]
        process = subprocess.Popen(command, env=environment, text=True, stdin=subprocess.DEVNULL, **pipes)
        opened.callback(process.wait)
        opened.callback(process.kill)
        return process

    def track(self, opened: ExitStack, log: Path, ports: tuple[int, int], *words: object) -> "subprocess.Popen[str]":
        """`online-tapir` on the robot, on every address of it."""
        addresses = ("--publish", f"tcp://*:{ports[0]}", "--control", f"tcp://*:{ports[1]}")
        out = opened.enter_context(log.open("w"))
        return self.start(opened, self.robot, "-m", "online_tapir", *RUN, *addresses, *words, stdout=out, stderr=out)

    def client(
        self, opened: ExitStack, ports: tuple[int, int], keys: object, commands: object, *, patience_ms: int = 30_000
    ) -> "Client":
        """Who reads and controls from the laptop."""
        published, controlled = (f"tcp://{ROBOT}:{port}" for port in ports)
        words = ("-c", CLIENT, published, controlled, keys, patience_ms, json.dumps(commands))
        return Client(self.start(opened, self.laptop, *words, stdout=subprocess.PIPE))


class Client:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def report(self) -> dict[str, Any]:
        said, _ = self._process.communicate(timeout=LONG)
        assert self._process.returncode == 0
        found: dict[str, Any] = json.loads(said)
        return found


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two hosts that nothing is left of afterwards."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("network namespaces want Linux and its `ip`")
    robot, laptop = f"tapir-{os.getpid()}-robot", f"tapir-{os.getpid()}-laptop"
    try:
        try:
            ip("netns", "add", robot)
            ip("netns", "add", laptop)
            ip("-n", robot, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", laptop)
            ip("netns", "exec", robot, "true")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here, which wants root: {error.stderr.strip()}")
        for host, address in ((robot, ROBOT), (laptop, LAPTOP)):
            ip("-n", host, "address", "add", f"{address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", host, "link", "set", link, "up")
        yield Hosts(robot, laptop)
    finally:
        for host in (robot, laptop):
            subprocess.run(["ip", "netns", "delete", host], capture_output=True, timeout=LONG, check=False)


def wait_for(log: Path, words: str) -> None:
    deadline = time.monotonic() + LONG
    while words not in log.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.05)


def test_without_a_key_another_host_reads_and_controls_nothing_and_with_one_everything(
    hosts: Hosts, make_model: Callable[..., Tapir], tmp_path: Path
) -> None:
    model = tmp_path / "tiny.safetensors"
    save_weights(model, make_model(), {"licence": "none"})
    robot, laptop, thief = (tmp_path / name for name in ("robot", "laptop", "thief"))
    for one in (robot, laptop, thief):
        new_keys(one)
    trust(laptop, robot / "robot.key")
    trust(thief, robot / "robot.key")
    trust(robot, laptop / "laptop.key")
    keyed_log, open_log = tmp_path / "keyed.log", tmp_path / "open.log"
    with ExitStack() as opened:
        state = tmp_path / "points.state"
        tracker = hosts.track(
            opened, keyed_log, KEYED, "--model", model, "--keys", robot, "--save-state", state, "--json-log"
        )
        hosts.track(opened, open_log, OPEN, "--model", model, "--insecure", "--json-log")
        for log in (keyed_log, open_log):
            wait_for(log, '"frame_id"')  # it tracks
        words = ("-c", LISTENER, "eth0", "tracks/", "frame_id", "request")
        listener = hosts.start(opened, hosts.laptop, *words, stdout=subprocess.PIPE)
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listening\n"

        few = EVERY[:2]
        nobody = hosts.client(opened, KEYED, "", few, patience_ms=1500)
        stranger = hosts.client(opened, KEYED, thief, few, patience_ms=1500)
        anyone = hosts.client(opened, OPEN, "", few)
        nothing = {"heard": [], "answers": {"list": "no_answer", "status": "no_answer"}}
        assert nobody.report() == nothing
        assert stranger.report() == nothing
        everything = anyone.report()
        assert len(everything["heard"]) == 5
        assert everything["answers"] == {"list": "done", "status": "done"}

        known = {command for command, _ in EVERY}
        assert known == set(ARGUMENTS), "a command that is new is asked for here, too"
        friend = hosts.client(opened, KEYED, laptop, EVERY).report()
        assert len(friend["heard"]) == 5
        assert friend["answers"] == dict.fromkeys(known, "done") | {
            "inspect": "not_shown",
            "record": "not_recorded",
            "templates": "no_template",
        }
        assert tracker.wait(LONG) == 0, "it was told to stop"

        listener.send_signal(signal.SIGTERM)
        sent, _ = listener.communicate(timeout=LONG)
        on_the_cable = {int(port): found for port, found in json.loads(sent).items()}
        for secret, told in zip(KEYED, OPEN, strict=True):
            assert on_the_cable[secret][0] > 1000
            assert on_the_cable[secret][1] == []
            assert on_the_cable[told][1]
        assert on_the_cable[OPEN[0]][1][:2] == ["tracks/", "frame_id"]
    log = keyed_log.read_text(encoding="utf-8")
    key = next(line for line in (thief / "thief.key").read_text().splitlines() if "public-key" in line).split('"')[1]
    for port in KEYED:
        assert log.count(f"refused a client at tcp://*:{port}: its key {key} is not in {robot / 'peers'}") == 1
