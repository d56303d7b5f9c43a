"""Requests to a live run and its replies: one ZeroMQ part, one msgpack map each. Needs msgpack; sends nothing.

The server is a ROUTER socket, a client a DEALER or a REQ socket. Every request gets a reply, a result or a named error:

    request     type       meaning
    ----------  ---------  ---------------------------------------------------------------------------------------------
    schema      str        "online-tapir/control"
    version     int        1; any other is refused
    command     str        one of those below
    arguments   map        its arguments; optional. Unknown arguments are refused
    request     int >= 0   echoed in the reply
    camera      str        the camera it is for; optional for a run of one camera, and for what is of the whole run
    controller  str        a unique name; optional. If the same request comes again (after a time-out, with the same
                           number and controller), the reply is repeated, and a change is not made again

    reply       type       meaning
    ----------  ---------  ---------------------------------------------------------------------------------------------
    schema, version        as above
    request     int        of the request; 0 if it had none
    result      map        the command's result, see below; or instead
    error       str        one of ERRORS
    message     str        the error, for people

    command     arguments                                            result
    ----------  ---------------------------------------------------  ---------------------------------------------------
    cameras                                                          cameras: [str, ...] (those that run),
                                                                     states: [{name, state, reason: str}, ...]
    camera_add  source: str, name: str, settings: map                camera: str
    camera_remove  name: str                                         removed: str
    add         xy: [[x, y], ...], frame_id: int, normalised: bool, names: [str, ...], group: str
                                                                     ids: [int], frame_id: int
    label       id: int, name: str, group: str, color: int           id, name, group, color (-1 for none)
    remove      ids: [int, ...]                                      removed: int
    clear                                                            removed: int
    list                                                             frame_id: int, points: [[id, x, y, visible], ...],
                                                                     waiting: [id, ...] (added, not yet on a frame),
                                                                     labels: [[id, name, group, color], ...]
    replenish   on: bool, points: int                                on: bool, points: int
    inspect     id: int                                              inspected: int
    pause                                                            paused: true
    resume                                                           paused: false
    status                                                           camera, model, state, frame_id, ...
    templates                                                        names: [str, ...], file: bin
    snapshot    format: "jpeg" or "png"                              frame_id, width, height, captured_unix_ns: int,
                                                                     format: str, image: bin
    set         heartbeat_s: float, patience_frames: int             the current values of both
    record      on: bool                                             recording: str ("" while nothing is recorded)
    save                                                             save: int, frame_id: int, points: int
    stop                                                             stopping: true

`camera_add` opens a further camera in the same run and does not wait: `states` tells it as "opening", then with the
state of its heartbeats, or "failed". `settings` are those of a [[camera]] table of a configuration file. A source that
has ended leaves by itself.

x and y are image pixels as in the tracks, or with `normalised` fractions of the frame's width and height. `frame_id` is
a frame of the rolling window, by default the newest; points are tracked from there, and first appear on the next frame.
`names` are one for each point, "" for none; a name is given once. `label` changes what is given of a point's label, and
"" or -1 takes it away. Ids are never used twice. A frame_id is -1 before the first frame. `replenish` replaces lost
points, to keep as many as there were when it was called, or `points`; adding, removing and clearing change that number.
`inspect` shows what the model sees of one point, if the run has a viewer (Rerun, the window, the page), until that is
removed or no id is given. `inspected` is -1 while no point is inspected. `record` begins a recording in a new folder,
whose path it tells, or ends the one that runs. `templates` tells what the visible points that have a name look like, as
the file that --templates reads. `save` writes the points to the --save-state file of the run and does
not wait: it is done once the status has `saves` >= `save`, and succeeded if `save_error` is empty.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped]

from online_tapir.errors import OnlineTapirError

SCHEMA = "online-tapir/control"
VERSION = 1
DEFAULT_ADDRESS = "tcp://127.0.0.1:5556"
SHORTEST_HEARTBEAT_S, LONGEST_HEARTBEAT_S = 0.1, 60.0
MAX_REQUEST_BYTES = 256 * 2**10
MAX_ITEMS = 4096  # points or ids in one request
MAX_NAME = 64  # characters of a controller's name

ERRORS = {
    "bad_request": "not a valid request",
    "version": "an unsupported version",
    "unknown_command": "no such command",
    "too_large": "more bytes, or more points, than a request may have",
    "which_camera": "the run has several cameras and the request names none of them",
    "no_camera": "a camera that cannot be added or removed",
    "rate_limited": "too many requests; wait a little",
    "no_frame": "no frame has come yet",
    "frame_left_window": "the frame is not in the rolling window",
    "outside_frame": "a point outside the picture",
    "no_room": "more points than there is room for",
    "bad_name": "a name that another point has, or that cannot be one",
    "unknown_point": "no such point",
    "no_template": "no named point is visible, so there is nothing to keep",
    "not_shown": "the run has no viewer that could show an inspected point",
    "not_recorded": "a recording that cannot be begun or is not there to be ended",
    "view_only": "a change, asked for by one who may only look",
    "failed": "something that should not happen; the run goes on and its log says more",
    "not_saved": "the run has no file to save its points to, or it could not be written (raised by the client)",
    "no_answer": "no reply in time (raised by the client)",
}


class ControlError(OnlineTapirError):
    """A request that was refused or not answered; `name` is one of ERRORS."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message


