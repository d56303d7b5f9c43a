"""Encodes and decodes messages: the tracks of one frame of one camera, or a heartbeat. Needs numpy and msgpack.

A message is ONE ZeroMQ part (CONFLATE, and with it "newest wins", does not support multi-part messages):

    b"tracks/" + camera (UTF-8) + b"\\0" + one msgpack map

    key                type         meaning
    -----------------  -----------  ------------------------------------------------------------------------------
    schema             str          "online-tapir/tracks"
    version            int          1; a reader refuses a higher version and ignores unknown keys
    camera             str          the same as in the topic
    frame_id           int >= 0     the source's frame number; gaps are frames that were not tracked
    model_frame_id     int          the frame that the model last saw of these points, -1 for none; optional
    captured_ns        int          when the frame was grabbed, monotonic clock of that machine, nanoseconds
    captured_unix_ns   int          the same moment on its wall clock
    published_unix_ns  int          when the message was sent, wall clock
    width, height      int >= 0     of the frame, pixels
    dropped            int >= 0     frames before this one that the source has dropped since it was opened
    model              str          the model that tracked
    times              map str:int  nanoseconds by stage: capture upload encode match refine download publish
    ids                bin          int32   [N]     point ids, ascending, never reused
    xy                 bin          float32 [N, 2]  image pixels, (0, 0) the corner of the first pixel, x right, y down
    visible            bin          uint8   [N]     1 visible, 0 hidden
    occlusion          bin          float32 [N]     probability that the point is hidden
    uncertainty        bin          float32 [N]     probability that the position is off
    objects            array        groups of points as things, a map each: name; seen: int, visible points; following,
                                    doubtful: bin int32 [...], ids of those that agree and do not; if it was found also
                                    matrix: bin float64 [3, 3], from image pixels when it was first seen to those now,
                                    and box: bin float32 [4, 2], image pixels; for a flat one of known size also
                                    pose: bin float64 [9], rotation (axis times angle) and translation in mm from the
                                    object to the camera, reprojection error in pixels, width and height in mm; optional
    searching          array        str, names of templates that have not been found yet; optional
    epoch              int >= 1     in a fleet, the number of the camera's placement: messages with a lower one than the
                                    newest are those of a rig that has lost the camera; optional
    labels             array        [id, name, group, colour] of points that have any, colour 0xRRGGBB or -1; optional

Arrays are little-endian and packed, row i of each belongs to ids[i]. Integers fit 64 bits signed. A message is at most
4 MiB. The zero byte ends the topic, so that a filter for camera "1" does not match "10".

While no frame comes, heartbeats are sent on a separate topic, `heartbeat/<camera>`, so that silence means trouble:

    schema             str          "online-tapir/heartbeat"
    version            int          1
    camera             str          the same as in the topic
    state              str          streaming; stalled: the source sends nothing; lost: it is gone; paused: on request
    frame_id           int >= -1    the last frame tracked, -1 before the first; its tracks are stale unless streaming
    since_unix_ns      int          when the state began, wall clock
    published_unix_ns  int          when the message was sent, wall clock
    points             int >= 0     points that are being tracked
    epoch              int >= 1     as in the tracks; optional
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import msgpack  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from online_tapir.errors import WireError
from online_tapir.records import Label, Pose, StageTimes, TrackedObject, Tracks
from online_tapir.wire.envelope import field, integer, natural, split, text, topic

SCHEMA = "online-tapir/tracks"
VERSION = 1
TOPIC = b"tracks/"
DEFAULT_ADDRESS = "tcp://127.0.0.1:5555"  # where a run publishes unless it is told otherwise
HEARTBEAT_SCHEMA = "online-tapir/heartbeat"
HEARTBEAT_VERSION = 1
HEARTBEAT_TOPIC = b"heartbeat/"
MAX_POINTS = 65_536

_STAGES = tuple(field.name for field in fields(StageTimes))

State = Literal["streaming", "stalled", "lost", "paused"]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A keep-alive while no frame comes: the state of the source, and since when (wall clock of the publisher)."""

    camera: str
    state: State
    frame_id: int  # the last that was tracked; -1 before the first
    since_unix_ns: int
    points: int
    published_unix_ns: int = 0
    epoch: int = 0  # as of `Tracks`

    @property
    def seconds(self) -> float:
        """How long the state had lasted when it was published."""
        return (self.published_unix_ns - self.since_unix_ns) / 1e9


