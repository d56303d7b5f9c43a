"""Tracks onto a ZeroMQ PUB socket: each message is sent or dropped, and never waited for."""

import time
from collections.abc import Callable
from dataclasses import replace

import zmq

from online_tapir.errors import PublishError
from online_tapir.records import Frame, Tracks
from online_tapir.wire import messages as wire
from online_tapir.wire.security import THIS_MACHINE, Access, BindError, BoundSocket

DEFAULT_ADDRESS = "tcp://127.0.0.1:5555"
_LINGER_MS = 200  # at the end, for the last messages to leave
_OPTIONS = {
    zmq.SNDHWM: 64,  # kept for each subscriber, then its are dropped; with fewer, a burst of many cameras loses some
    zmq.MAXMSGSIZE: 4096,  # all that a subscriber sends are topics
}


class ZmqPublisher:
    """A sink that publishes one message (see `wire`) for each frame, and a heartbeat when it is told to.

    `address` is tcp://HOST:PORT or ipc://PATH; port 0 or * takes a free one and the attribute `address` tells it.
    `access` says who may subscribe, this machine alone unless told otherwise. Use from one thread. Raises
    `PublishError` when the address cannot be bound or is open to more than `access` allows.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        access: Access = THIS_MACHINE,
        unix_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._unix_clock = unix_clock
        try:
            self._bound = BoundSocket(zmq.PUB, address, access, _OPTIONS)
        except BindError as error:
            raise PublishError(
                f"cannot publish on {address}: {error} (for example --publish tcp://127.0.0.1:5557)"
            ) from error
        self.address = self._bound.address

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        """Send `tracks`, stamped with the moment of sending; a subscriber whose queue is full misses them."""
        stamped = replace(tracks, published_unix_ns=self._unix_clock())
        self._bound.socket.send(wire.encode(stamped), zmq.NOBLOCK)

    def beat(self, heartbeat: wire.Heartbeat) -> None:
        """Send `heartbeat`, stamped with the moment of sending."""
        stamped = replace(heartbeat, published_unix_ns=self._unix_clock())
        self._bound.socket.send(wire.encode_heartbeat(stamped), zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket; messages still queued get a fifth of a second to leave. May be called twice."""
        self._bound.close(_LINGER_MS)
