"""The client of the stream: receives tracks in another program. Needs only pyzmq, msgpack and numpy."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar, cast, overload

import zmq

from online_tapir.errors import ConfigError
from online_tapir.records import Tracks
from online_tapir.wire import messages as wire
from online_tapir.wire.envelope import topic
from online_tapir.wire.fleet import OPTIONS, FleetSubscription
from online_tapir.wire.messages import Heartbeat
from online_tapir.wire.sockets import ClientSockets

Message = TypeVar("Message", bound=Tracks | Heartbeat)


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
@overload
def subscribe(
    *,
    fleet: str,
    cameras: Iterable[str] | None = ...,
    newest: bool = ...,
    timeout_ms: int | None = ...,
    heartbeats: Literal[False] = ...,
    keys: Path | str | None = ...,
) -> FleetSubscription[Tracks]: ...
@overload
def subscribe(
    *,
    fleet: str,
    cameras: Iterable[str] | None = ...,
    newest: bool = ...,
    timeout_ms: int | None = ...,
    heartbeats: Literal[True],
    keys: Path | str | None = ...,
) -> FleetSubscription[Tracks | Heartbeat]: ...
def subscribe(
    address: str | None = None,
    camera: str | None = None,
    *,
    fleet: str | None = None,
    cameras: Iterable[str] | None = None,
    newest: bool = False,
    timeout_ms: int | None = None,
    heartbeats: bool = False,
    keys: Path | str | None = None,
) -> Any:
    """Tracks published at `address`, one `Tracks` a frame, in the order of publication.

        for tracks in subscribe("tcp://127.0.0.1:5555"):
            print(tracks.ids, tracks.xy)                      # int32 [N], float32 [N, 2] image pixels

    `camera` keeps one camera's messages only. `newest` keeps only the newest message while the loop is busy, across all
    cameras when none is named. Waits for a publisher that is not there (yet); `timeout_ms` limits each wait. With
    `heartbeats` it yields the publisher's heartbeats as well, about one `Heartbeat` a second while the source gives no
    frame: each says why, and a time-out then means that the publisher itself is gone. `keys` is a key folder, for a
    publisher that requires keys (see `security`).

    In place of an address, `fleet` is the HOST:PORT of a fleet's directory: tracks of its `cameras` (None: of all) come
    from wherever they are, through moves and restarts; `newest` then keeps the newest of each camera. Raises
    `ConfigError` for an invalid address or invalid keys.
    """
    how: dict[str, Any] = {"newest": newest, "timeout_ms": timeout_ms, "heartbeats": heartbeats, "keys": keys}
    if (address is None) == (fleet is None):
        raise ConfigError("subscribe to an address or to a fleet: give one of them")
    if fleet is None and cameras is not None:
        raise ConfigError("`cameras` are those of a fleet; at an address, name one `camera`, or none for all")
    if fleet is not None:
        if camera is not None:
            raise ConfigError(f"name the cameras of a fleet as cameras=[{camera!r}]")
        return FleetSubscription(fleet, cameras, **how)
    assert address is not None
    return Subscription(address, camera, **how)


class Subscription(ClientSockets, Generic[Message]):
    """An iterator of `Tracks`, and of `Heartbeat`s if requested, that owns its sockets.

    `close`, `with`, Ctrl-C and garbage collection close them. Iteration raises `TimeoutError` when `timeout_ms` passes
    without a message, and may then continue, and `WireError` for a message of another format.
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
        filters = [kind if camera is None else topic(camera, kind) for kind in kinds]
        super().__init__(address, "subscribe to")
        self.timeout_ms = timeout_ms
        options = {**OPTIONS, zmq.CONFLATE: int(newest)}
        for filter_ in filters:  # a socket each: CONFLATE keeps one message per socket, a heartbeat or tracks
            self._connect(zmq.SUB, keys, options, filter_)

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
        return cast(Message, wire.decode_any(message))
