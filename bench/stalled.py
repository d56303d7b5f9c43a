"""Readers that have stopped reading: a Rerun viewer that hangs, and a subscriber that never reads.

They should not slow the program down; `bench.live` measures whether they do.
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

from bench.command import BenchError
from online_tapir.sinks.rerun.mode import find_viewer

PATIENCE_S = 10.0  # for a viewer to start listening


@dataclass(frozen=True, slots=True)
class RerunServer:
    """A Rerun server process that receives what is drawn, until `stop_reading`."""

    process: psutil.Popen
    port: int

    @property
    def url(self) -> str:
        return f"rerun+http://127.0.0.1:{self.port}/proxy"

    def stop_reading(self, sender: psutil.Popen) -> None:
        """Stops the process but leaves its connections open. Raises BenchError if `sender` is not connected to it."""
        remotes = {connection.raddr.port for connection in sender.net_connections("tcp") if connection.raddr}
        if self.port not in remotes:
            raise BenchError("the program is not connected to the Rerun viewer that should stall; raise --warm-up")
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)


@contextmanager
def rerun_server() -> Iterator[RerunServer]:
    """Runs Rerun's own server on a loopback port. Raises BenchError if it is not installed or does not listen."""
    found = find_viewer()
    if found is None:
        raise BenchError("rerun's viewer, which should stall, is not installed; pip install rerun-sdk")
    port = free_port()
    words = [os.fspath(found), "--serve-grpc", "--bind", "127.0.0.1", "--port", str(port)]
    process = psutil.Popen([*words, "--server-memory-limit", "512MB"], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    try:
        wait_for_listener(port)
        yield RerunServer(process, port)
    finally:
        process.kill()  # works on a stopped process, too
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
    """A subscriber to everything that never reads."""
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
    """A loopback port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