def encode(tracks: Tracks) -> bytes:
    """Encodes tracks. Raises `WireError` for a camera that cannot be a topic and for more than `MAX_POINTS` points."""
    count = len(tracks.ids)
    if count > MAX_POINTS:
        raise WireError(f"{count} points do not fit one message; it holds at most {MAX_POINTS}")
    body = {
        "schema": SCHEMA,
        "version": VERSION,
        "camera": tracks.camera,
        "frame_id": tracks.frame_id,
        "captured_ns": tracks.captured_ns,
        "captured_unix_ns": tracks.captured_unix_ns,
        "published_unix_ns": tracks.published_unix_ns,
        "width": tracks.width,
        "height": tracks.height,
        "dropped": tracks.dropped,
        "model": tracks.model,
        "times": asdict(tracks.times),
        "ids": _pack(tracks.ids, "<i4", (count,)),
        "xy": _pack(tracks.xy, "<f4", (count, 2)),
        "visible": _pack(tracks.visible, "u1", (count,)),
        "occlusion": _pack(tracks.occlusion, "<f4", (count,)),
        "uncertainty": _pack(tracks.uncertainty, "<f4", (count,)),
    }
    if tracks.model_frame_id >= 0:
        body["model_frame_id"] = tracks.model_frame_id
    if tracks.labels:
        body["labels"] = [
            [id, label.name, label.group, -1 if label.color is None else label.color]
            for id, label in tracks.labels.items()
        ]
    if tracks.objects:
        body["objects"] = [_object_map(one) for one in tracks.objects]
    if tracks.searching:
        body["searching"] = list(tracks.searching)
    if tracks.epoch:
        body["epoch"] = tracks.epoch
    packed: bytes = msgpack.packb(body)
    return topic(tracks.camera, TOPIC) + packed


def decode(message: bytes) -> Tracks:
    """Decodes a message into new arrays. Raises `WireError` for anything that `encode` cannot have produced."""
    camera, body = split(message, TOPIC, SCHEMA, VERSION)
    ids = _array(body, "ids", "<i4")  # [N]
    count = len(ids)
    visible = _array(body, "visible", "u1", count)  # [N]
    if np.any(visible > 1):
        raise WireError(f"visible holds {visible.max()}, not only 0 and 1")
    return Tracks(
        frame_id=natural(body, "frame_id"),
        model_frame_id=integer(body, "model_frame_id") if "model_frame_id" in body else -1,
        captured_ns=integer(body, "captured_ns"),
        captured_unix_ns=integer(body, "captured_unix_ns"),
        published_unix_ns=integer(body, "published_unix_ns"),
        width=natural(body, "width"),
        height=natural(body, "height"),
        ids=ids.astype(np.int32),
        xy=_array(body, "xy", "<f4", 2 * count).reshape(count, 2).astype(np.float32),
        visible=visible.astype(np.bool_),
        occlusion=_array(body, "occlusion", "<f4", count).astype(np.float32),
        uncertainty=_array(body, "uncertainty", "<f4", count).astype(np.float32),
        dropped=natural(body, "dropped"),
        camera=camera,
        model=text(body, "model"),
        times=_times(body),
        labels=_labels(body),
        objects=tuple(_object(one) for one in field(body, "objects", list)) if "objects" in body else (),
        searching=tuple(_name(one) for one in field(body, "searching", list)) if "searching" in body else (),
        epoch=natural(body, "epoch") if "epoch" in body else 0,
    )


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise WireError(f"searching holds {str(value)[:40]}, not text")
    return value


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    """Encodes a heartbeat. Raises `WireError` for a camera that cannot be a topic."""
    body = {"schema": HEARTBEAT_SCHEMA, "version": HEARTBEAT_VERSION, **asdict(heartbeat)}
    if not heartbeat.epoch:
        del body["epoch"]
    packed: bytes = msgpack.packb(body)
    return topic(heartbeat.camera, HEARTBEAT_TOPIC) + packed


def decode_heartbeat(message: bytes) -> Heartbeat:
    """Decodes a heartbeat. Raises `WireError` for anything that `encode_heartbeat` cannot have produced."""
    camera, body = split(message, HEARTBEAT_TOPIC, HEARTBEAT_SCHEMA, HEARTBEAT_VERSION)
    state, frame_id = text(body, "state"), integer(body, "frame_id")
    if state not in get_args(State):
        raise WireError(f"state {state[:40]!r} is none of {', '.join(get_args(State))}")
    if frame_id < -1:
        raise WireError(f"frame_id is {frame_id}, below -1")
    return Heartbeat(
        camera=camera,
        state=state,  # type: ignore[arg-type]
        frame_id=frame_id,
        since_unix_ns=integer(body, "since_unix_ns"),
        points=natural(body, "points"),
        published_unix_ns=integer(body, "published_unix_ns"),
        epoch=natural(body, "epoch") if "epoch" in body else 0,
    )


