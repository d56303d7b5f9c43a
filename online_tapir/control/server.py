"""The control socket: answers requests between two frames, on the tracking thread, and never blocks.

However many requests come, a frame is delayed by a few milliseconds at most: the number of requests and the time per
frame are limited, and so are the rate of each connection and the size of a message.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import zmq

from online_tapir.control import protocol
from online_tapir.control.desk import Desk
from online_tapir.control.protocol import ControlError
from online_tapir.errors import ConfigError
from online_tapir.live.roster import Roster
from online_tapir.live.sink import Sink
from online_tapir.wire.security import THIS_MACHINE, Access, BindError, BoundSocket

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream

REQUESTS_A_FRAME = 16
NS_A_FRAME = 5_000_000  # after that, the remaining requests wait for the next frame
_LINGER_MS = 200  # on close, to send the last replies
_OPTIONS = {
    zmq.RCVHWM: 64,  # a flood queues at its sender
    zmq.SNDHWM: 8 * REQUESTS_A_FRAME,  # replies queued for a controller that does not read; more are dropped
    zmq.MAXMSGSIZE: 4 * protocol.MAX_REQUEST_BYTES,  # a larger message closes the connection, unread
}


class ControlServer(Sink):
    """Answers requests (see `protocol`) at `address`; `access` says whose, by default this machine's alone.

    Use from one thread. Raises ConfigError when the address cannot be bound.
    """

    def __init__(
        self,
        address: str = protocol.DEFAULT_ADDRESS,
        *,
        access: Access = THIS_MACHINE,
        roster: Roster | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._desk = Desk(roster, anyone=access.insecure, monotonic_ns=monotonic_ns)
        try:
            self._bound = BoundSocket(zmq.ROUTER, address, access, _OPTIONS)
        except BindError as error:
            raise ConfigError(
                f"cannot be controlled at {address}: {error} (for example --control tcp://127.0.0.1:5558, or off)"
            ) from error
        self.address = self._bound.address

    def begin(self, stream: "Stream") -> None:
        """Takes requests for this camera, too."""
        self._desk.streams[stream.name] = stream

    def end(self, stream: "Stream") -> None:
        """Takes requests for this camera no longer."""
        del self._desk.streams[stream.name]

    def serve(self, stream: "Stream") -> int:
        """Answers the waiting requests, up to the limits of a frame; returns how many."""
        begun_ns = self._monotonic_ns()
        for served in range(REQUESTS_A_FRAME):
            if self._monotonic_ns() - begun_ns > NS_A_FRAME:
                return served
            try:
                sender, *delimiter, packed = self._bound.socket.recv_multipart(zmq.NOBLOCK)
                envelope = [sender, b""] if delimiter[:1] == [b""] else [sender]  # a REQ socket's, a DEALER's
                reply = self.answer(sender, packed if len(delimiter) < len(envelope) else b"", stream)
                stream.requests += 1
                self._bound.socket.send_multipart([*envelope, reply], zmq.NOBLOCK)
            except zmq.Again:
                return served
        return REQUESTS_A_FRAME

    def answer(self, sender: bytes, packed: bytes, stream: "Stream") -> bytes:
        """The reply to one message; any bytes get one."""
        id = 0
        try:
            body = protocol.unpack(packed)
            id = protocol.request_id(body)
            return protocol.encode_result(id, self._desk.answer(sender, body, stream))
        except ControlError as error:
            return protocol.encode_error(id, error)

    def close(self) -> None:
        """Close the socket; queued replies get 0.2 s to leave. May be called twice."""
        self._bound.close(_LINGER_MS)
