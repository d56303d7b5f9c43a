"""The placer of a fleet: keeps what is wanted, gives cameras to rigs, and publishes who has which.

It compares what should be with what the rigs report, again and again, and asks for the difference; so whatever is
lost - a rig, an answer, the placer itself - the next round begins from what is there. A camera is only given to a rig
when no other that can be reached has it still; each time its epoch grows, and is in the storage before the rig hears of
it. Nothing of Ray here: `Rigs` is what `cluster` makes of it.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

from online_tapir.errors import ConfigError, StateError
from online_tapir.fleet.orders import CameraReport, FleetSettings, Order, RigReport
from online_tapir.fleet.placement import Decision, Placement, RigRoom
from online_tapir.fleet.storage import Storage
from online_tapir.launch.tables import joining
from online_tapir.wire.directory import CameraEntry, Directory, RigEntry

AWAY_S = 3.0  # how long a rig may not answer before its cameras go to others that have a free lane
LEAVE_S = 15.0  # how long a camera's old rig may take to close it, before the new one is given it anyway
GATHER_S = 20.0  # how long a placer that has just begun waits for all rigs to tell what they have
RETRY_S = (5.0, 300.0)  # a camera that failed is tried again after the first, then twice as long, up to the last
NOTES = 50


@dataclass(frozen=True, slots=True)
class RigState:
    """A rig as `Rigs` sees it."""

    node: str  # address of its machine
    report: RigReport | None  # the last; None before the first
    away_s: float | None = None  # for how long it has not answered; None: it does
    gone: bool = False  # its machine is lost: it will not come back


class Rigs(Protocol):
    """The rigs that there are, by name, and a way to ask them."""

    def look(self) -> Mapping[str, RigState]:
        """Who is there now. Does not wait."""

    def order(self, rig: str, orders: Mapping[str, Order]) -> None:
        """Sends a rig all that it should have. Does not wait."""


@dataclass(slots=True)
class _Camera:
    """A camera that there should be."""

    table: Mapping[str, Any]
    epoch: int = 0
    ordered: str = ""  # the rig whose order this epoch is; "": none
    life: str = ""  # of that rig when it was ordered
    leaving_since_s: float | None = None  # since when another rig should let go of it
    restarts: int = 0
    failures: int = 0
    retry_s: float | None = None  # when it is tried again
    ended: bool = False
    last: CameraReport | None = None


@dataclass(slots=True)
class _Rig:
    """What the placer remembers of a rig."""

    life: str = ""
    restarts: int = 0
    draining: bool = False
    refusal: str = ""
    heard: RigReport | None = None  # the last whose notes were told
    orders: dict[str, Order] = field(default_factory=dict)


class Placer:
    """The wanted cameras of a fleet and where they are. `tick` does a round; call it a few times a second.

    Continues with what the storage has of an earlier placer. Not thread-safe.
    """

    def __init__(
        self,
        fleet: FleetSettings,
        rigs: Rigs,
        storage: Storage,
        *,
        version: str,
        ray: str = "",
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fleet = fleet
        self._rigs = rigs
        self._storage = storage
        self._version = version
        self._ray = ray
        self._monotonic_s = monotonic_s
        self._placement = Placement()
        self._cameras: dict[str, _Camera] = {}
        self._known: dict[str, _Rig] = {}
        self._seen: Mapping[str, RigState] = {}
        self._notes: deque[str] = deque(maxlen=NOTES)
        self._unsaved = False
        self._trouble = ""  # with the storage, as last told
        self._began_s = monotonic_s()
        self._resume()

    def want(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """These cameras there should be, and no others. Raises ConfigError for settings that do not exist."""
        for name, table in tables.items():
            _check(name, {**self.fleet.settings, **table})
        for name in set(self._cameras) - set(tables):
            self.remove(name)
        for name, table in tables.items():
            known = self._cameras.get(name)
            if known is None:
                self._cameras[name] = _Camera(dict(table))
            elif dict(known.table) != dict(table):
                known.table, known.ordered, known.ended = dict(table), "", False
        self._save()

    def add(self, name: str, table: Mapping[str, Any]) -> None:
        """Raises ConfigError for a name that is taken, or settings that do not exist."""
        if name in self._cameras:
            raise ConfigError(f"there is a camera {name!r} already; give another name")
        _check(name, {**self.fleet.settings, **table})
        self._cameras[name] = _Camera(dict(table))
        self._save()

    def remove(self, name: str) -> None:
        """Raises ConfigError if there is no such camera. Its saved points are removed, too."""
        self._camera(name)
        del self._cameras[name]
        try:
            self._storage.tidy(name, kept=0)
        except StateError as error:
            self.note(str(error))
        self._save()

    def move(self, name: str, rig: str) -> None:
        """Gives a camera to another rig. Raises ConfigError: no such camera or rig, or no lane is free there."""
        self._camera(name)
        state = self._rig(rig)
        there = sum(home.rig == rig for other, home in self._placement.homes.items() if other != name)
        lanes = 0 if state.report is None else state.report.lanes
        if state.report is None or state.away_s is not None or self._known[rig].refusal:
            raise ConfigError(f"{rig} is {self._state(rig)}; `fleet status` lists the rigs that are up")
        if there >= lanes:
            raise ConfigError(f"all {lanes} lanes of {rig} are taken; move or remove one of its cameras first")
        self._tell(self._placement.move(name, rig, self._monotonic_s()))

    def drain(self, place: str, *, back: bool = False) -> list[str]:
        """Gives the cameras of a rig, or of all rigs of a node, to others, and no more to it; returns the rigs.

        `back` takes it into use again. Raises ConfigError if there is none of that name.
        """
        found = [rig for rig, state in self._seen.items() if place in (rig, state.node)]
        if not found:
            there = ", ".join(sorted({*self._seen, *(state.node for state in self._seen.values())})) or "none yet"
            raise ConfigError(f"no rig or node is called {place!r}; there are {there}")
        for rig in found:
            self._known.setdefault(rig, _Rig()).draining = not back
        self._save()
        return found

    def tick(self) -> Directory:
        """A round: looks at the rigs, decides, orders; returns the directory to publish."""
        now_s = self._monotonic_s()
        self._seen = self._rigs.look()
        self._remember(now_s)
        if not self._gathers(now_s):
            wanted = {name for name, camera in self._cameras.items() if not camera.ended}
            for decision in self._placement.decide(now_s, wanted, self._rooms()):
                self._tell(decision)
            self._give(now_s)
        if self._unsaved:
            self._save()
        for rig, state in self._seen.items():
            if not state.gone:
                self._rigs.order(rig, self._known[rig].orders)
        return self.directory()

    def directory(self) -> Directory:
        """Who has which camera now."""
        return Directory(
            self.fleet.name,
            self._version,
            self._ray,
            tuple(self._camera_entry(name, camera) for name, camera in sorted(self._cameras.items())),
            tuple(self._rig_entry(rig, state) for rig, state in sorted(self._seen.items())),
            self._placement.moves,
            tuple(self._notes),
        )

    def _remember(self, now_s: float) -> None:
        """Takes in what the rigs report: new ones, restarts, cameras that came, ended or failed."""
        for rig, state in self._seen.items():
            known = self._known.setdefault(rig, _Rig())
            report = state.report
            if report is None:
                continue
            if known.life not in ("", report.life):
                known.restarts += 1
                self.note(f"{rig} was restarted")
            if known.life != report.life:
                self._adopt(rig, known, report, now_s)
                known.life = report.life
            self._refuse(rig, known, report)
            if report is not known.heard:  # a rig that is slow or away has told its last one already
                known.heard = report
                for note in report.notes:
                    self.note(f"{rig}: {note}")
        for name, camera in self._cameras.items():
            self._hear(name, camera, now_s)
        for rig in set(self._known) - set(self._seen):
            del self._known[rig]

    def _adopt(self, rig: str, known: _Rig, report: RigReport, now_s: float) -> None:
        """A rig that an earlier placer had given cameras: they stay, if they are wanted and nobody else has them."""
        for name, order in report.orders.items():
            camera = self._cameras.get(name)
            if camera is None and not self._trouble:
                continue  # the storage was read, and it is not wanted: the rig will let go of it
            if camera is None:  # what was wanted could not be read
                camera = self._cameras[name] = _Camera(order.table)
            if order.epoch >= camera.epoch:
                camera.epoch, camera.ordered, camera.life = order.epoch, rig, report.life
                known.orders[name] = order
                self._placement.adopt(name, rig, now_s)

    def _refuse(self, rig: str, known: _Rig, report: RigReport) -> None:
        if report.version != self._version and not known.refusal:
            known.refusal = f"it has online-tapir {report.version}, the fleet {self._version}; install that there"
            self.note(f"{rig} on {self._seen[rig].node} is refused: {known.refusal}")

    def _hear(self, name: str, camera: _Camera, now_s: float) -> None:
        """What the camera's own rig tells of it."""
        state = self._seen.get(camera.ordered)
        report = None if state is None or state.report is None else state.report.cameras.get(name)
        if report is None or report.epoch != camera.epoch:
            return
        camera.last = report
        if report.state == "ended":
            camera.ended = True
        elif report.state == "failed" and camera.retry_s is None:
            camera.retry_s = now_s + min(RETRY_S[0] * 2**camera.failures, RETRY_S[1])
            camera.failures += 1
            self.note(f"{name} on {camera.ordered}: {report.reason}")
        elif report.state not in ("failed", "opening", "leaving"):
            camera.failures, camera.retry_s = 0, None

    def _gathers(self, now_s: float) -> bool:
        """Whether this placer has just begun, and not all rigs have told yet what they have, or that they are up."""
        silent = any(state.report is None and not state.gone for state in self._seen.values())
        return now_s - self._began_s < GATHER_S and (silent or not self._seen)

    def _rooms(self) -> dict[str, RigRoom]:
        """The rigs that may have cameras.

        A rig that is away gets no new cameras: it counts with as many lanes as it has cameras. After a while these go
        to others as far as there is room, since opening a camera takes less time than starting a rig; the rest wait for
        its restart.
        """
        rooms = {}
        for rig, state in self._seen.items():
            known, report = self._known[rig], state.report
            if state.gone or report is None or known.refusal:
                continue
            costs = {name: one.cost for name, one in report.cameras.items() if one.cost > 0}
            held = sum(home.rig == rig for home in self._placement.homes.values())
            away = state.away_s is not None
            leave = known.draining if state.away_s is None else state.away_s > AWAY_S
            rooms[rig] = RigRoom(held if away else report.lanes, costs, draining=leave)
        return rooms

    def _give(self, now_s: float) -> None:
        """Orders each camera from its rig once nobody else has it; a new order is a new epoch."""
        for name, camera in self._cameras.items():
            home = self._placement.homes.get(name)
            rig = "" if home is None or camera.ended else home.rig
            known = self._known.get(rig)
            if known is None or not known.life:
                continue
            retries = camera.retry_s is not None and now_s >= camera.retry_s
            has = camera.ordered == rig and camera.life == known.life and name in known.orders
            if has and not retries:
                continue
            if self._held_elsewhere(name, rig):
                camera.leaving_since_s = camera.leaving_since_s or now_s
                if now_s - camera.leaving_since_s < LEAVE_S:
                    continue
                self.note(f"{name} is given to {rig}, although its rig before has not let go of it")
            self._order(name, camera, rig, known)
        wanted = {name: camera.ordered for name, camera in self._cameras.items() if not camera.ended}
        for rig, known in self._known.items():
            homes = self._placement.homes
            known.orders = {
                name: order
                for name, order in known.orders.items()
                if wanted.get(name) == rig and name in homes and homes[name].rig == rig
            }

    def _order(self, name: str, camera: _Camera, rig: str, known: _Rig) -> None:
        restarted = camera.life != "" and (camera.ordered != rig or camera.life != known.life)
        left = camera.ordered != rig and camera.ordered in self._seen and self._seen[camera.ordered].away_s is None
        camera.restarts += restarted and not left
        camera.epoch += 1
        camera.ordered, camera.life = rig, known.life
        camera.leaving_since_s = camera.retry_s = camera.last = None
        known.orders = {**known.orders, name: Order(camera.epoch, camera.table)}
        self._unsaved = True

    def _held_elsewhere(self, name: str, rig: str) -> bool:
        """Whether another rig that answers still has the camera."""
        return any(
            name in state.report.cameras
            for other, state in self._seen.items()
            if other != rig and state.report is not None and state.away_s is None and not state.gone
        )

    def _camera_entry(self, name: str, camera: _Camera) -> CameraEntry:
        home = self._placement.homes.get(name)
        if home is None:
            ended = CameraEntry(name, epoch=camera.epoch, state="ended", restarts=camera.restarts)
            why = self._placement.waiting.get(name, "")
            return ended if camera.ended else replace(ended, state="waiting", reason=why)
        state, last = self._seen.get(camera.ordered), camera.last
        report = None if state is None else state.report
        entry = CameraEntry(
            name,
            home.rig,
            "" if report is None else report.address,
            camera.epoch,
            "opening",
            restarts=camera.restarts,
        )
        if state is None or state.away_s is not None:
            return replace(entry, state="waiting", reason=f"{home.rig} is being restarted")
        if last is None:
            return entry
        return replace(
            entry,
            state=last.state,
            reason=last.reason,
            fps=float(last.fps),
            latency_ms=float(last.latency_ms),
            points=last.points,
        )

    def _rig_entry(self, rig: str, state: RigState) -> RigEntry:
        report, known = state.report, self._known[rig]
        return RigEntry(
            rig,
            state.node,
            self._state(rig),
            known.refusal,
            0 if report is None else report.lanes,
            sum(home.rig == rig for home in self._placement.homes.values()),
            0.0 if report is None else float(sum(one.cost for one in report.cameras.values())),
            known.restarts,
        )

    def _state(self, rig: str) -> str:
        state, known = self._seen[rig], self._known[rig]
        if known.refusal:
            return "refused"
        if state.gone or (state.away_s is not None and state.report is not None):
            return "down"
        if state.report is None:
            return "starting"
        return "draining" if known.draining else "up"

    def _camera(self, name: str) -> _Camera:
        if name not in self._cameras:
            there = ", ".join(sorted(self._cameras)[:20]) or "none"
            raise ConfigError(f"no camera is called {name!r}; there are {there}")
        return self._cameras[name]

    def _rig(self, rig: str) -> RigState:
        if rig not in self._seen:
            raise ConfigError(f"no rig is called {rig!r}; there are {', '.join(sorted(self._seen)) or 'none yet'}")
        return self._seen[rig]

    def _tell(self, decision: Decision) -> None:
        if decision.before:
            self.note(f"{decision.camera}: {decision.before} -> {decision.rig} ({decision.why})")

    def note(self, text: str) -> None:
        """Tells people something, in the directory."""
        self._notes.append(text)

    def _resume(self) -> None:
        """Continues with what an earlier placer wanted; without the storage, with what the rigs have."""
        try:
            saved = self._storage.read_fleet()
        except StateError as error:
            self._trouble = str(error)
            self.note(f"{error}; this fleet goes on with the cameras that its rigs have")
            return
        for name, one in saved.get("cameras", {}).items():
            self._cameras[name] = _Camera(one["table"], epoch=one["epoch"], ended=one.get("ended", False))
        for rig in saved.get("draining", []):
            self._known[rig] = _Rig(draining=True)

    def _save(self) -> None:
        """Before the rigs hear of it; without the storage the fleet goes on, and says so."""
        content = {
            "fleet": self.fleet.name,
            "cameras": {
                name: {"table": dict(camera.table), "epoch": camera.epoch, "ended": camera.ended}
                for name, camera in self._cameras.items()
            },
            "draining": sorted(rig for rig, known in self._known.items() if known.draining),
        }
        try:
            self._storage.write_fleet(content)
        except StateError as error:
            if str(error) != self._trouble:
                self.note(f"{error}; tracking goes on, and a restart of the whole fleet would not know of this change")
            self._trouble = str(error)
            return
        self._trouble, self._unsaved = "", False


def _check(name: str, table: Mapping[str, Any]) -> None:
    """Raises ConfigError for a camera without a source, or settings that do not exist."""
    if not isinstance(table.get("camera"), str):
        raise ConfigError(f"camera {name!r} names no source; give it, for example source = '/dev/video0'")
    settings = {key: value for key, value in table.items() if key != "camera"}
    refusal = _refusal(json.dumps(settings, sort_keys=True, default=str))
    if refusal:
        raise ConfigError(f"camera {name!r}: {refusal}")


@lru_cache(maxsize=256)
def _refusal(settings: str) -> str:
    """Why no camera can have these settings, "" if one can; a thousand cameras share a few."""
    try:
        joining({**json.loads(settings), "camera": "0"})
    except ConfigError as error:
        return str(error)
    return ""
