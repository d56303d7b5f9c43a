"""`online-tapir fleet`: many cameras on many machines, on Ray."""

import re
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from online_tapir.cli.cameras import names_of, repeated
from online_tapir.cli.signals import stop_on_signal
from online_tapir.errors import ConfigError
from online_tapir.files import expanded
from online_tapir.wire.directory import DEFAULT_ADDRESS, Directory
from online_tapir.wire.fleet import DirectoryReader
from online_tapir.wire.security import Access, load_keys

fleet_app = App(name="fleet", help="Track many cameras on many machines: a fleet of trackers on Ray.")

DIRECTORY = DEFAULT_ADDRESS.removeprefix("tcp://")
ANSWER_MS = 5000  # a directory comes every second
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Which fleet."""

    fleet: Annotated[str, Parameter(help="Where its directory is published, HOST:PORT.")] = DIRECTORY
    keys: Annotated[
        Path | None,
        Parameter(help="Key folder (see `online-tapir keys`), if the fleet has keys: one it trusts, or its own."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpConfig:
    """How a fleet is run."""

    address: Annotated[
        str | None,
        Parameter(
            help="Join this Ray cluster, HOST:PORT, or `auto` for the one this machine belongs to; the fleet stays up "
            "when the command returns. [default: a Ray of its own on this machine, until Ctrl-C]"
        ),
    ] = None
    name: Annotated[str, Parameter(help="What the fleet is called.")] = "fleet"
    storage: Annotated[
        str | None,
        Parameter(
            help="Where points are kept for restarts: a folder or bucket (s3://...) that every machine reaches. "
            "[default: this user's data folder, on one machine]"
        ),
    ] = None
    directory: Annotated[str, Parameter(help="ZeroMQ address to publish the directory on.")] = DEFAULT_ADDRESS
    lanes: Annotated[int, Parameter(help="Most cameras of one rig.", validator=Number(gte=1, lte=256))] = 8
    rigs: Annotated[
        Literal["auto", "cpu", "gpu"],
        Parameter(
            help="Where rigs run. auto: one for each GPU of a machine, or for --rig-cpus cores where it has none."
        ),
    ] = "auto"
    rig_cpus: Annotated[int, Parameter(help="CPU cores of one rig.", validator=Number(gte=1))] = 4
    save_every: Annotated[
        float, Parameter(help="Seconds between two savings of a camera's points.", validator=Number(gte=0.1))
    ] = 2.0
    keys: Annotated[
        Path | None,
        Parameter(
            help="Folder of keys (see `online-tapir keys`), on every machine: encrypt, and admit only trusted keys."
        ),
    ] = None
    insecure: Annotated[bool, Parameter(help="Let other machines read without keys.", negative=())] = False
    metrics: Annotated[
        str | None, Parameter(help="Serve the fleet's Prometheus metrics on this port, or on HOST:PORT.")
    ] = None


There = Annotated[Reach, Parameter(name="*")]
HERE = Reach()


@fleet_app.command
def up(
    cameras: Annotated[Path, Parameter(help="TOML file of [[camera]] tables, as for `online-tapir --config`.")],
    *,
    config: Annotated[UpConfig, Parameter(name="*")] = UpConfig(),
) -> None:
    """Start a fleet, or bring one that is up to what the file says.

    Alone it runs on this machine, and shows what happens, until Ctrl-C. With --address it joins a cluster.
    """
    from online_tapir.fleet import cluster

    if NAME.fullmatch(config.name) is None:
        raise ConfigError(f"--name {config.name!r}: letters, digits, dots, dashes and underscores, 40 at most")
    settings, tables = read_cameras(cameras)
    fleet = _settings(config, settings)
    layout = cluster.Layout(config.rigs, config.rig_cpus, config.directory, config.metrics)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with stop_on_signal() as stop:
        place = cluster.local() if config.address is None else cluster.joined(config.address)
        with place:
            placer = cluster.start(fleet, layout)
            try:
                cluster.asked(placer.want, tables)
                where = cluster.asked(placer.address).removeprefix("tcp://")
                console.print(f"fleet {config.name}: {len(tables)} cameras, directory at {where}")
                if config.address is None:
                    show(directories(where, config.keys, stop, itself=True), console)
            finally:
                if config.address is None:
                    cluster.down(placer)


@fleet_app.command
def status(*, reach: There = HERE) -> None:
    """Show the cameras and rigs of a fleet, and what happened last."""
    Console(highlight=False).print(picture(directory_of(reach)))


@fleet_app.command
def add(
    name: Annotated[str, Parameter(help="What the camera is called.")],
    source: Annotated[str, Parameter(help="As for `online-tapir --camera`.")],
    *,
    set: Annotated[
        dict[str, str] | None,
        Parameter(help="Its own settings, as in a [[camera]] table: --set.points grid:8 --set.input 384."),
    ] = None,
    reach: There = HERE,
) -> None:
    """Add a camera; a rig takes it when one has a free lane."""
    with placer(reach) as ask:
        ask("add", name, {"camera": source, **(set or {})})


@fleet_app.command
def remove(name: Annotated[str, Parameter(help="As `fleet status` lists it.")], *, reach: There = HERE) -> None:
    """Remove a camera, with its points."""
    with placer(reach) as ask:
        ask("remove", name)


@fleet_app.command
def move(
    name: Annotated[str, Parameter(help="The camera.")],
    rig: Annotated[str, Parameter(help="The rig that it goes to.")],
    *,
    reach: There = HERE,
) -> None:
    """Give a camera to another rig; its points go with it."""
    with placer(reach) as ask:
        ask("move", name, rig)


@fleet_app.command
def drain(
    place: Annotated[str, Parameter(help="A rig, or the address of a machine with all its rigs.")],
    *,
    back: Annotated[bool, Parameter(help="Take it into use again.", negative=())] = False,
    reach: There = HERE,
) -> None:
    """Give all cameras of a rig or a machine to others, and no more to it: before it is switched off."""
    with placer(reach) as ask:
        for rig in ask("drain", place, back):
            print(f"{rig} {'takes cameras again' if back else 'is being emptied; `fleet status` shows when it is'}")


@fleet_app.command
def down(*, reach: There = HERE) -> None:
    """End a fleet: its points are saved, nothing of it stays behind in the cluster."""
    from online_tapir.fleet import cluster

    now = directory_of(reach)
    with cluster.joined(now.ray):
        cluster.down(cluster.placer_of(now.fleet))


@fleet_app.command
def forward(
    publish: Annotated[str, Parameter(help="ZeroMQ address to publish on.")] = "tcp://127.0.0.1:5555",
    *,
    publish_keys: Annotated[
        Path | None, Parameter(help="Key folder of this address: encrypt, and admit only the keys that it trusts.")
    ] = None,
    insecure: Annotated[bool, Parameter(help="Let other machines read without keys.", negative=())] = False,
    reach: There = HERE,
) -> None:
    """Publish all cameras of a fleet on one address, for clients in other languages; until Ctrl-C."""
    from online_tapir.fleet.forwarder import Forwarder

    report = partial(Console(stderr=True, highlight=False, soft_wrap=True).print, markup=False)
    _, itself = _found(reach)
    access = Access(None if publish_keys is None else load_keys(publish_keys), insecure, report)
    with (
        stop_on_signal() as stop,
        closing(Forwarder(reach.fleet, publish, access=access, keys=reach.keys, itself=itself)) as forwarder,
    ):
        report(f"publishing the fleet at {reach.fleet} on {forwarder.address}")
        forwarder.go(stop)


@fleet_app.command
def view(
    *,
    rerun: Annotated[str, Parameter(help="spawn, connect=URL or save=FILE.rrd.")] = "spawn",
    seconds: Annotated[float | None, Parameter(help="Stop after so many seconds.", validator=Number(gt=0))] = None,
    reach: There = HERE,
) -> None:
    """Show a fleet in the Rerun viewer: curves of cameras and rigs, who is where, what happened."""
    import rerun as rr

    from online_tapir.fleet import view as fleet_view
    from online_tapir.sinks.rerun.mode import parse_rerun_mode

    mode = parse_rerun_mode(rerun)
    recording = rr.RecordingStream("online-tapir fleet")
    if mode.way == "spawn":
        recording.spawn(default_blueprint=fleet_view.layout())
    elif mode.way == "connect":
        recording.connect_grpc(mode.target, default_blueprint=fleet_view.layout())
    elif mode.way == "save":
        recording.save(mode.target, default_blueprint=fleet_view.layout())
    else:
        raise ConfigError(f"--rerun {rerun}: a fleet is shown with spawn, connect=URL or save=FILE.rrd")
    with stop_on_signal() as stop:
        _, itself = _found(reach)
        fleet_view.watch(directories(reach.fleet, reach.keys, stop, seconds, itself=itself), recording)
    recording.flush()


def read_cameras(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings of a file that hold for all cameras, and its [[camera]] tables by name. Raises ConfigError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    asked = content.pop("camera", [])
    if not isinstance(asked, list) or not all(isinstance(table, dict) for table in asked):
        raise ConfigError(f"{path}: cameras are [[camera]] tables, with two brackets")
    for table in asked:
        if "source" in table:
            table["camera"] = table.pop("source")
    alike = repeated([str(table.get("camera", "")) for table in asked if not table.get("name")])
    if alike is not None:
        raise ConfigError(f"{path}: two cameras would be called {alike!r}; give each its own name")
    names = names_of([(str(table.pop("name", "")), str(table.get("camera", ""))) for table in asked])
    tables: dict[str, dict[str, Any]] = {}
    for name, table in zip(names, asked, strict=True):
        if name in tables:
            raise ConfigError(f"{path}: two cameras are called {name!r}; give each its own name")
        tables[name] = table
    return content, tables


def directory_of(reach: Reach) -> Directory:
    """The newest directory of a fleet. Raises ConfigError if none comes."""
    return _found(reach)[0]


def _found(reach: Reach) -> tuple[Directory, bool]:
    """The newest directory of a fleet, and whether the key folder is the fleet's own. Raises ConfigError."""
    for itself in _sides(reach.keys):
        with DirectoryReader(reach.fleet, timeout_ms=ANSWER_MS, keys=reach.keys, itself=itself) as reader:
            try:
                return next(reader), itself
            except TimeoutError as error:
                silence = error
    hint = "if it has keys, give --keys" if reach.keys is None else "are these keys trusted there?"
    raise ConfigError(
        f"{silence} `online-tapir fleet up` starts one; --fleet HOST:PORT names another; {hint}"
    ) from silence


