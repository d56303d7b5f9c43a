"""The other end of the stream: tracks as another program receives them. Needs pyzmq, msgpack and numpy, no more."""

from types import TracebackType
from typing import Self

import zmq

from online_tapir.errors import ConfigError
from online_tapir.records import Tracks
from online_tapir.sinks import wire


def subscribe(
    address: str, camera: str | None = None, *, newest: bool = False, timeout_ms: int | None = None
) -> "Subscription":
    """Tracks published at `address`, one `Tracks` a frame, in the order of publication.

        for tracks in subscribe("tcp://127.0.0.1:5555"):
            print(tracks.ids, tracks.xy)                      # int32 [N], float32 [N, 2] image pixels

    `camera` keeps one camera's messages only. `newest` keeps only the newest message while the loop is busy, of all
    cameras together when none is named. A publisher that is not there (yet) is waited for; `timeout_ms` bounds each
    wait. Raises `ConfigError` for an address that is none.
    """
    return Subscription(address, camera, newest=newest, timeout_ms=timeout_ms)


class Subscription:
    """An iterator of `Tracks` that owns a socket: closed by `close`, by `with`, by Ctrl-C and when nobody holds it.

    Iteration raises `TimeoutError` when `timeout_ms` passes without a message, and may then go on, and `WireError` for
    a message that is not ours.
    """

    def __init__(self, address: str, camera: str | None, *, newest: bool, timeout_ms: int | None) -> None:
        filter_ = wire.TOPIC if camera is None else wire.topic(camera)
        self.address = address
        self.timeout_ms = timeout_ms
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.CONFLATE, int(newest))
        self._socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_MESSAGE_BYTES)
        self._socket.setsockopt(zmq.RCVTIMEO, -1 if timeout_ms is None else timeout_ms)
        self._socket.setsockopt(zmq.SUBSCRIBE, filter_)
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"cannot subscribe to {address!r}: {error}; write tcp://HOST:PORT or ipc://PATH"
            ) from error

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tracks:
        if self._socket.closed:
            raise StopIteration
        try:
            message = self._socket.recv()
        except zmq.Again:
            raise TimeoutError(f"nothing from {self.address} in {self.timeout_ms} ms; is it publishing?") from None
        except KeyboardInterrupt:
            self.close()
            raise
        return wire.decode(message)

    def close(self) -> None:
        """Close the socket; iteration ends. May be called twice."""
        self._socket.close(linger=0)  # by name: in a garbage cycle the context no longer knows its sockets, and waits
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_context"):  # not when the camera's name was refused
            self.close()
