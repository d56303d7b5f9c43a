"""Serves the page of a run from a thread of its own: a sink that leaves frames and carries out what viewers ask."""

import asyncio
import socket
import threading
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from online_tapir.control.desk import Desk
from online_tapir.drawing.look import DEFAULT_COLOR, ColorMode
from online_tapir.errors import ConfigError, PublishError
from online_tapir.live.roster import Roster
from online_tapir.live.sink import Sink
from online_tapir.records import Frame, Tracks
from online_tapir.web.app import Site, make_app
from online_tapir.web.bridge import Bridge
from online_tapir.web.guard import Guard, Tokens
from online_tapir.web.messages import MAX_MESSAGE_BYTES
from online_tapir.wire.messages import Heartbeat
from online_tapir.wire.security import is_local

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080
PORTS_TRIED = 10  # from the default on, where no port was asked for
MOST_CONNECTIONS = 256
SILENT_SECONDS = 10.0  # then a connection that has asked nothing is closed
CLOSE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class WebAddress:
    """Where the page is served; without a `port` the first free one from 8080 on."""

    host: str = DEFAULT_HOST
    port: int | None = None

    @classmethod
    def parse(cls, text: str | None) -> "WebAddress":
        """PORT or HOST:PORT. Raises ConfigError."""
        if text is None:
            return cls()
        host, _, port = text.rpartition(":")
        if not (port.isascii() and port.isdecimal() and int(port) < 65_536):
            raise ConfigError(f"--web-address {text!r} is not a port; write 8080, or HOST:8080")
        return cls(host.strip("[]") or DEFAULT_HOST, int(port))


class WebPage(Sink):
    """A sink that serves the page at `url`; `links` are what to open, one to control and one to watch.

    Other machines need a token, which is in the links, unless `insecure`. With `certificate` and `key` (PEM files) it
    is served over TLS. Raises ConfigError for a bad certificate, PublishError if the address cannot be bound.
    """

    def __init__(
        self,
        address: WebAddress = WebAddress(),
        *,
        color: ColorMode = DEFAULT_COLOR,
        roster: Roster | None = None,
        insecure: bool = False,
        view_only: bool = False,
        certificate: Path | None = None,
        key: Path | None = None,
        rerun: str | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        if (certificate is None) != (key is None):
            raise ConfigError("TLS needs both --web-cert and --web-key")
        self._socket = _bound(address)
        port = self._socket.getsockname()[1]
        local = is_local(f"tcp://{address.host}:{port}")
        tokens = None if local or insecure else Tokens.new()
        tls = certificate is not None
        self._guard = Guard(port, names=[address.host], tokens=tokens, tls=tls, view_only=view_only)
        self._bridge = Bridge(Desk(roster, anyone=insecure), color)
        site = Site(self._guard, self._bridge, report, rerun)
        config = uvicorn.Config(
            make_app(site),
            http=BoundedProtocol,
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # JPEGs do not get smaller
            log_config=None,
            lifespan="off",
            server_header=False,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            timeout_graceful_shutdown=1,
        )
        try:
            config.load()
        except (OSError, ValueError) as error:
            self._socket.close()
            raise ConfigError(f"--web-cert {certificate} and --web-key {key} cannot be used: {error}") from error
        self._server = uvicorn.Server(config)
        scheme = "https" if certificate is not None else "http"
        self.url = f"{scheme}://{_reachable(address.host)}:{port}/"
        self.links = _links(self.url, tokens, view_only)
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()
        self._started.wait(CLOSE_SECONDS)

    @property
    def shows_inspection(self) -> bool:
        return self._bridge.viewers > 0

    @property
    def viewers(self) -> int:
        """How many pages are open."""
        return self._bridge.viewers

    def begin(self, stream: "Stream") -> None:
        self._bridge.begin(stream)

    def end(self, stream: "Stream") -> None:
        self._bridge.end(stream)

    def serve(self, stream: "Stream") -> None:
        """Carries out what viewers have asked since the last call."""
        self._bridge.serve(stream)

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        """Leaves the frame for the viewers; never waits."""
        self._bridge.publish(frame, tracks)

    def beat(self, heartbeat: Heartbeat) -> None:
        self._bridge.beat(heartbeat)

    def close(self) -> None:
        """Closes every page and stops serving. May be called twice."""
        self._server.should_exit = True
        self._thread.join(CLOSE_SECONDS)
        self._socket.close()

    def _run(self) -> None:
        async def serving() -> None:
            self._bridge.start(asyncio.get_running_loop())
            self._started.set()
            await self._server.serve(sockets=[self._socket])

        with suppress(SystemExit):
            asyncio.run(serving())


class BoundedProtocol(H11Protocol):
    """HTTP that closes connections beyond a number, and those that ask nothing: files are few in a process."""

    def connection_made(self, transport: Any) -> None:
        if len(self.connections) >= MOST_CONNECTIONS:
            self.transport = transport
            transport.abort()
            return
        super().connection_made(transport)
        self._asked = False
        self.loop.call_later(SILENT_SECONDS, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self.connections:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._asked = self._asked or self.scope is not None

    def _close_if_silent(self) -> None:
        if not self._asked and not self.transport.is_closing():
            self.transport.abort()


def open_browser(link: str, environment: Mapping[str, str], platform: str) -> bool:
    """Opens the page in the user's browser if there is one on a screen here; whether it did."""
    remote = "SSH_CONNECTION" in environment or "SSH_TTY" in environment
    screen = platform in ("darwin", "win32") or environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    if remote or not screen:
        return False
    try:
        return webbrowser.open(link)
    except webbrowser.Error:
        return False


def _bound(address: WebAddress) -> socket.socket:
    """A socket that listens there."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    ports = [address.port] if address.port is not None else [*range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED), 0]
    failure: OSError | None = None
    for port in ports:
        try:
            return socket.create_server((address.host, port), family=family, backlog=64)
        except OSError as error:
            failure = error
    raise PublishError(
        f"cannot serve the page on port {ports[0]} of {address.host}: {getattr(failure, 'strerror', None) or failure}; "
        f"stop the program that uses it, or choose another (for example --web-address 8090)"
    )


def _reachable(host: str) -> str:
    """The host to write into a link: for an address that means all of the machine's, its name."""
    if host in ("0.0.0.0", "::", "*"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _links(url: str, tokens: Tokens | None, view_only: bool) -> dict[str, str]:
    if tokens is None:
        return {"watch" if view_only else "control": url}
    control = {} if view_only else {"control": f"{url}?token={tokens.control}"}
    return {**control, "watch": f"{url}?token={tokens.watch}"}
