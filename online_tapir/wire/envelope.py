"""What all messages have in common: a topic, a zero byte, one msgpack map with its schema and version.

Anyone may have sent them: each field has its type, or the message is refused.
"""

import math
from typing import Any

import msgpack  # type: ignore[import-untyped]

from online_tapir.errors import WireError

MAX_MESSAGE_BYTES = 4 * 2**20
MAX_CAMERA_BYTES = 1024


def topic(camera: str, kind: bytes) -> bytes:
    """The prefix of every message of this kind and camera, and of no other."""
    name = camera.encode()
    if b"\0" in name or len(name) > MAX_CAMERA_BYTES:
        raise WireError(
            f"camera {camera[:40]!r} cannot be a topic: a name has no zero byte and at most {MAX_CAMERA_BYTES} bytes"
        )
    return kind + name + b"\0"


def split(
    message: bytes, kind: bytes, schema: str, version: int, subject: str = "camera"
) -> tuple[str, dict[str, Any]]:
    """Splits a message of this kind into its camera, or what else its `subject` is, and its map."""
    if len(message) > MAX_MESSAGE_BYTES:
        raise WireError(f"the message has {len(message)} bytes; a reader accepts at most {MAX_MESSAGE_BYTES}")
    head, zero, _ = message[: len(kind) + MAX_CAMERA_BYTES + 1].partition(b"\0")
    if not head.startswith(kind) or not zero:
        raise WireError(f"the message begins with {message[:24]!r}, not with {kind!r}, a {subject} and a zero byte")
    packed = message[len(head) + 1 :]
    try:
        name = head[len(kind) :].decode()
        body = msgpack.unpackb(packed)
    except (ValueError, msgpack.UnpackException) as error:  # msgpack's own errors, and invalid UTF-8
        raise WireError(f"{len(packed)} bytes are not a msgpack map: {error or type(error).__name__}") from error
    if not isinstance(body, dict):
        raise WireError(f"a msgpack {type(body).__name__} instead of a map")
    _check_schema(body, schema, version)
    if text(body, subject) != name:
        raise WireError(f"the topic says {subject} {name[:40]!r}, the message says {body[subject][:40]!r}")
    return name, body


def _check_schema(body: dict[str, Any], known: str, up_to: int) -> None:
    schema = text(body, "schema")
    if schema != known:
        raise WireError(f"schema {schema[:40]!r}; this reader knows {known!r}")
    version = natural(body, "version")
    if version > up_to:
        raise WireError(f"version {version} of {schema}; this reader knows up to {up_to}: upgrade online-tapir here")
    if version < 1:
        raise WireError(f"version {version} of {schema} does not exist; the first is 1")


def field(body: dict[str, Any], key: str, kind: type) -> Any:
    if key not in body:
        raise WireError(f"the message comes without {key!r}")
    if type(body[key]) is not kind:  # exact type: True is not an integer here
        raise WireError(f"{key} is a {type(body[key]).__name__}, not a {kind.__name__}")
    return body[key]


def text(body: dict[str, Any], key: str) -> str:
    value: str = field(body, key, str)
    return value


def integer(body: dict[str, Any], key: str) -> int:
    value: int = field(body, key, int)
    if value >= 2**63:
        raise WireError(f"{key} is {value}, too large for a signed 64-bit integer")
    return value


def real(body: dict[str, Any], key: str) -> float:
    """A finite number."""
    value: float = field(body, key, float)
    if not math.isfinite(value):
        raise WireError(f"{key} is {value}, not a finite number")
    return value


def natural(body: dict[str, Any], key: str) -> int:
    value = integer(body, key)
    if value < 0:
        raise WireError(f"{key} is {value}, below 0")
    return value
