"""The client of a fleet: receives tracks wherever the cameras are. Needs only pyzmq, msgpack and numpy."""

import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, Self, TypeVar, cast

import zmq

from online_tapir.records import Tracks
from online_tapir.wire import directory as wire_directory
from online_tapir.wire import messages as wire
from online_tapir.wire.directory import Directory
from online_tapir.wire.envelope import MAX_MESSAGE_BYTES, topic
from online_tapir.wire.messages import Heartbeat
from online_tapir.wire.sockets import ClientSockets

Message = TypeVar("Message", bound=Tracks | Heartbeat)

OPTIONS = {
    zmq.MAXMSGSIZE: MAX_MESSAGE_BYTES,
    zmq.HEARTBEAT_IVL: 5_000,  # otherwise a host that vanished would go unnoticed
}


def directory_address(fleet: str) -> str:
    """The ZeroMQ address of a directory that was named as HOST:PORT or in full."""
    return fleet if "://" in fleet else f"tcp://{fleet}"


def _no_directory(address: str, timeout_ms: int | None) -> str:
    return f"no directory from {address} in {timeout_ms} ms; is a fleet up there?"


class Fence:
    """Lets the messages of a camera's newest placement pass, and none of an older one.

    A rig that was cut off may go on publishing a camera that another has by now: its messages have a lower epoch.
    """

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}

    def passes(self, camera: str, epoch: int) -> bool:
        """Whether this is of the newest placement that has been heard of."""
        if epoch < self._newest.get(camera, 0):
            return False
        self._newest[camera] = epoch
        return True

    def follow(self, directory: Directory) -> None:
        """Takes the directory's word for the placements."""
        for camera in directory.cameras:
            self.passes(camera.name, camera.epoch)


class DirectoryReader(ClientSockets):
    """An iterator of directories, each as it is published at `fleet`, HOST:PORT.

    Iteration raises `TimeoutError` when `timeout_ms` passes without one, and `WireError` for another kind of message.
    With `itself` the keys are the fleet's own.
    """

    def __init__(
        self, fleet: str, *, timeout_ms: int | None = None, keys: Path | str | None = None, itself: bool = False
    ) -> None:
        super().__init__(directory_address(fleet), "read the directory of a fleet at")
        self.timeout_ms = timeout_ms
        options = {**OPTIONS, zmq.CONFLATE: 1}  # before the connection: only the newest counts
        self._socket = self._connect(zmq.SUB, keys, options, wire_directory.TOPIC, itself)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Directory:
        if not self._socket.poll(self.timeout_ms):
            raise TimeoutError(_no_directory(self.address, self.timeout_ms))
        return wire_directory.decode(self._socket.recv())


class FleetRaw(ClientSockets):
    """The messages of a fleet's cameras as they were sent, from wherever the cameras are; `topics` says which.

    Messages of an earlier placement are left out (`Fence`). With `itself` the keys are the fleet's own. Raises
    ConfigError for an invalid address or invalid keys.
    """

    def __init__(
        self, fleet: str, topics: Iterable[bytes], *, keys: Path | str | None = None, itself: bool = False
    ) -> None:
        super().__init__(directory_address(fleet), "read the directory of a fleet at")
        self.directory: Directory | None = None  # the newest
        self._fence = Fence()
        self._reached: set[str] = set()
        self._where = self._connect(zmq.SUB, keys, {**OPTIONS, zmq.CONFLATE: 1}, wire_directory.TOPIC, itself)
        self._rigs = self._open(zmq.SUB, keys, OPTIONS, topics, itself)

    def receive(self, timeout_ms: int | None) -> bytes:
        """The next message. Raises TimeoutError when none comes in time, WireError for one of another format."""
        deadline = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        while True:
            left_s = None if deadline is None else max(deadline - time.monotonic(), 0)
            ready, _, _ = zmq.select([self._where, self._rigs], [], [], left_s)
            if not ready:
                raise TimeoutError(self._silence(timeout_ms))
            if self._where in ready:
                self._follow(wire_directory.decode(self._where.recv()))
            if self._rigs in ready:
                message = self._rigs.recv()
                if self._fence.passes(*wire.placement(message)):
                    return message

    @property
    def waits(self) -> bool:
        """Whether another message has come already."""
        return bool(self._rigs.poll(0))

    def _follow(self, directory: Directory) -> None:
        """Reaches the rigs that the directory names, and leaves the others."""
        named = {camera.address for camera in directory.cameras if camera.address}
        for address in named - self._reached:
            self._rigs.connect(address)
        for address in self._reached - named:
            self._rigs.disconnect(address)
        self._reached = named
        self._fence.follow(directory)
        self.directory = directory

    def _silence(self, timeout_ms: int | None) -> str:
        if self.directory is None:
            return _no_directory(self.address, timeout_ms)
        states = ", ".join(f"{one.name} is {one.state}" for one in self.directory.cameras[:8]) or "it has no cameras"
        return f"nothing from the fleet {self.directory.fleet!r} in {timeout_ms} ms: {states}"


class FleetSubscription(FleetRaw, Generic[Message]):
    """An iterator of the `Tracks` of a fleet's cameras, and of `Heartbeat`s if requested; see `subscribe`.

    It follows the directory: when a camera is moved or its rig restarted, the stream goes on. Within a camera's epoch,
    frame numbers ascend. Iteration raises `TimeoutError` when `timeout_ms` passes without a message, and may then
    continue, and `WireError` for a message of another format.
    """

    def __init__(
        self,
        fleet: str,
        cameras: Iterable[str] | None,
        *,
        newest: bool,
        timeout_ms: int | None,
        heartbeats: bool,
        keys: Path | str | None,
    ) -> None:
        kinds = (wire.TOPIC, wire.HEARTBEAT_TOPIC) if heartbeats else (wire.TOPIC,)
        topics = kinds if cameras is None else [topic(name, kind) for name in cameras for kind in kinds]
        super().__init__(fleet, topics, keys=keys)
        self.timeout_ms = timeout_ms
        self._newest = newest
        self._ready: deque[bytes] = deque()  # at most one of each camera and kind

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        if self._context.closed:
            raise StopIteration
        try:
            if not self._ready:
                self._ready.append(self.receive(self.timeout_ms))
            while self._newest and self.waits:
                self._replace(self.receive(0))
        except TimeoutError:
            if not self._ready:
                raise
        except KeyboardInterrupt:
            self.close()
            raise
        return cast(Message, wire.decode_any(self._ready.popleft()))

    def _replace(self, message: bytes) -> None:
        """Keeps this in place of an older message of the same topic."""
        head = message[: message.index(b"\0") + 1]
        self._ready = deque(one for one in self._ready if not one.startswith(head))
        self._ready.append(message)
