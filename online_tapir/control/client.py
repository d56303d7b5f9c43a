"""The client of the control socket: controls a live run from another program. Needs pyzmq, msgpack and numpy."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import ArrayLike, NDArray

from online_tapir.control import protocol
from online_tapir.control.protocol import ControlError, Request
from online_tapir.records import Label
from online_tapir.wire.sockets import ClientSockets

SAVED_EVERY_S = 0.05  # seconds between two polls of whether the points are saved
ATTEMPTS = 2  # per time-out; if only the reply was lost, the second gets it again without a second execution
_MAX_REPLY_BYTES = 256 * 2**20  # a snapshot may be large
_OPTIONS = {
    zmq.IMMEDIATE: 1,  # no requests queue up while no server is connected
    zmq.SNDHWM: 16,
    zmq.LINGER: 0,
    zmq.MAXMSGSIZE: _MAX_REPLY_BYTES,
    zmq.HEARTBEAT_IVL: 5_000,  # otherwise a host that vanished would go unnoticed
}


@dataclass(frozen=True, slots=True, eq=False)
class PointList:
    """The points of a run as of one frame; those in `waiting` have been added since."""

    frame_id: int
    ids: NDArray[np.int32]  # [N]
    xy: NDArray[np.float32]  # [N, 2] image pixels
    visible: NDArray[np.bool_]  # [N]
    waiting: NDArray[np.int32]
    labels: Mapping[int, Label] = field(default_factory=dict)  # by id


@dataclass(frozen=True, slots=True)
class SavedPoints:
    """How many points a run has saved, and as of which frame."""

    frame_id: int
    points: int


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """An encoded picture, and its frame; points may be added on that frame while the window holds it."""

    frame_id: int
    width: int
    height: int
    captured_unix_ns: int
    format: str
    image: bytes


@dataclass(frozen=True, slots=True)
class CameraState:
    """A camera of a run: `opening`, `failed`, or a state of its heartbeats; `reason` says why it does not stream."""

    name: str
    state: str
    reason: str


class Controller(ClientSockets):
    """Controls and queries a live run, from another program.

        with Controller() as controller:
            ids = controller.add([[120, 80]])                     # image pixels of the newest frame

    Each call waits for its reply. It raises `ControlError` with a `name` (see `protocol.ERRORS`) when it is refused,
    "no_answer" after `timeout_ms`. `camera` is the one that is controlled, in a run of several. `keys` is a key folder
    (see `security`). Any number of controllers may control one run; use each from one thread. Raises `ConfigError` for
    an invalid address.
    """

    def __init__(
        self,
        address: str = protocol.DEFAULT_ADDRESS,
        *,
        camera: str = "",
        keys: Path | str | None = None,
        timeout_ms: int = 5_000,
    ) -> None:
        super().__init__(address, "control")
        self.timeout_ms = timeout_ms
        self.camera = camera
        self._name = uuid.uuid4().hex
        self._numbers = count(1)
        self._socket = self._connect(zmq.DEALER, keys, _OPTIONS)

    def cameras(self) -> list[str]:
        """The names of the run's cameras."""
        return list(self._ask("cameras")["cameras"])

    def camera_states(self) -> list[CameraState]:
        """The cameras of the run, those being opened and those that failed."""
        return [CameraState(**state) for state in self._ask("cameras")["states"]]

    def add_camera(self, source: str, name: str | None = None, **settings: Any) -> str:
        """Adds a camera to the run and returns its name; does not wait until it is open (see `camera_states`).

        `settings` are keys of a [[camera]] table, for example points="grid:8" or replenish=True.
        """
        told = {key.replace("_", "-"): value for key, value in settings.items()}
        return str(self._ask("camera_add", source=source, name=name, settings=told)["camera"])

    def remove_camera(self, name: str) -> None:
        """Removes a camera; the others go on. The last one stays."""
        self._ask("camera_remove", name=name)

    def add(
        self,
        xy: ArrayLike,
        frame_id: int | None = None,
        *,
        normalised: bool = False,
        names: Sequence[str] = (),
        group: str = "",
    ) -> NDArray[np.int32]:
        """Adds points xy [P, 2] on frame `frame_id`, None the newest; returns their ids [P].

        They are image pixels, or fractions of the frame's width and height if `normalised`. Their first tracks are on
        the next frame, to which they are tracked from the frame they were added on. `names` are one for each, "" for
        none; a `group` is shared by them all.
        """
        points = np.asarray(xy, np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ControlError("bad_request", f"points come as [P, 2], x before y; these are {list(points.shape)}")
        labels: dict[str, Any] = ({"names": list(names)} if names else {}) | ({"group": group} if group else {})
        result = self._ask("add", xy=points.tolist(), frame_id=frame_id, normalised=normalised, **labels)
        return np.array(result["ids"], np.int32)

    def label(self, id: int, name: str | None = None, *, group: str | None = None, color: int | None = None) -> None:
        """Changes what is given of a point's name, group and colour (0xRRGGBB); "" or -1 takes it away."""
        self._ask("label", id=id, name=name, group=group, color=color)

    def remove(self, ids: ArrayLike) -> None:
        """Removes points; if one of them does not exist, removes none."""
        self._ask("remove", ids=np.atleast_1d(np.asarray(ids)).tolist())

    def clear(self) -> int:
        """Removes every point; returns how many there were."""
        return int(self._ask("clear")["removed"])

    def replenish(self, on: bool = True, points: int | None = None) -> None:
        """Replaces lost points, to keep `points` of them (None: as many as now); or stops doing so."""
        self._ask("replenish", on=on, points=points)

    def inspect(self, id: int | None) -> None:
        """Shows what the model sees of a point, if the run has a viewer; None stops that."""
        self._ask("inspect", id=id)

    def pause(self) -> None:
        """Stops tracking and publishes only heartbeats, until `resume`; a live source's frames are skipped."""
        self._ask("pause")

    def resume(self) -> None:
        self._ask("resume")

    def status(self) -> dict[str, Any]:
        """The run's status: camera, model, state, frame_id, points, visible, room, dropped, options, ..."""
        return self._ask("status")

    def snapshot(self, format: str = "jpeg") -> Snapshot:
        """The newest tracked frame as "jpeg" or "png"."""
        return Snapshot(**self._ask("snapshot", format=format))

    def templates(self) -> bytes:
        """What the visible points that have a name look like, as the content of a file for `--templates`."""
        file: bytes = self._ask("templates")["file"]
        return file

    def set(self, *, heartbeat_s: float | None = None, patience_frames: int | None = None) -> dict[str, Any]:
        """Sets seconds between heartbeats and frames a point may be hidden before it is replaced; returns both."""
        return self._ask("set", heartbeat_s=heartbeat_s, patience_frames=patience_frames)

    def record(self, on: bool = True) -> str:
        """Begins a recording in a new folder of the run's machine and returns its path, or ends it."""
        return str(self._ask("record", on=on)["recording"])

    def save_state(self) -> SavedPoints:
        """Saves the run's points to its --save-state file, and waits until they are on the disk."""
        asked = self._ask("save")
        deadline = time.monotonic() + self.timeout_ms / 1000
        while (status := self.status())["saves"] < asked["save"]:
            if time.monotonic() > deadline:
                raise ControlError("not_saved", f"the points were not written within {self.timeout_ms / 1000:g} s")
            time.sleep(SAVED_EVERY_S)
        if status["save_error"]:
            raise ControlError("not_saved", status["save_error"])
        return SavedPoints(asked["frame_id"], asked["points"])

    def stop(self) -> None:
        """Ends the run."""
        self._ask("stop")

    def list(self) -> PointList:
        """The points, with their positions on the newest frame."""
        result = self._ask("list")
        columns = list(zip(*result["points"], strict=True)) or [(), (), (), ()]
        return PointList(
            frame_id=result["frame_id"],
            ids=np.array(columns[0], np.int32),
            xy=np.array(columns[1:3], np.float32).T.reshape(-1, 2),
            visible=np.array(columns[3], np.bool_),
            waiting=np.array(result["waiting"], np.int32),
            labels={
                id: Label(name, group, None if color < 0 else color)
                for id, name, group, color in result.get("labels", [])
            },
        )

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Sends a request and returns its result. Raises the ControlError of the reply, or no_answer."""
        given = {key: value for key, value in arguments.items() if value is not None}
        request = Request(command, given, next(self._numbers), self._name, self.camera)
        packed = protocol.encode_request(request)
        deadline = time.monotonic()
        for _ in range(ATTEMPTS):
            deadline += self.timeout_ms / 1000 / ATTEMPTS
            reply = self._exchange(packed, request.id, deadline)
            if reply is not None:
                return protocol.read_result(reply)
        raise ControlError(
            "no_answer",
            f"no reply from {self.address} to `{command}` in {self.timeout_ms / 1000:g} s; does online-tapir run "
            f"there, with that --control address, and does it trust this key?",
        )

    def _exchange(self, packed: bytes, id: int, deadline: float) -> dict[str, Any] | None:
        """Sends request `id` once; its reply, or None if none came by the deadline (of the monotonic clock)."""
        if not self._ready(zmq.POLLOUT, deadline):
            return None
        self._socket.send(packed)
        while self._ready(zmq.POLLIN, deadline):
            *_, reply = self._socket.recv_multipart()
            body = protocol.unpack(reply, at_most=_MAX_REPLY_BYTES)
            if protocol.request_id(body) == id:
                return body  # others are late replies to requests that timed out
        return None

    def _ready(self, event: int, deadline: float) -> bool:
        left_ms = max(int((deadline - time.monotonic()) * 1000), 0)
        return bool(self._socket.poll(left_ms, event))