def _sides(keys: Path | None) -> list[bool]:
    """Whether a key folder may be the fleet's own: that of a client has one peer, and that of a fleet may, too."""
    if keys is None:
        return [False]
    return [False, True] if len(load_keys(keys).allowed()) == 1 else [True]


@contextmanager
def placer(reach: Reach) -> Iterator[Any]:
    """Asks the fleet's placer: `ask(method, ...)`. Raises ConfigError if it cannot be reached, or refuses."""
    from online_tapir.fleet import cluster

    now = directory_of(reach)
    with cluster.joined(now.ray):
        actor = cluster.placer_of(now.fleet)
        yield lambda method, *arguments: cluster.asked(getattr(actor, method), *arguments)


def directories(
    fleet: str, keys: Path | None, stop: threading.Event, seconds: float | None = None, *, itself: bool = False
) -> Iterator[Directory]:
    """The directories of a fleet as they come, until `stop` is set."""
    end = None if seconds is None else time.monotonic() + seconds
    with DirectoryReader(fleet, timeout_ms=200, keys=keys, itself=itself) as reader:
        while not stop.is_set() and (end is None or time.monotonic() < end):
            try:
                yield next(reader)
            except TimeoutError:
                continue


def show(directories: Iterator[Directory], console: Console) -> None:
    """Shows a fleet as its directories come: a table on a terminal, with notes above it; else the notes alone."""
    from online_tapir.fleet.notes import new_notes

    told: tuple[str, ...] = ()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for now in directories:
            for note in new_notes(told, now.notes):
                console.print(note, markup=False)
            told = now.notes
            if sys.stderr.isatty():
                live.update(picture(now, notes=0), refresh=True)


