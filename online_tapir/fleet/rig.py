"""A rig: a process with one model that tracks the cameras it was told to, and publishes on an address of its own.

Nothing of Ray here: `cluster` makes an actor of it. It opens its cameras itself, and keeps their points in the storage.
"""

import shutil
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from online_tapir.errors import ConfigError, OnlineTapirError, StateError
from online_tapir.fleet.load import Load
from online_tapir.fleet.orders import CameraReport, FleetSettings, Order, RigReport
from online_tapir.fleet.storage import Storage
from online_tapir.flow.model_thread import ModelThread
from online_tapir.launch.build import check
from online_tapir.launch.config import LiveConfig
from online_tapir.launch.streams import Streams
from online_tapir.launch.tables import joining
from online_tapir.launch.threads import set_threads
from online_tapir.launch.trackers import trackers
from online_tapir.live.roster import Member, Roster
from online_tapir.live.run import Run
from online_tapir.model.weights_store import cache_folder
from online_tapir.sinks.zmq import ZmqPublisher
from online_tapir.tracking import state_file
from online_tapir.tracking.state_file import SavedState
from online_tapir.wire.security import Access, load_keys

NOTES = 100
CLOSE_SECONDS = 20.0
REFUSED = {
    "record": "recording",
    "save_video": "video",
    "save_csv": "table",
    "mcap": "MCAP file",
    "window": "window",
}  # what a rig writes or shows nowhere: its machine may be another tomorrow


