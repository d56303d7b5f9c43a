"""Encodes and decodes the directory of a fleet: which camera is where. Needs msgpack alone.

It is published whole on every change and at least once a second, with the topic `fleet/<name of the fleet>`; a reader
that came late has it a moment later. The map of the message (see `envelope`):

    schema             str          "online-tapir/fleet"
    version            int          1; a reader refuses a higher version and ignores unknown keys
    fleet              str          the same as in the topic
    software           str          version of online-tapir that the fleet runs
    ray                str          address of its Ray cluster, HOST:PORT
    published_unix_ns  int          when the message was sent, wall clock
    moves              int >= 0     cameras that were moved since the fleet began
    notes              array        str, the newest last: what happened, in sentences
    cameras            array        a map for each camera, see `CameraEntry`
    rigs               array        a map for each rig, see `RigEntry`
"""

from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import msgpack  # type: ignore[import-untyped]

from online_tapir.errors import WireError
from online_tapir.wire.envelope import field, integer, natural, real, split, text, topic

SCHEMA = "online-tapir/fleet"
VERSION = 1
TOPIC = b"fleet/"
DEFAULT_ADDRESS = "tcp://127.0.0.1:5558"  # where a fleet publishes its directory unless it is told otherwise

Entry = TypeVar("Entry", "CameraEntry", "RigEntry")


@dataclass(frozen=True, slots=True)
class CameraEntry:
    """A camera of a fleet: where it is, and how it does."""

    name: str
    rig: str = ""  # "": none has it
    address: str = ""  # where its tracks are published; "": nowhere yet
    epoch: int = 0  # of its placement; grows with every one
    state: str = "waiting"  # waiting, opening, streaming, stalled, lost, paused, leaving, ended, failed
    reason: str = ""  # of waiting, or of a failure
    fps: float = 0.0
    latency_ms: float = 0.0  # capture to publish, median of the last seconds
    points: int = 0
    restarts: int = 0  # times that it went on after its rig was restarted or lost


@dataclass(frozen=True, slots=True)
class RigEntry:
    """A rig of a fleet: a process with one model that tracks several cameras."""

    name: str
    node: str  # the machine's address
    state: str = "starting"  # starting, up, down, draining, refused
    reason: str = ""  # of a refusal
    lanes: int = 0  # cameras that it may have
    taken: int = 0
    load: float = 0.0  # 1: full
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Directory:
    """Which camera is where."""

    fleet: str
    software: str = ""
    ray: str = ""
    cameras: tuple[CameraEntry, ...] = ()
    rigs: tuple[RigEntry, ...] = ()
    moves: int = 0
    notes: tuple[str, ...] = ()
    published_unix_ns: int = 0

    def camera(self, name: str) -> CameraEntry | None:
        return next((one for one in self.cameras if one.name == name), None)


def encode(directory: Directory) -> bytes:
    """Encodes a directory. Raises `WireError` for a fleet whose name cannot be a topic."""
    body = {
        "schema": SCHEMA,
        "version": VERSION,
        "fleet": directory.fleet,
        "software": directory.software,
        "ray": directory.ray,
        "published_unix_ns": directory.published_unix_ns,
        "moves": directory.moves,
        "notes": list(directory.notes),
        "cameras": [asdict(one) for one in directory.cameras],
        "rigs": [asdict(one) for one in directory.rigs],
    }
    packed: bytes = msgpack.packb(body)
    return topic(directory.fleet, TOPIC) + packed


def decode(message: bytes) -> Directory:
    """Decodes a directory. Raises `WireError` for anything that `encode` cannot have produced."""
    fleet, body = split(message, TOPIC, SCHEMA, VERSION, "fleet")
    notes = field(body, "notes", list)
    if not all(type(note) is str for note in notes):
        raise WireError("notes holds something that is not text")
    return Directory(
        fleet,
        software=text(body, "software"),
        ray=text(body, "ray"),
        cameras=_entries(body, "cameras", CameraEntry),
        rigs=_entries(body, "rigs", RigEntry),
        moves=natural(body, "moves"),
        notes=tuple(notes),
        published_unix_ns=integer(body, "published_unix_ns"),
    )


_READERS = {str: text, int: natural, float: real}


def _entries(body: dict[str, Any], key: str, kind: type[Entry]) -> tuple[Entry, ...]:
    """The maps under `key`; each has all the fields of a `kind`, and may have others."""
    found = []
    for one in field(body, key, list):
        if type(one) is not dict:
            raise WireError(f"{key} holds {str(one)[:40]}, not a map")
        values: dict[str, Any] = {name: _READERS[it.type](one, name) for name, it in kind.__dataclass_fields__.items()}  # type: ignore[index]
        found.append(kind(**values))
    return tuple(found)