def decode_any(message: bytes) -> Tracks | Heartbeat:
    """Decodes tracks or a heartbeat, by its topic. Raises `WireError` for any other message."""
    return decode_heartbeat(message) if message.startswith(HEARTBEAT_TOPIC) else decode(message)


def placement(message: bytes) -> tuple[str, int]:
    """The camera and the epoch of tracks or a heartbeat. Raises `WireError` for any other message."""
    tracks = message.startswith(TOPIC)
    kind, schema, version = (
        (TOPIC, SCHEMA, VERSION) if tracks else (HEARTBEAT_TOPIC, HEARTBEAT_SCHEMA, HEARTBEAT_VERSION)
    )
    camera, body = split(message, kind, schema, version)
    return camera, natural(body, "epoch") if "epoch" in body else 0


def _pack(array: NDArray[Any], dtype: str, shape: tuple[int, ...]) -> bytes:
    assert array.shape == shape, f"an array of shape {array.shape} instead of {shape}"
    return array.astype(dtype).tobytes()


def _array(body: dict[str, Any], key: str, dtype: str, size: int | None = None) -> NDArray[Any]:
    """The numbers under `key`, flat and read-only: `size` of them, or for None at most `MAX_POINTS`."""
    packed: bytes = field(body, key, bytes)
    width = np.dtype(dtype).itemsize
    if size is None and (len(packed) % width or len(packed) > MAX_POINTS * width):
        raise WireError(f"{key} has {len(packed)} bytes, not {width} for each of at most {MAX_POINTS} points")
    if size is not None and len(packed) != size * width:
        raise WireError(f"{key} has {len(packed)} bytes where the ids ask for {size * width}")
    return np.frombuffer(packed, dtype)


def _object_map(one: TrackedObject) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": one.name,
        "seen": one.seen,
        "following": one.following.astype("<i4").tobytes(),
        "doubtful": one.doubtful.astype("<i4").tobytes(),
    }
    if one.matrix is not None and one.box is not None:
        told |= {"matrix": _pack(one.matrix, "<f8", (3, 3)), "box": _pack(one.box, "<f4", (4, 2))}
    if one.pose is not None:
        place = np.concatenate([one.pose.rotation, one.pose.translation_mm, [one.pose.error_px], one.pose.size_mm])
        told["pose"] = _pack(place, "<f8", (9,))
    return told


def _object(one: Any) -> TrackedObject:
    if type(one) is not dict:
        raise WireError(f"objects holds {str(one)[:40]}, not a map")
    found = "matrix" in one
    return TrackedObject(
        name=text(one, "name"),
        matrix=_array(one, "matrix", "<f8", 9).reshape(3, 3).astype(np.float64) if found else None,
        box=_array(one, "box", "<f4", 8).reshape(4, 2).astype(np.float32) if found else None,
        seen=natural(one, "seen"),
        following=_array(one, "following", "<i4").astype(np.int32),
        doubtful=_array(one, "doubtful", "<i4").astype(np.int32),
        placed={},
        pose=_pose(_array(one, "pose", "<f8", 9)) if "pose" in one else None,
    )


def _pose(values: NDArray[Any]) -> Pose:
    *place, error_px, width, height = values.tolist()
    return Pose(np.array(place[:3]), np.array(place[3:]), error_px, (width, height))


def _labels(body: dict[str, Any]) -> dict[int, Label]:
    if "labels" not in body:
        return {}
    labels: dict[int, Label] = {}
    for row in field(body, "labels", list):
        if type(row) is not list or [type(cell) for cell in row] != [int, str, str, int]:
            raise WireError(f"labels holds {str(row)[:40]}, not an id, a name, a group and a colour")
        id, name, group, color = row
        labels[id] = Label(name, group, None if color < 0 else color)
    return labels


def _times(body: dict[str, Any]) -> StageTimes:
    times: dict[str, Any] = field(body, "times", dict)
    return StageTimes(**{stage: integer(times, stage) for stage in _STAGES if stage in times})
