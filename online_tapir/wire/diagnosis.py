"""Finds out why nothing arrives from a publisher, over a separate, short connection."""

import time
from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from online_tapir.errors import WireError
from online_tapir.wire import messages as wire
from online_tapir.wire import security
from online_tapir.wire.envelope import MAX_MESSAGE_BYTES
from online_tapir.wire.fleet import DirectoryReader
from online_tapir.wire.messages import Heartbeat

WAIT_MS = 1500  # more than a publisher's default pause between heartbeats


def why_silent(address: str, camera: str | None, keys: Path | str | None, wait_ms: int = WAIT_MS) -> str:
    """Why no tracks of `camera` (None: of any) arrive, and what to do; listens for at most `wait_ms`.

    Raises ConfigError for invalid keys.
    """
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    monitor = socket.get_monitor_socket()
    answered, greeted, states = False, False, dict[str, str]()  # by camera; "" while its tracks come
    try:
        security.authenticate(socket, keys)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.IPV6, int("[" in address))
        for kind in (wire.TOPIC, wire.HEARTBEAT_TOPIC):
            socket.setsockopt(zmq.SUBSCRIBE, kind)
        socket.connect(address)
        deadline = time.monotonic() + wait_ms / 1000
        while (left_s := deadline - time.monotonic()) > 0:
            ready, _, _ = zmq.select([monitor, socket], [], [], left_s)
            if monitor in ready:
                event = recv_monitor_message(monitor)["event"]
                answered |= event == zmq.EVENT_CONNECTED
                greeted |= event == zmq.EVENT_HANDSHAKE_SUCCEEDED
                if event == zmq.EVENT_CONNECT_RETRIED and not answered:
                    break  # refused; but a peer that hung up because of the keys says so at the next attempt
                if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                    return f"{address} does not trust this key; there, `online-tapir keys trust` admits it"
                if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and keys is None:
                    return f"{address} admits only trusted keys; add --keys FOLDER"
                if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                    return f"{address} uses no keys; leave out --keys"
            if socket in ready:
                message = socket.recv()
                name = message.partition(b"\0")[0].partition(b"/")[2].decode(errors="replace")
                state = _state(message)
                states[name] = state if state is not None and states.get(name, state) else ""
    finally:
        socket.disable_monitor()
        monitor.close(linger=0)
        socket.close(linger=0)
        context.term()
    if answered and not greeted:
        return f"{address} answers, but not as a publisher of tracks; check the address, see `online-tapir --publish`"
    if not greeted:
        return f"nobody listens at {address}; check that online-tapir runs there and publishes at that address"
    if not states:
        return f"connected to {address}, where nothing has been published for {wait_ms / 1000:g} s"
    if camera is not None and camera not in states:
        return f"{address} publishes {', '.join(sorted(states))}; name one of these with --camera"
    known = {name: state for name, state in states.items() if camera in (None, name)}
    if all(known.values()):
        return f"{address} sends no frames: " + ", ".join(f"{name} is {state}" for name, state in sorted(known.items()))
    return f"{address} has begun to publish"


def _state(message: bytes) -> str | None:
    """What a heartbeat says of its camera; None for tracks, and for what cannot be read."""
    try:
        found = wire.decode_any(message)
    except WireError:
        return None
    return found.state if isinstance(found, Heartbeat) else None


def why_fleet_silent(fleet: str, camera: str | None, keys: Path | str | None, wait_ms: int = WAIT_MS) -> str:
    """Why no tracks of a fleet's `camera` (None: of any) arrive, by its directory; waits at most `wait_ms` for it."""
    with DirectoryReader(fleet, timeout_ms=wait_ms, keys=keys) as reader:
        try:
            directory = next(reader)
        except TimeoutError as error:
            return str(error)
    known = [one for one in directory.cameras if camera in (None, one.name)]
    if not known:
        there = ", ".join(one.name for one in directory.cameras) or "none"
        return (
            f"the fleet {directory.fleet!r} has no camera {camera!r}; there are {there}"
            if camera
            else (f"the fleet {directory.fleet!r} has no cameras; `online-tapir fleet add` adds one")
        )
    return ", ".join(f"{one.name} is {one.state}" + (f" ({one.reason})" if one.reason else "") for one in known)
