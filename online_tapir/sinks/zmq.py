"""Tracks onto a ZeroMQ PUB socket: each message is sent or dropped, and never waited for."""

import errno
import time
from collections.abc import Callable
from dataclasses import replace

import zmq

from online_tapir.errors import PublishError
from online_tapir.records import Frame, Tracks
from online_tapir.sinks import wire

DEFAULT_ADDRESS = "tcp://127.0.0.1:5555"
_LINGER_MS = 200  # at the end, for the last messages to leave
_QUEUED_MESSAGES = 64  # per subscriber, then its messages are dropped; fewer and a burst of many cameras loses some

_REASONS = {
    zmq.EADDRINUSE: "another program, perhaps another online-tapir, has it; end that, or choose another port",
    errno.EACCES: "no permission; ports below 1024 belong to root, choose another",
    zmq.EADDRNOTAVAIL: "this machine does not have that address; choose one of its own",
    errno.ENODEV: "this machine does not have that address; choose one of its own",
    zmq.EPROTONOSUPPORT: "no such transport; use tcp:// or ipc://",
    zmq.EINVAL: "not an address; write tcp://HOST:PORT",
}


class ZmqPublisher:
    """A sink that publishes one message (see `wire`) for each frame.

    `address` is tcp://HOST:PORT or ipc://PATH; port 0 or * takes a free one and the attribute `address` tells it.
    Use from one thread. Raises `PublishError` when the address cannot be bound.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, unix_clock: Callable[[], int] = time.time_ns) -> None:
        _check_port(address)
        self._unix_clock = unix_clock
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, _QUEUED_MESSAGES)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise _refusal(address, _REASONS.get(error.errno or 0, str(error))) from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        """Send `tracks`, stamped with the moment of sending; a subscriber whose queue is full misses them."""
        stamped = replace(tracks, published_unix_ns=self._unix_clock())
        self._socket.send(wire.encode(stamped), zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket; messages still queued get a fifth of a second to leave. May be called twice."""
        self._socket.close(linger=_LINGER_MS)
        self._context.term()


def _check_port(address: str) -> None:
    port = address.rpartition(":")[2]
    if port.isdecimal() and int(port) > 65_535:  # libzmq would take it modulo 65536
        raise _refusal(address, "a port is at most 65535")


def _refusal(address: str, reason: str) -> PublishError:
    return PublishError(f"cannot publish on {address}: {reason} (for example --publish tcp://127.0.0.1:5556)")
