"""The messages between the page and the run, over one WebSocket.

To the page, binary: the length of the header (uint32, little-endian), the header (JSON), then the pictures that it
lists in `pictures`, each as many bytes as it says: the frame, and of an inspected point what the model sees. Text is
JSON: the answer to a request, `{"answer": 1, "result": {...}}` or `{"answer": 1, "error": ..., "message": ...}`, and
`{"heartbeat": {...}}` while no frame comes.

From the page, text: `{"ack": 12}` when picture 12 is drawn; `{"look": {"camera": "left" or null, "width": 800}}`;
`{"ask": 1, "camera": "left", "command": "add", "arguments": {...}}`, a request of the control protocol.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from online_tapir.control import protocol
from online_tapir.records import Frame, Tracks

MAX_MESSAGE_BYTES = 64 * 2**10  # from the page
PER_PIXEL = 100  # positions are told to a hundredth of a pixel


class HostileMessageError(Exception):
    """A message that no page of ours sends."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is asked of a stream at the moment of a frame."""

    state: str
    inspected: int
    replenish: bool
    recording: bool
    room: int  # for further points
    oldest: int  # frame that points may be added on
    fps: float  # frames published a second
    reason: str  # why the source does not stream


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One frame of a camera, its tracks and their colours [N, 3]; `number` counts the moments of that camera."""

    number: int
    frame: Frame
    tracks: Tracks
    colors: NDArray[np.uint8]
    standing: Standing


@dataclass(frozen=True, slots=True)
class Ack:
    number: int


@dataclass(frozen=True, slots=True)
class Look:
    camera: str | None
    width: int


@dataclass(frozen=True, slots=True)
class Ask:
    number: int
    body: dict[str, Any]  # a request of the control protocol


def encode(moment: Moment, number: int, pictures: Sequence[bytes], latency_ms: float | None) -> bytes:
    """The binary message of a frame; `number` is to be acknowledged."""
    tracks = moment.tracks
    standing = moment.standing
    red, green, blue = moment.colors.astype(np.int64).T
    header = {
        "number": number,
        "camera": tracks.camera,
        "frame": tracks.frame_id,
        "width": tracks.width,
        "height": tracks.height,
        "captured_unix_ms": tracks.captured_unix_ns // 1_000_000,
        "latency_ms": None if latency_ms is None else round(latency_ms, 1),
        "dropped": tracks.dropped,
        "model": tracks.model,
        "ids": tracks.ids.tolist(),
        "xy": (np.nan_to_num(tracks.xy) * PER_PIXEL).round().astype(np.int64).ravel().tolist(),
        "visible": tracks.visible.astype(np.int64).tolist(),
        "colors": (red << 16 | green << 8 | blue).tolist(),
        "objects": [
            {"name": one.name, "box": [round(float(value), 1) for value in one.box.ravel()]}
            for one in tracks.objects
            if one.box is not None
        ],
        "searching": tracks.search,
        "names": {id: label.name for id, label in tracks.labels.items() if label.name},
        "state": standing.state,
        "reason": standing.reason,
        "inspected": standing.inspected,
        "replenish": standing.replenish,
        "recording": standing.recording,
        "room": standing.room,
        "oldest": standing.oldest,
        "fps": round(standing.fps, 1),
        "pictures": [len(picture) for picture in pictures],
    }
    packed = json.dumps(header, separators=(",", ":")).encode()
    return b"".join([struct.pack("<I", len(packed)), packed, *pictures])


def read(text: str, controller: str) -> Ack | Look | Ask:
    """A message of the page of viewer `controller`. Raises HostileMessageError for anything else."""
    if len(text) > MAX_MESSAGE_BYTES:
        raise HostileMessageError(f"a message of {len(text)} characters")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HostileMessageError("no JSON") from error
    match body:
        case {"ack": int(number)}:
            return Ack(number)
        case {"look": {"camera": str() | None as camera, "width": int(width)}}:
            return Look(camera, width)
        case {"ask": int(number), "command": str(command), **rest} if rest.keys() <= {"camera", "arguments"}:
            request: dict[str, Any] = {
                "schema": protocol.SCHEMA,
                "version": protocol.VERSION,
                "controller": controller,
                "request": number,
                "command": command,
                **{str(key): value for key, value in rest.items()},
            }
            return Ask(number, request)
    raise HostileMessageError("a message of an unknown kind")


def answer(number: int, reply: dict[str, Any] | protocol.ControlError) -> str:
    """The text that answers request `number`."""
    if isinstance(reply, protocol.ControlError):
        return json.dumps({"answer": number, "error": reply.name, "message": reply.message})
    return json.dumps({"answer": number, "result": reply})
