"""online-tapir: track points on live video and publish them to other programs.

Imports are lazy, so that a subscriber loads neither torch nor rerun nor opencv.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from online_tapir.control.client import Controller
    from online_tapir.control.protocol import ControlError
    from online_tapir.errors import OnlineTapirError
    from online_tapir.model.checkpoint import load_model
    from online_tapir.records import Frame, Label, Tracks
    from online_tapir.tracking.exported import ExportedTracker
    from online_tapir.tracking.rig import Rig
    from online_tapir.tracking.tracker import Tracker
    from online_tapir.wire.messages import Heartbeat
    from online_tapir.wire.subscriber import subscribe

__all__ = [
    "ControlError",
    "Controller",
    "ExportedTracker",
    "Frame",
    "Heartbeat",
    "Label",
    "OnlineTapirError",
    "Rig",
    "Tracker",
    "Tracks",
    "load_model",
    "subscribe",
]

_HOMES = {
    "ControlError": "online_tapir.control.protocol",
    "Controller": "online_tapir.control.client",
    "ExportedTracker": "online_tapir.tracking.exported",
    "Frame": "online_tapir.records",
    "Heartbeat": "online_tapir.wire.messages",
    "Label": "online_tapir.records",
    "OnlineTapirError": "online_tapir.errors",
    "Rig": "online_tapir.tracking.rig",
    "Tracker": "online_tapir.tracking.tracker",
    "Tracks": "online_tapir.records",
    "load_model": "online_tapir.model.checkpoint",
    "subscribe": "online_tapir.wire.subscriber",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("online-tapir")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'online_tapir' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
