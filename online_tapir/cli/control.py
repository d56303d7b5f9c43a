"""`online-tapir control`: a live run changed and asked from the shell."""

import json
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
    from online_tapir.control.client import Controller

control_app = App(name="control", help="Change and ask a running tracker: add, remove, list, pause, snapshot, ...")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Which tracker, and how long to wait for it."""

    address: Annotated[str, Parameter(help="Where it is controlled, see `online-tapir --control`.")] = DEFAULT_ADDRESS
    keys: Annotated[
        Path | None, Parameter(help="Folder of keys (see `online-tapir keys`), where the tracker asks for them.")
    ] = None
    timeout: Annotated[float, Parameter(help="Seconds to wait for an answer.", validator=Number(gt=0))] = 5.0


Where = Annotated[Reach, Parameter(name="*")]
HERE = Reach()


@control_app.command
def add(
    points: Annotated[list[str], Parameter(help="x,y pairs: 120,80 300,200.")],
    *,
    frame: Annotated[int | None, Parameter(help="The frame they are on. [default: the newest]")] = None,
    normalised: Annotated[
        bool, Parameter(help="x and y are 0 to 1 of the frame's width and height, not pixels.", negative=())
    ] = False,
    where: Where = HERE,
) -> None:
    """Follow more points; prints their ids."""
    xy = [_pair(word) for point in points for word in point.split()]
    with _controller(where) as controller:
        print(*controller.add(xy, frame, normalised=normalised).tolist())


@control_app.command
def remove(
    ids: Annotated[list[int], Parameter(help="Points, as `control list` names them.")], *, where: Where = HERE
) -> None:
    """Forget points."""
    with _controller(where) as controller:
        controller.remove(ids)


@control_app.command
def clear(*, where: Where = HERE) -> None:
    """Forget every point."""
    with _controller(where) as controller:
        print(f"{controller.clear()} points forgotten")


@control_app.command(name="list")
def list_(*, where: Where = HERE) -> None:
    """Print the points, one to a line: id, x, y, visible or hidden."""
    with _controller(where) as controller:
        points = controller.list()
    for id, (x, y), visible in zip(points.ids.tolist(), points.xy.tolist(), points.visible.tolist(), strict=True):
        print(f"{id} {x:.2f} {y:.2f} {'visible' if visible else 'hidden'}")
    for id in points.waiting.tolist():
        print(f"{id} - - waiting for a frame")


@control_app.command
def replenish(
    switch: Literal["on", "off"],
    *,
    points: Annotated[int | None, Parameter(help="How many there shall be. [default: as many as now]")] = None,
    where: Where = HERE,
) -> None:
    """Put new points where lost ones leave, or no longer."""
    with _controller(where) as controller:
        controller.replenish(switch == "on", points)


@control_app.command
def inspect(
    id: Annotated[int | Literal["off"], Parameter(help="A point, as `control list` names it, or off.")],
    *,
    where: Where = HERE,
) -> None:
    """Show in Rerun or the window what the model sees of one point: its heat map, correlations, refinements."""
    with _controller(where) as controller:
        controller.inspect(None if id == "off" else id)


@control_app.command
def pause(*, where: Where = HERE) -> None:
    """Track and publish nothing but heartbeats, until `resume`."""
    with _controller(where) as controller:
        controller.pause()


@control_app.command
def resume(*, where: Where = HERE) -> None:
    """Go on after `pause`."""
    with _controller(where) as controller:
        controller.resume()


@control_app.command
def status(*, where: Where = HERE) -> None:
    """Print how the run is, as JSON."""
    with _controller(where) as controller:
        print(json.dumps(controller.status(), indent=1, ensure_ascii=False))


@control_app.command
def snapshot(file: Annotated[Path, Parameter(help="The .jpg or .png to write.")], *, where: Where = HERE) -> None:
    """Save the newest frame; prints its number, which `control add --frame` takes."""
    with _controller(where) as controller:
        picture = controller.snapshot("png" if file.suffix.lower() == ".png" else "jpeg")
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
    """Change options of the run; prints all that can be changed."""
    with _controller(where) as controller:
        print(json.dumps(controller.set(heartbeat_s=heartbeat, patience_frames=patience)))


@control_app.command
def save(*, where: Where = HERE) -> None:
    """Have the points written to the file that the run was started with, by --save-state."""
    with _controller(where) as controller:
        saved = controller.save_state()
    print(f"{saved.points} points of frame {saved.frame_id} saved")


@control_app.command
def stop(*, where: Where = HERE) -> None:
    """End the run."""
    with _controller(where) as controller:
        controller.stop()


@contextmanager
def _controller(where: Reach) -> "Iterator[Controller]":
    from online_tapir.control.client import Controller

    with Controller(where.address, keys=where.keys, timeout_ms=int(where.timeout * 1000)) as controller:
        yield controller


def _pair(word: str) -> tuple[float, float]:
    x, comma, y = word.partition(",")
    try:
        return float(x), float(y if comma else "none")
    except ValueError:
        raise ConfigError(f"{word!r} is no point; write x,y as in 120,80") from None