@dataclass(frozen=True, slots=True)
class Request:
    """One validated request: a known command with arguments of the right types."""

    command: str
    arguments: dict[str, Any]
    id: int = 0
    controller: str = ""
    camera: str = ""


def encode_request(request: Request) -> bytes:
    """The bytes of a request, which only the server validates."""
    body = {
        "schema": SCHEMA,
        "version": VERSION,
        "controller": request.controller,
        "request": request.id,
        "command": request.command,
        "arguments": request.arguments,
    }
    if request.camera:
        body["camera"] = request.camera
    packed: bytes = msgpack.packb(body)
    return packed


def unpack(packed: bytes, at_most: int = MAX_REQUEST_BYTES) -> dict[str, Any]:
    """The map in a message. Raises ControlError: too_large, bad_request."""
    if len(packed) > at_most:
        raise ControlError("too_large", f"{len(packed)} bytes; at most {at_most} are read")
    try:
        body = msgpack.unpackb(packed)
    except (ValueError, msgpack.UnpackException) as error:  # msgpack's own errors, and invalid UTF-8
        raise ControlError("bad_request", f"no msgpack map: {error or type(error).__name__}") from error
    if not isinstance(body, dict):
        raise ControlError("bad_request", f"a msgpack {type(body).__name__} where a map belongs")
    return body


def request_id(body: Mapping[str, Any]) -> int:
    """The number of a request or reply, 0 if it has none. Raises ControlError if it is not a whole number."""
    number: int = _whole(body.get("request", 0), "request")
    return number


def read_request(body: Mapping[str, Any]) -> Request:
    """The request in a map. Raises ControlError: bad_request, version, unknown_command, too_large."""
    _check_schema(body)
    command = _text(body.get("command"), "command")
    if command not in ARGUMENTS:
        raise ControlError("unknown_command", f"{command[:40]!r}; there are {', '.join(ARGUMENTS)}")
    controller = _text(body.get("controller", ""), "controller")
    if len(controller) > MAX_NAME:
        raise ControlError("bad_request", f"controller has {len(controller)} characters, at most {MAX_NAME} are taken")
    camera = _text(body.get("camera", ""), "camera")
    if len(camera) > MAX_NAME:
        raise ControlError("bad_request", f"camera has {len(camera)} characters, at most {MAX_NAME} are taken")
    given = body.get("arguments", {})
    if not isinstance(given, dict):
        raise ControlError("bad_request", f"arguments are a {type(given).__name__}, not a map")
    return Request(command, _checked(command, given), request_id(body), controller, camera)


def encode_result(id: int, result: Mapping[str, Any]) -> bytes:
    packed: bytes = msgpack.packb({"schema": SCHEMA, "version": VERSION, "request": id, "result": dict(result)})
    return packed


def encode_error(id: int, error: ControlError) -> bytes:
    assert error.name in ERRORS, f"{error.name} is not an error of this protocol"
    body = {"schema": SCHEMA, "version": VERSION, "request": id, "error": error.name, "message": error.message}
    packed: bytes = msgpack.packb(body)
    return packed


def read_result(body: Mapping[str, Any]) -> dict[str, Any]:
    """The result in a reply. Raises the ControlError it holds instead, or bad_request if it is not a valid reply."""
    _check_schema(body)
    if "error" in body:
        raise ControlError(_text(body["error"], "error"), _text(body.get("message"), "message"))
    result = body.get("result")
    if not isinstance(result, dict):
        raise ControlError("bad_request", f"result is a {type(result).__name__}, not a map")
    return result


