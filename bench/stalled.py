"""Those who have stopped reading what the program sends: a Rerun viewer that hangs, a subscriber that never looks.

They are there to cost nothing; `bench.live` says what they do cost.
"""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import DEVNULL

import psutil  # type: ignore[import-untyped]
import zmq

from bench.report import BenchError
from online_tapir.sinks.rerun.viewer import find_viewer

PATIENCE_S = 10.0  # for a viewer to listen


@dataclass(frozen=True, slots=True)
class RerunServer:
    """A process that takes what is drawn, until it is told to stop reading."""

    process: psutil.Popen
    port: int

    @property
    def url(self) -> str:
        return f"rerun+http://127.0.0.1:{self.port}/proxy"

    def stop_reading(self, sender: psutil.Popen) -> None:
        """Returns when the process stands still, its connections open. BenchError where `sender` has none to it."""
        remotes = {connection.raddr.port for connection in sender.net_connections("tcp") if connection.raddr}
        if self.port not in remotes:
            raise BenchError("the program is not connected to the Rerun viewer that is to stall; raise --warm-up")
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)


@contextmanager
def rerun_server() -> Iterator[RerunServer]:
    """Rerun's own server on a port of loopback. BenchError where rerun is not installed or does not listen."""
    found = find_viewer()
    if found is None:
        raise BenchError("rerun's viewer is not installed, so none can stall; pip install rerun-sdk")
    port = free_port()
    words = [os.fspath(found), "--serve-grpc", "--bind", "127.0.0.1", "--port", str(port)]
    process = psutil.Popen([*words, "--server-memory-limit", "512MB"], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    try:
        wait_for_listener(port)
        yield RerunServer(process, port)
    finally:
        process.kill()  # stopped or not
        process.wait()


def wait_for_listener(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise BenchError(f"the Rerun viewer did not listen on port {port} in {PATIENCE_S:g} s") from None
            time.sleep(0.05)


@contextmanager
def deaf_subscriber(address: str) -> Iterator[None]:
    """A subscriber that has asked for everything and never reads."""
    context = zmq.Context()
    deaf = context.socket(zmq.SUB)
    deaf.setsockopt(zmq.RCVHWM, 1)
    deaf.setsockopt(zmq.RCVBUF, 4096)
    deaf.setsockopt(zmq.SUBSCRIBE, b"")
    deaf.connect(address)
    try:
        yield
    finally:
        deaf.close(linger=0)
        context.term()


def free_port() -> int:
    """A port of loopback that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
