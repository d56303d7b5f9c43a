"""What the placer asks of a rig, and what a rig answers. Both are small: they travel through Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What every rig of a fleet has in common."""

    name: str
    storage: str  # address of a folder or a bucket
    settings: Mapping[str, Any] = field(default_factory=dict)  # of all cameras, as in the file outside of its tables
    lanes: int = 8  # cameras that a rig may have
    save_every_s: float = 2.0
    keys: str | None = None  # folder of keys, on every machine
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """A camera that a rig should have."""

    epoch: int
    table: Mapping[str, Any]  # its settings, as in a [[camera]] table


@dataclass(frozen=True, slots=True)
class CameraReport:
    """A camera that a rig has, or was asked to have."""

    epoch: int
    state: str  # of `CameraEntry`
    reason: str = ""
    fps: float = 0.0
    latency_ms: float = 0.0
    points: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class RigReport:
    """All that a rig tells. Another `life` means that its process was started again and has forgotten everything."""

    life: str
    version: str  # of online-tapir
    address: str  # where it publishes
    lanes: int
    cameras: Mapping[str, CameraReport] = field(default_factory=dict)
    orders: Mapping[str, Order] = field(default_factory=dict)  # that it goes by
    notes: tuple[str, ...] = ()  # since the last report
