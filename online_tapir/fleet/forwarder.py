"""One address for a whole fleet: passes on what its rigs publish, for clients in other languages.

A client subscribes here as to a single tracker: same topics, same messages. What a rig publishes that has lost a camera
is left out, as `subscribe(fleet=...)` leaves it out.
"""

import threading
from pathlib import Path

import zmq

from online_tapir.errors import PublishError, WireError
from online_tapir.wire import messages as wire
from online_tapir.wire.fleet import FleetRaw
from online_tapir.wire.security import Access, BindError, BoundSocket

LINGER_MS = 200
POLL_MS = 100


class Forwarder:
    """Publishes at `address` what comes from the fleet at `fleet`, HOST:PORT. Raises PublishError."""

    def __init__(
        self, fleet: str, address: str, *, access: Access, keys: Path | None = None, itself: bool = False
    ) -> None:
        """`keys` are a client's of the fleet, or with `itself` the fleet's own; those of `address` are in `access`."""
        try:
            self._bound = BoundSocket(zmq.PUB, address, access, {zmq.SNDHWM: 64, zmq.MAXMSGSIZE: 4096})
        except BindError as error:
            raise PublishError(f"cannot publish on {address}: {error}") from error
        self.address = self._bound.address
        self.forwarded = 0
        self._raw = FleetRaw(fleet, (wire.TOPIC, wire.HEARTBEAT_TOPIC), keys=keys, itself=itself)

    def go(self, stop: threading.Event) -> None:
        """Passes on messages until `stop` is set."""
        while not stop.is_set():
            try:
                message = self._raw.receive(POLL_MS)
            except (TimeoutError, WireError):
                continue
            self._bound.socket.send(message, zmq.NOBLOCK)
            self.forwarded += 1

    def close(self) -> None:
        self._raw.close()
        self._bound.close(LINGER_MS)
