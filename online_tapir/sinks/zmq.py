"""Publishes tracks on a ZeroMQ PUB socket: each message is sent or dropped, without waiting."""

import time
from collections.abc import Callable
from dataclasses import replace

import zmq

from online_tapir.errors import PublishError
from online_tapir.live.sink import Sink
from online_tapir.records import Frame, Tracks
from online_tapir.wire import messages as wire
from online_tapir.wire.messages import DEFAULT_ADDRESS
from online_tapir.wire.security import THIS_MACHINE, Access, BindError, BoundSocket

_LINGER_MS = 200  # on close, for the last messages to be sent
_OPTIONS = {
    zmq.SNDHWM: 64,  # queued per subscriber before dropping; with fewer, a burst of many cameras loses messages
    zmq.MAXMSGSIZE: 4096,  # subscribers only send topics
}


class ZmqPublisher(Sink):
    """A sink that publishes one message (see `wire`) for each frame, and a heartbeat on `beat`.

    `address` is tcp://HOST:PORT or ipc://PATH; port 0 or * picks a free one, which the attribute `address` shows.
    `access` says who may subscribe, by default only this machine. Use from one thread. Raises `PublishError` if the
    address cannot be bound or is open to more than `access` allows.
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
        """Sends `tracks`, stamped with the time of sending; a subscriber whose queue is full misses them."""
        stamped = replace(tracks, published_unix_ns=self._unix_clock())
        self._bound.socket.send(wire.encode(stamped), zmq.NOBLOCK)

    def beat(self, heartbeat: wire.Heartbeat) -> None:
        """Sends `heartbeat`, stamped with the time of sending."""
        stamped = replace(heartbeat, published_unix_ns=self._unix_clock())
        self._bound.socket.send(wire.encode_heartbeat(stamped), zmq.NOBLOCK)

    def close(self) -> None:
        """Closes the socket; queued messages get a fifth of a second to be sent. May be called twice."""
        self._bound.close(_LINGER_MS)
