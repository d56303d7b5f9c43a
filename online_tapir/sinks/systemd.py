"""Reports readiness and watchdog keep-alives to the service manager that started the run, if it asked for them.

sd_notify(3) is one datagram to the socket in NOTIFY_SOCKET. Only the frame loop sends it: a run that hangs sends
nothing, so the service manager restarts it.
"""

import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Self

from online_tapir.live.sink import Sink
from online_tapir.records import Frame, Tracks
from online_tapir.wire.messages import Heartbeat

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream

EVERY_NS = 1_000_000_000


class Watchdog(Sink):
    """A sink that tells systemd, at most once a second, that frames come, or why none do.

    `address` is that of a datagram socket; `@` marks an abstract one. A manager that does not listen is not an error.
    """

    def __init__(self, address: str, *, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._monotonic_ns = monotonic_ns
        self._told_ns: int | None = None  # when it was last told what comes
        self._lived_ns = 0  # when it was last told that the run goes on
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    @classmethod
    def asked_for(cls, environ: Mapping[str, str]) -> Self | None:
        """A watchdog for the manager that `environ` names; None if it names none."""
        address = environ.get("NOTIFY_SOCKET", "")
        return cls(address) if address.startswith(("/", "@")) else None

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        self._tell(lambda: f"{int(tracks.visible.sum())} of {len(tracks.ids)} points visible on frame {frame.id}")

    def beat(self, heartbeat: Heartbeat) -> None:
        self._tell(lambda: f"{heartbeat.state}; the last frame was {heartbeat.frame_id}")

    def serve(self, stream: "Stream") -> None:
        """Between frames and heartbeats, which may be far apart: the run goes on."""
        now_ns = self._monotonic_ns()
        if self._told_ns is not None and now_ns - max(self._told_ns, self._lived_ns) >= EVERY_NS:
            self._lived_ns = now_ns
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Reports that the run is ending. May be called twice."""
        if self._socket.fileno() >= 0:
            self._send("STOPPING=1")
            self._socket.close()

    def _tell(self, status: Callable[[], str]) -> None:
        now_ns = self._monotonic_ns()
        if self._told_ns is None or now_ns - self._told_ns >= EVERY_NS:
            ready = "READY=1\n" if self._told_ns is None else ""
            self._told_ns = now_ns
            self._send(f"{ready}WATCHDOG=1\nSTATUS={status()}")

    def _send(self, text: str) -> None:
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError:  # the manager is busy or gone: the next datagram may get through
            return
