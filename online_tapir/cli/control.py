"""`online-tapir control`: controls and queries a live run from the shell."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from online_tapir.control.protocol import DEFAULT_ADDRESS
from online_tapir.errors import ConfigError

if TYPE_CHECKING:
    from online_tapir.control.client import CameraState, Controller

control_app = App(name="control", help="Control and query a running tracker: add, remove, list, pause, snapshot, ...")

camera_app = App(name="camera", help="Add, remove and list the cameras of a running tracker.")
control_app.command(camera_app)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Which tracker, and how long to wait for it."""

    address: Annotated[str, Parameter(help="Its control address, see `online-tapir --control`.")] = DEFAULT_ADDRESS
    camera: Annotated[
        str,
        Parameter(help="Which camera, in a run of several; `control camera list` lists them.", show_env_var=False),
    ] = ""
    keys: Annotated[
        Path | None, Parameter(help="Key folder (see `online-tapir keys`), if the tracker requires keys.")
    ] = None
    timeout: Annotated[float, Parameter(help="Seconds to wait for an answer.", validator=Number(gt=0))] = 5.0


Where = Annotated[Reach, Parameter(name="*")]
HERE = Reach()
OPENING_S = 60.0  # longest wait for a camera that was added
POLL_S = 0.1
FORMATS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}  # of a snapshot, by the file's suffix


@camera_app.command(name="add")
def add_camera(
    source: Annotated[str, Parameter(help="As for `online-tapir --camera`.")],
    *,
    name: Annotated[str | None, Parameter(help="What it is called. [default: made from the source]")] = None,
    set: Annotated[
        dict[str, str] | None,
        Parameter(help="Its own settings, as in a [[camera]] table: --set.points grid:8 --set.input 384."),
    ] = None,
    where: Where = HERE,
) -> None:
    """Add a camera to the run; prints its name once it is open."""
    with reached(where) as controller:
        called = controller.add_camera(source, name, **(set or {}))
        deadline = time.monotonic() + OPENING_S
        while (state := _state_of(controller, called)).state == "opening" and time.monotonic() < deadline:
            time.sleep(POLL_S)
    if state.state in ("failed", "opening"):
        raise ConfigError(f"camera {called}: {state.reason or 'is still being opened'}")
    print(called)


@camera_app.command(name="remove")
def remove_camera(
    name: Annotated[str, Parameter(help="As listed by `control camera list`.")], *, where: Where = HERE
) -> None:
    """Remove a camera from the run, with its points; the others go on."""
    with reached(where) as controller:
        controller.remove_camera(name)


@camera_app.command(name="list")
def list_cameras(*, where: Where = HERE) -> None:
    """Print the run's cameras, one per line: name, state, and the reason of a trouble."""
    with reached(where) as controller:
        for camera in controller.camera_states():
            print(camera.name, camera.state, camera.reason)


def _state_of(controller: "Controller", name: str) -> "CameraState":
    for camera in controller.camera_states():
        if camera.name == name:
            return camera
    raise ConfigError(f"camera {name} was removed before it was open")


@control_app.command
def add(
    points: Annotated[list[str], Parameter(help="Positions: 120,80 300,200.")],
    *,
    frame: Annotated[int | None, Parameter(help="The frame they are on. [default: the newest]")] = None,
    normalised: Annotated[
        bool, Parameter(help="x and y are fractions of the frame's width and height, not pixels.", negative=())
    ] = False,
    name: Annotated[list[str] | None, Parameter(help="Their names, again for each: --name 'left knee'.")] = None,
    group: Annotated[str, Parameter(help="The group that they all belong to.")] = "",
    where: Where = HERE,
) -> None:
    """Add points; prints their ids."""
    xy = _pairs(points)
    with reached(where) as controller:
        print(*controller.add(xy, frame, normalised=normalised, names=name or (), group=group).tolist())


@control_app.command
def label(
    id: Annotated[int, Parameter(help="A point id, as listed by `control list`.")],
    name: Annotated[str | None, Parameter(help="What it is called; '' for nothing.")] = None,
    *,
    group: Annotated[str | None, Parameter(help="The group it belongs to.")] = None,
    color: Annotated[str | None, Parameter(help="Its colour: '#ff8800'.")] = None,
    where: Where = HERE,
) -> None:
    """Name a point, or put it into a group."""
    if color is not None and not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
        raise ConfigError(f"{color!r} is no colour; write '#ff8800'")
    with reached(where) as controller:
        controller.label(id, name, group=group, color=None if color is None else int(color[1:], 16))


@control_app.command
def remove(
    ids: Annotated[list[int], Parameter(help="Point ids, as listed by `control list`.")], *, where: Where = HERE
) -> None:
    """Remove points."""
    with reached(where) as controller:
        controller.remove(ids)