class RigRun:
    """Tracks cameras in a thread until `stop`; `sync` says which.

    `name` is of one rig on this machine alone; `host` is the machine's address, where it publishes; `threads` are the
    model's. Raises WeightsError, ConfigError or PublishError.
    """

    def __init__(self, fleet: FleetSettings, name: str, host: str, threads: int | None = None) -> None:
        self._fleet = fleet
        self._life = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._orders: dict[str, Order] = {}  # what is wanted
        self._given: dict[str, Order] = {}  # what the roster was told
        self._notes: deque[str] = deque(maxlen=NOTES)
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._storage = Storage(fleet.storage)
        self._scratch = cache_folder() / "fleets" / f"{fleet.name}-{name}"
        shutil.rmtree(self._scratch, ignore_errors=True)  # of an earlier life, which was killed
        self._scratch.mkdir(parents=True)
        set_threads(threads)
        made = trackers(joining({**fleet.settings, "camera": "0"}).model)
        keys = None if fleet.keys is None else load_keys(fleet.keys)
        self._publisher = ZmqPublisher(f"tcp://{host}:0", access=Access(keys, fleet.insecure, self._notes.append))
        self._load = Load(self._notes.append)
        self._roster = Roster(self._open, self._notes.append, stays=True)
        self._models = ModelThread()
        self._streams = Streams(made, self._models, self._load, self._stop, [self._publisher], write_state=self._write)
        self._thread = threading.Thread(target=self._go, name="rig", daemon=True)
        self._thread.start()

    def sync(self, orders: Mapping[str, Order], life: str) -> RigReport:
        """Takes and drops cameras until those of `orders` are there; tells how all of them do.

        Orders for another `life` are ignored: whoever gave them did not know yet that this process has begun anew.
        Returns at once: call it again and again. Raises the error that has ended the rig, if one has.
        """
        with self._lock:
            if self._error is not None:
                raise OnlineTapirError(f"the rig has failed: {self._error!r}")
            if life == self._life:
                self._orders = dict(orders)
                self._follow()
            notes = tuple(self._notes)
            self._notes.clear()
            return RigReport(
                self._life,
                version("online-tapir"),
                self._publisher.address,
                self._fleet.lanes,
                self._reports(),
                dict(self._orders),
                notes,
            )

    def stop(self) -> None:
        """Ends tracking, saves the points and closes everything."""
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _go(self) -> None:
        """The rig's thread: the same loop as that of a run."""
        try:
            with ExitStack() as held:
                held.enter_context(closing(self._publisher))
                held.enter_context(closing(self._models))
                held.enter_context(self._roster)
                Run([], [self._publisher, self._load], self._stop, roster=self._roster).go()
        except BaseException as error:  # told by the next `sync`
            self._error = error

    def _follow(self) -> None:
        """Drops what is not wanted any more, or in another epoch; takes what is, once its name is free."""
        held = self._roster.held
        for name, given in list(self._given.items()):
            if self._orders.get(name) != given:
                del self._given[name]
                if name in held or name in self._roster.absent:
                    with suppress(ConfigError):  # it has ended by itself, and is being closed
                        self._roster.remove(name)
        for name, order in self._orders.items():
            if name in self._given or name in held:
                continue
            self._given[name] = order
            self._load.ended.discard(name)
            self._roster.add(name, order.table)

    def _reports(self) -> dict[str, CameraReport]:
        figures, absent, held = self._load.figures(), self._roster.absent, self._roster.held
        found: dict[str, CameraReport] = {}
        for name in {*self._given, *held}:
            given = self._given.get(name)
            if given is None:
                found[name] = CameraReport(0, "leaving")
            elif name in figures:
                now = figures[name]
                found[name] = CameraReport(
                    given.epoch, now.state, "", now.fps, now.latency_ms, now.points, cost=now.cost
                )
            elif name in absent and absent[name].state == "failed":
                found[name] = CameraReport(given.epoch, "failed", absent[name].reason)
            elif name in self._load.ended:
                found[name] = CameraReport(given.epoch, "ended")
            else:
                found[name] = CameraReport(given.epoch, "opening")
        return found

    def _open(self, name: str, table: Mapping[str, Any]) -> Member:
        """Opens a camera, with the points of its last placement if there are any; from any thread."""
        with self._lock:
            epoch = self._given[name].epoch if name in self._given else 0
        config = self._configured(name, table, epoch)
        cameras = len(self._streams.names) + 1
        try:
            saved = self._saved(name, epoch)
            if saved is not None:
                output, points = replace(config.output, resume=saved), replace(config.points, points=None, mask=None)
                return self._streams.open(replace(config, output=output, points=points), cameras)
        except StateError as error:
            self._notes.append(f"{name} begins without its points: {error}")
        return self._streams.open(config, cameras)

    def _configured(self, name: str, table: Mapping[str, Any], epoch: int) -> LiveConfig:
        asked = {**self._fleet.settings, **table}
        for key, what in REFUSED.items():
            if asked.get(key) or asked.get(key.replace("_", "-")):
                raise ConfigError(f"{key} of {name}: a rig has no {what}; subscribe to the fleet, and make it there")
        config = joining({**asked, "name": name, "rerun": "off"})
        output = replace(
            config.output, save_state=self._place(name, epoch), save_state_every=self._fleet.save_every_s, resume=None
        )
        waits = config.source.wait is not False  # a camera that is away is waited for, as nobody is there to try again
        config = replace(config, source=replace(config.source, wait=waits), output=output, epoch=epoch)
        check(config)
        return config

    def _place(self, name: str, epoch: int) -> Path:
        """Where a camera's points are saved on this machine, before they are copied to the storage."""
        folder = self._scratch / quote(name, safe="")
        folder.mkdir(exist_ok=True)
        return folder / f"{epoch}.state"

    def _saved(self, name: str, epoch: int) -> Path | None:
        """A local copy of the newest points that an earlier placement saved."""
        copy = self._scratch / f"{uuid.uuid4().hex}.state"
        return None if self._storage.newest(name, epoch, copy) is None else copy

    def _write(self, path: Path, state: SavedState) -> None:
        """Saves a camera's points on this machine, then in the storage; called in the keeper's thread."""
        state_file.write(path, state)
        name = unquote(path.parent.name)
        self._storage.keep(name, int(path.stem), path)
        self._storage.tidy(name)
