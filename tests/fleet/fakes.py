"""A fleet without Ray: rigs that do what they are told, on a clock that is moved by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from online_tapir.fleet.orders import CameraReport, Order, RigReport
from online_tapir.fleet.placer import RigState

VERSION = "1.0"


@dataclass
class FakeRig:
    """A rig that has each camera a tick after it was told to, and lets go of it as fast, unless it `clings`."""

    name: str
    node: str = "10.0.0.1"
    lanes: int = 4
    version: str = VERSION
    cost: float = 0.1
    life: int = 1
    up: bool = True
    away_s: float | None = None
    gone: bool = False
    clings: bool = False
    orders: dict[str, Order] = field(default_factory=dict)
    held: dict[str, Order] = field(default_factory=dict)
    failing: dict[str, str] = field(default_factory=dict)  # cameras that fail here, and why
    ended: set[str] = field(default_factory=set)

    def die(self) -> None:
        """Its process is killed and started again: it has forgotten everything."""
        self.life += 1
        self.orders, self.held = {}, {}

    def tick(self) -> None:
        if not self.clings:
            self.held = {name: order for name, order in self.held.items() if self.orders.get(name) == order}
        for name, order in self.orders.items():
            self.held.setdefault(name, order)

    def report(self) -> RigReport:
        cameras = {}
        for name, order in self.held.items():
            if name not in self.orders:
                cameras[name] = CameraReport(0, "leaving")
            elif name in self.failing:
                cameras[name] = CameraReport(order.epoch, "failed", self.failing[name])
            elif name in self.ended:
                cameras[name] = CameraReport(order.epoch, "ended")
            else:
                cameras[name] = CameraReport(order.epoch, "streaming", "", 30.0, 20.0, 16, self.cost)
        return RigReport(
            f"{self.name} {self.life}", self.version, f"tcp://{self.node}:{self.life}", self.lanes, cameras, self.orders
        )


class FakeRigs:
    """All of them, as the placer sees them."""

    def __init__(self, *rigs: FakeRig) -> None:
        self.rigs = {rig.name: rig for rig in rigs}
        self._told = {rig.name: rig.life for rig in rigs}  # the life that the placer knew when it last looked

    def look(self) -> Mapping[str, RigState]:
        for rig in self.rigs.values():
            rig.tick()
            self._told[rig.name] = rig.life
        return {
            name: RigState(rig.node, rig.report() if rig.up else None, rig.away_s, rig.gone)
            for name, rig in self.rigs.items()
        }

    def order(self, rig: str, orders: Mapping[str, Order]) -> None:
        one = self.rigs[rig]
        if one.up and one.away_s is None and self._told[rig] == one.life:
            one.orders = dict(orders)