@control_app.command
def clear(*, where: Where = HERE) -> None:
    """Remove every point."""
    with reached(where) as controller:
        print(f"{controller.clear()} points removed")


@control_app.command(name="list")
def list_(*, where: Where = HERE) -> None:
    """Print the points, one per line: id, x, y, visible or hidden, name and group."""
    with reached(where) as controller:
        points = controller.list()
    for id, (x, y), visible in zip(points.ids.tolist(), points.xy.tolist(), points.visible.tolist(), strict=True):
        label = points.labels.get(id)
        called = "" if label is None else f" {label.name}" + (f" ({label.group})" if label.group else "")
        print(f"{id} {x:.2f} {y:.2f} {'visible' if visible else 'hidden'}{called}")
    for id in points.waiting.tolist():
        print(f"{id} - - waiting for a frame")


@control_app.command
def replenish(
    switch: Literal["on", "off"],
    *,
    points: Annotated[int | None, Parameter(help="How many to keep. [default: as many as now]")] = None,
    where: Where = HERE,
) -> None:
    """Replace lost points with new ones, or stop doing so."""
    with reached(where) as controller:
        controller.replenish(switch == "on", points)


@control_app.command
def inspect(
    id: Annotated[int | Literal["off"], Parameter(help="A point id, as listed by `control list`, or off.")],
    *,
    where: Where = HERE,
) -> None:
    """Show in Rerun or the window what the model sees of one point: its heat map, correlations, refinements."""
    with reached(where) as controller:
        controller.inspect(None if id == "off" else id)


@control_app.command
def pause(*, where: Where = HERE) -> None:
    """Stop tracking and publish only heartbeats, until `resume`."""
    with reached(where) as controller:
        controller.pause()


@control_app.command
def resume(*, where: Where = HERE) -> None:
    """Continue after `pause`."""
    with reached(where) as controller:
        controller.resume()


@control_app.command
def status(*, where: Where = HERE) -> None:
    """Print the run's status as JSON."""
    with reached(where) as controller:
        print(json.dumps(controller.status(), indent=1, ensure_ascii=False))


@control_app.command
def snapshot(file: Annotated[Path, Parameter(help="The .jpg or .png to write.")], *, where: Where = HERE) -> None:
    """Save the newest frame; prints its number, which `control add --frame` takes."""
    format = FORMATS.get(file.suffix.lower())
    if format is None:
        raise ConfigError(f"a snapshot cannot be written as {file}; name a {', '.join(FORMATS)} file")
    with reached(where) as controller:
        picture = controller.snapshot(format)
    try:
        file.write_bytes(picture.image)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from error
    print(picture.frame_id)


@control_app.command(name="set")
def set_(
    *,
    heartbeat: Annotated[float | None, Parameter(help="Seconds between heartbeats, 0.1 to 60.")] = None,
    patience: Annotated[
        int | None, Parameter(help="Frames a point may be hidden before it is replaced.", validator=Number(gte=0))
    ] = None,
    where: Where = HERE,
) -> None:
    """Change options of the run; prints all of them."""
    with reached(where) as controller:
        print(json.dumps(controller.set(heartbeat_s=heartbeat, patience_frames=patience)))


@control_app.command
def record(switch: Literal["on", "off"], *, where: Where = HERE) -> None:
    """Begin a recording on the tracker's machine, in a new folder that is printed; or end it."""
    with reached(where) as controller:
        folder = controller.record(switch == "on")
    if folder:
        print(folder)


@control_app.command
def save(*, where: Where = HERE) -> None:
    """Save the points to the run's --save-state file."""
    with reached(where) as controller:
        saved = controller.save_state()
    print(f"{saved.points} points of frame {saved.frame_id} saved")


@control_app.command
def stop(*, where: Where = HERE) -> None:
    """End the run."""
    with reached(where) as controller:
        controller.stop()


@contextmanager
def reached(where: Reach) -> "Iterator[Controller]":
    from online_tapir.control.client import Controller

    timeout_ms = int(where.timeout * 1000)
    with Controller(where.address, camera=where.camera, keys=where.keys, timeout_ms=timeout_ms) as controller:
        yield controller


def _pairs(words: list[str]) -> list[tuple[float, float]]:
    """The positions in "120,80 300,200", however the shell has split it; numbers without commas are x y x y."""
    parts = re.sub(r"\s*,\s*", ",", " ".join(words)).split()
    if len(parts) % 2 == 0 and not any("," in part for part in parts):
        parts = [f"{x},{y}" for x, y in zip(parts[::2], parts[1::2], strict=True)]
    return [_pair(part) for part in parts]


def _pair(text: str) -> tuple[float, float]:
    x, _, y = text.partition(",")
    try:
        return float(x), float(y)
    except ValueError:
        raise ConfigError(f"{text!r} is not a point; write x,y as in 120,80") from None