def picture(now: Directory, notes: int = 8) -> Group:
    """Tables of the cameras and the rigs of a fleet, and its last notes."""
    nodes = {rig.name: rig.node for rig in now.rigs}
    cameras = Table("camera", "rig", "machine", "state", "fps", "ms", "points", "restarts", box=box.SIMPLE_HEAD)
    for column in cameras.columns[:3]:
        column.no_wrap = True
    for one in now.cameras:
        figures: Mapping[str, str] = {
            "fps": f"{one.fps:.1f}" if one.fps else "",
            "ms": f"{one.latency_ms:.0f}" if one.fps else "",
        }
        state = f"{one.state}: {one.reason}" if one.reason else one.state
        told = (one.name, one.rig, nodes.get(one.rig, ""), state, *figures.values(), str(one.points), str(one.restarts))
        cameras.add_row(*map(Text, told))  # not as a string: a name may look like rich's markup
    rigs = Table("rig", "machine", "state", "cameras", "load", "restarts", box=box.SIMPLE_HEAD)
    for rig in now.rigs:
        state = f"{rig.state}: {rig.reason}" if rig.reason else rig.state
        told = (rig.name, rig.node, state, f"{rig.taken}/{rig.lanes}", f"{rig.load:.2f}", str(rig.restarts))
        rigs.add_row(*map(Text, told))
    last = now.notes[-notes:] if notes else ()
    return Group(cameras, rigs, f"{now.moves} moves", *map(Text, last))


def _settings(config: UpConfig, settings: Mapping[str, Any]) -> Any:
    """What all rigs have in common. Raises ConfigError where the machines of a cluster could not share the storage."""
    import platformdirs

    from online_tapir.fleet.orders import FleetSettings
    from online_tapir.launch.tables import joining

    joining({**settings, "camera": "0"})
    storage = config.storage
    if storage is None:
        if config.address is not None:
            raise ConfigError("a fleet in a cluster needs --storage: a folder or bucket that every machine reaches")
        storage = str(Path(platformdirs.user_data_dir("online-tapir", appauthor=False)) / "fleets" / config.name)
    return FleetSettings(
        config.name,
        storage,
        settings,
        config.lanes,
        config.save_every,
        None if config.keys is None else str(expanded(config.keys).resolve()),
        config.insecure,
    )
