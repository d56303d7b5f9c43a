"""The control socket: answers requests between two frames, on the tracking thread, and never blocks.

However many requests come, a frame is delayed by a few milliseconds at most: the number of requests and the time per
frame are limited, and so is the rate of each connection, beyond which requests are refused. Message size is limited.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import zmq

from online_tapir.control import protocol
from online_tapir.control.commands import obey
from online_tapir.control.protocol import ControlError
from online_tapir.errors import ConfigError
from online_tapir.live.sink import Sink
from online_tapir.wire.security import THIS_MACHINE, Access, BindError, BoundSocket

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream

REQUESTS_A_FRAME = 16
NS_A_FRAME = 5_000_000  # after that, the remaining requests wait for the next frame
REQUESTS_A_SECOND, BURST = 100.0, 200.0  # per connection
COST = {"snapshot": 20.0, "save": 20.0, "list": 5.0}  # in requests; others cost 1
ANY_CAMERA = {"cameras", "stop"}  # these are of the run, not of a camera
REPEATABLE = {"cameras", "list", "status", "snapshot"}  # these change nothing, so a repeated request runs again
_REMEMBERED = 256  # replies, and connections
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
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._budgets = Budgets(monotonic_ns)
        self._streams: dict[str, Stream] = {}  # by camera
        self._answers: OrderedDict[bytes, bytes] = OrderedDict()  # by the digest of their request
        try:
            self._bound = BoundSocket(zmq.ROUTER, address, access, _OPTIONS)
        except BindError as error:
            raise ConfigError(
                f"cannot be controlled at {address}: {error} (for example --control tcp://127.0.0.1:5558, or off)"
            ) from error
        self.address = self._bound.address

    def begin(self, stream: "Stream") -> None:
        """Takes requests for this camera, too."""
        self._streams[stream.name] = stream

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
            self._budgets.spend(sender, COST.get(str(body.get("command")), 1.0))
            request = protocol.read_request(body)
            digest = hashlib.sha256(packed).digest()
            if digest in self._answers:
                return self._answers[digest]
            asked = self._asked_for(request, stream)
            result = {"cameras": sorted(self._streams)} if request.command == "cameras" else obey(asked, request)
            reply = protocol.encode_result(id, result)
            if request.controller and request.command not in REPEATABLE:
                _remember(self._answers, digest, reply)
            return reply
        except ControlError as error:
            return protocol.encode_error(id, error)

    def _asked_for(self, request: protocol.Request, served: "Stream") -> "Stream":
        """The stream of the camera that a request names; the served one where there is no other. ControlError."""
        if request.camera in ("", served.name) and (len(self._streams) < 2 or request.command in ANY_CAMERA):
            return served
        found = self._streams.get(request.camera)
        if found is None:
            there = ", ".join(sorted(self._streams) or [served.name])
            told = f"no camera is called {request.camera[:40]!r}" if request.camera else "the run has several cameras"
            raise ControlError("which_camera", f"{told}; name one of {there}")
        return found

    def close(self) -> None:
        """Close the socket; queued replies get 0.2 s to leave. May be called twice."""
        self._bound.close(_LINGER_MS)


class Budgets:
    """Rate limits: how many requests each sender has left (a token bucket each, refilled up to BURST)."""

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._monotonic_ns = monotonic_ns
        self._left: OrderedDict[bytes, tuple[float, int]] = OrderedDict()  # by sender: requests, and when counted

    def spend(self, sender: bytes, cost: float) -> None:
        """Charges `cost` to the sender. Raises ControlError rate_limited if it has less left."""
        now_ns = self._monotonic_ns()
        left, counted_ns = self._left.get(sender, (BURST, now_ns))
        left = min(left + (now_ns - counted_ns) / 1e9 * REQUESTS_A_SECOND, BURST)
        _remember(self._left, sender, (left - cost if left >= cost else left, now_ns))
        if left < cost:
            raise ControlError("rate_limited", f"{REQUESTS_A_SECOND:g} requests a second are answered; wait a little")


def _remember(known: OrderedDict[bytes, Any], key: bytes, value: Any) -> None:
    """Adds an entry, and drops the oldest of too many."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
