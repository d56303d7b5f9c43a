"""Serves a registry of Prometheus metrics over HTTP, from a thread of its own.

HTTP here has no authentication, so it binds to this machine alone unless anyone may read.
"""

from socket import AF_INET6
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from online_tapir.errors import ConfigError, PublishError
from online_tapir.wire.security import Access, is_local

CLOSE_S = 5.0  # then a client that is still being answered is left to itself
SILENT_S = 2.0  # then a client that connects but requests nothing is dropped, as it blocks the others


class MetricsServer:
    """Serves `registry` at `url`; `address` is PORT (on loopback) or HOST:PORT, port 0 picks a free one.

    Raises ConfigError for an invalid address, PublishError when it cannot be bound, or when other machines can reach it
    and `access` is not insecure.
    """

    def __init__(self, address: str, registry: CollectorRegistry, access: Access) -> None:
        host, port = _host_and_port(address)
        if not (access.insecure or is_local(f"tcp://{host}:{port}")):
            raise PublishError(
                f"cannot serve metrics on {address}: other machines could read them, and HTTP has no keys; give the "
                f"port alone and put a proxy in front of it, or say --insecure to let anyone read"
            )
        self._server = _listen(host, port, registry)
        self.url = f"http://{_bracketed(host)}:{self._server.server_port}/metrics"
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops serving, within a fraction of a second unless a slow client is connected. May be called twice."""
        if self._thread.is_alive():
            ending = Thread(target=self._server.shutdown, name="metrics end", daemon=True)
            ending.start()
            ending.join(CLOSE_S)
            self._thread.join(CLOSE_S)
        self._server.server_close()


class _Handler(WSGIRequestHandler):
    timeout = SILENT_S

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


class _Server(WSGIServer):
    """Answers one request at a time, in one thread for any number of connections."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores clients that disconnect halfway."""


class _Server6(_Server):
    address_family = AF_INET6


def _listen(host: str, port: int, registry: CollectorRegistry) -> WSGIServer:
    try:
        server = (_Server6 if ":" in host else _Server)((host, port), _Handler)
    except (OSError, OverflowError) as error:
        raise PublishError(
            f"cannot serve metrics on port {port} of {host}: {getattr(error, 'strerror', None) or error}; stop "
            f"the program that uses it, or choose another (for example --metrics 9465)"
        ) from error
    server.set_app(make_wsgi_app(registry))
    return server


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 65_536):
        raise ConfigError(f"--metrics {address!r} is not a port; write 9464, or HOST:9464")
    return host.strip("[]") or "127.0.0.1", int(port)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
