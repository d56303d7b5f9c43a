"""The other end of the stream: tracks as another program receives them. Needs pyzmq, msgpack and numpy, no more."""

from pathlib import Path
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar, cast, overload

import zmq

from online_tapir.errors import ConfigError
from online_tapir.records import Tracks
from online_tapir.wire import messages as wire
from online_tapir.wire import security
from online_tapir.wire.messages import Heartbeat

Message = TypeVar("Message", bound=Tracks | Heartbeat)

_OPTIONS = {
    zmq.MAXMSGSIZE: wire.MAX_MESSAGE_BYTES,
    zmq.HEARTBEAT_IVL: 5_000,  # or a host that went without a word would be waited for, for ever
}


@overload
def subscribe(
    address: str,
    camera: str | None = ...,
    *,
    newest: bool = ...,
    timeout_ms: int | None = ...,
    heartbeats: Literal[False] = ...,
    keys: Path | str | None = ...,
) -> "Subscription[Tracks]": ...
@overload
def subscribe(
    address: str,
    camera: str | None = ...,
    *,
    newest: bool = ...,
    timeout_ms: int | None = ...,
    heartbeats: Literal[True],
    keys: Path | str | None = ...,
) -> "Subscription[Tracks | Heartbeat]": ...
def subscribe(
    address: str,
    camera: str | None = None,
    *,
    newest: bool = False,
    timeout_ms: int | None = None,
    heartbeats: bool = False,
    keys: Path | str | None = None,
) -> "Subscription[Tracks] | Subscription[Tracks | Heartbeat]":
    """Tracks published at `address`, one `Tracks` a frame, in the order of publication.

        for tracks in subscribe("tcp://127.0.0.1:5555"):
            print(tracks.ids, tracks.xy)                      # int32 [N], float32 [N, 2] image pixels

    `camera` keeps one camera's messages only. `newest` keeps only the newest message while the loop is busy, of all
    cameras together when none is named. A publisher that is not there (yet) is waited for; `timeout_ms` bounds each
    wait. With `heartbeats` the publisher's signs of life come as well, about one `Heartbeat` a second while the source
    gives no frame: it says why, and a time-out then means that the publisher itself is gone. `keys` is the folder of
    keys that a publisher may ask for (see `security`). Raises `ConfigError` for an address or keys that are none.
    """
    return Subscription(address, camera, newest=newest, timeout_ms=timeout_ms, heartbeats=heartbeats, keys=keys)


class Subscription(Generic[Message]):
    """An iterator of `Tracks`, and of `Heartbeat`s where they are wanted, that owns its sockets.

    They are closed by `close`, by `with`, by Ctrl-C and when nobody holds it. Iteration raises `TimeoutError` when
    `timeout_ms` passes without a message, and may then go on, and `WireError` for a message that is not ours.
    """

    def __init__(
        self,
        address: str,
        camera: str | None,
        *,
        newest: bool,
        timeout_ms: int | None,
        heartbeats: bool,
        keys: Path | str | None,
    ) -> None:
        kinds = (wire.TOPIC, wire.HEARTBEAT_TOPIC) if heartbeats else (wire.TOPIC,)
        filters = [kind if camera is None else wire.topic(camera, kind) for kind in kinds]
        self.address = address
        self.timeout_ms = timeout_ms
        self._context = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        try:
            for (
                filter_
            ) in filters:  # a socket each: CONFLATE keeps one message of a socket, and a heartbeat is no track
                self._sockets.append(self._context.socket(zmq.SUB))
                self._connect(self._sockets[-1], filter_, newest, keys)
        except ConfigError:
            self.close()
            raise
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"cannot subscribe to {address!r}: {error}; write tcp://HOST:PORT or ipc://PATH"
            ) from error

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        if self._context.closed:
            raise StopIteration
        try:
            ready, _, _ = zmq.select(self._sockets, [], [], None if self.timeout_ms is None else self.timeout_ms / 1000)
            if not ready:
                raise TimeoutError(f"nothing from {self.address} in {self.timeout_ms} ms; is it publishing?")
            message = ready[0].recv()
        except KeyboardInterrupt:
            self.close()
            raise
        decode = wire.decode if ready[0] is self._sockets[0] else wire.decode_heartbeat
        return cast(Message, decode(message))

    def close(self) -> None:
        """Close the sockets; iteration ends. May be called twice."""
        for socket in self._sockets:  # by name: in a garbage cycle the context no longer knows its sockets, and waits
            socket.close(linger=0)
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_sockets"):  # not when the camera's name was refused
            self.close()

    def _connect(self, socket: zmq.Socket[bytes], filter_: bytes, newest: bool, keys: Path | str | None) -> None:
        security.authenticate(socket, keys)
        options = {**_OPTIONS, zmq.CONFLATE: int(newest), zmq.IPV6: int("[" in self.address)}
        for option, value in options.items():
            socket.setsockopt(option, value)
        socket.setsockopt(zmq.SUBSCRIBE, filter_)
        socket.connect(self.address)
