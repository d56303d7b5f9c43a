"""The socket lifecycle that all clients of a run share: each has its own context, and always closes its sockets."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq

from online_tapir.errors import ConfigError
from online_tapir.wire import security


class ClientSockets:
    """Sockets connected to one address. `close`, `with` and garbage collection close them."""

    def __init__(self, address: str, purpose: str) -> None:
        """`purpose` completes "cannot ... ADDRESS" in the error for an invalid address."""
        self.address = address
        self._purpose = purpose
        self._sockets: list[zmq.Socket[bytes]] = []
        self._context = zmq.Context()

    def _connect(
        self,
        kind: int,
        keys: Path | str | None,
        options: Mapping[Any, Any],
        topic: bytes | None = None,
        itself: bool = False,
    ) -> zmq.Socket[bytes]:
        """Connects another socket; closes all if that fails. Raises ConfigError for an invalid address or keys.

        With `itself` the keys are those of who listens there.
        """
        socket = self._open(kind, keys, options, () if topic is None else (topic,), itself)
        try:
            socket.connect(self.address)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"cannot {self._purpose} {self.address!r}: {error}; write tcp://HOST:PORT or ipc://PATH"
            ) from error
        return socket

    def _open(
        self,
        kind: int,
        keys: Path | str | None,
        options: Mapping[Any, Any],
        topics: Iterable[bytes] = (),
        itself: bool = False,
    ) -> zmq.Socket[bytes]:
        """Another socket, not connected yet; closes all if that fails. Raises ConfigError for invalid keys."""
        socket = self._context.socket(kind)
        self._sockets.append(socket)
        try:
            security.authenticate(socket, keys, itself=itself)
        except ConfigError:
            self.close()
            raise
        for option, value in {**options, zmq.IPV6: int("[" in self.address)}.items():
            socket.setsockopt(option, value)
        for topic in topics:
            socket.setsockopt(zmq.SUBSCRIBE, topic)
        return socket

    def close(self) -> None:
        """Closes the sockets. May be called twice."""
        for socket in self._sockets:  # one by one: in a garbage cycle the context no longer knows them, and term waits
            socket.close(linger=0)
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_context"):  # missing if the arguments were refused
            self.close()