def _check_schema(body: Mapping[str, Any]) -> None:
    schema, version = _text(body.get("schema"), "schema"), _whole(body.get("version"), "version")
    if schema != SCHEMA:
        raise ControlError("bad_request", f"schema {schema[:40]!r}, not {SCHEMA!r}")
    if version != VERSION:
        raise ControlError("version", f"version {version} of {SCHEMA}; this side knows {VERSION}")


def _checked(command: str, given: Mapping[str, Any]) -> dict[str, Any]:
    known = ARGUMENTS[command]
    unknown = [key for key in given if key not in known]
    if unknown:
        takes = ", ".join(known) or "none"
        raise ControlError("bad_request", f"{command} has no argument {str(unknown[0])[:40]!r}; it takes {takes}")
    missing = [key for key in REQUIRED.get(command, ()) if given.get(key) is None]
    if missing:
        raise ControlError("bad_request", f"{command} needs {missing[0]}")
    return {key: known[key](value, key) for key, value in given.items() if value is not None}


def _text(value: Any, key: str) -> str:
    if type(value) is not str:
        raise _wrong(key, value, "text")
    return value


def _name(value: Any, key: str) -> str:
    name = _text(value, key)
    if not 0 < len(name) <= MAX_NAME:
        raise ControlError("bad_request", f"{key} has {len(name)} characters, not 1 to {MAX_NAME}")
    return name


def _settings(value: Any, key: str) -> dict[str, Any]:
    if type(value) is not dict or not all(type(name) is str for name in value):
        raise _wrong(key, value, "a map of settings")
    return value


def _flag(value: Any, key: str) -> bool:
    if type(value) is not bool:
        raise _wrong(key, value, "true or false")
    return value


def _whole(value: Any, key: str) -> int:
    if type(value) is not int or not 0 <= value < 2**63:  # exactly: True is not an integer here
        raise _wrong(key, value, "a whole number from 0 up")
    return value


def _number(value: Any, key: str) -> float:
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:  # nor NaN, nor a whole number beyond
        raise _wrong(key, value, "a finite number")
    return float(value)


def _items(value: Any, key: str) -> list[Any]:
    if type(value) is not list:
        raise _wrong(key, value, "a list")
    if len(value) > MAX_ITEMS:
        raise ControlError("too_large", f"{key} has {len(value)} items; at most {MAX_ITEMS} in one request")
    return value


def _points(value: Any, key: str) -> list[tuple[float, float]]:
    pairs = _items(value, key)
    if not all(type(pair) is list and len(pair) == 2 for pair in pairs):
        raise ControlError("bad_request", f"{key} is not a list of [x, y]")
    return [(_number(x, "x"), _number(y, "y")) for x, y in pairs]


def _names(value: Any, key: str) -> list[str]:
    return [_text(name, "a name") for name in _items(value, key)]


def _color(value: Any, key: str) -> int:
    if type(value) is not int or not -1 <= value <= 0xFFFFFF:
        raise _wrong(key, value, "a colour from 0 to 0xFFFFFF, or -1")
    return value


def _ids(value: Any, key: str) -> list[int]:
    return [_id(id, "an id") for id in _items(value, key)]


def _id(value: Any, key: str) -> int:
    id = _whole(value, key)
    if id >= 2**31:
        raise ControlError("unknown_point", f"no id is as large as {id}")
    return id


def _wrong(key: str, value: Any, wanted: str) -> ControlError:
    shown = type(value).__name__ if isinstance(value, (str, bytes, list, dict)) else repr(value)[:40]
    return ControlError("bad_request", f"{key} is {shown}, not {wanted}")


ARGUMENTS: dict[str, dict[str, Callable[[Any, str], Any]]] = {
    "cameras": {},
    "camera_add": {"source": _text, "name": _name, "settings": _settings},
    "camera_remove": {"name": _name},
    "add": {"xy": _points, "frame_id": _whole, "normalised": _flag, "names": _names, "group": _text},
    "label": {"id": _id, "name": _text, "group": _text, "color": _color},
    "remove": {"ids": _ids},
    "clear": {},
    "list": {},
    "replenish": {"on": _flag, "points": _whole},
    "inspect": {"id": _id},
    "pause": {},
    "resume": {},
    "status": {},
    "templates": {},
    "snapshot": {"format": _text},
    "set": {"heartbeat_s": _number, "patience_frames": _whole},
    "record": {"on": _flag},
    "save": {},
    "stop": {},
}
REQUIRED = {
    "camera_add": ("source",),
    "camera_remove": ("name",),
    "add": ("xy",),
    "label": ("id",),
    "remove": ("ids",),
    "replenish": ("on",),
    "record": ("on",),
}
