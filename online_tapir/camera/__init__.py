"""Where frames come from: `open_camera` opens a source by its name, `Capture` reads it in its own thread.

`SyntheticCamera` is a source made of arrays, for our tests and yours.
"""

from online_tapir.camera.awaited import Awaited
from online_tapir.camera.base import Camera
from online_tapir.camera.capture import Capture
from online_tapir.camera.devices import CameraInfo, list_cameras
from online_tapir.camera.reconnect import Health, Reconnect
from online_tapir.camera.spec import can_come_back, open_camera
from online_tapir.camera.synthetic import SyntheticCamera

__all__ = [
    "Awaited",
    "Camera",
    "CameraInfo",
    "Capture",
    "Health",
    "Reconnect",
    "SyntheticCamera",
    "can_come_back",
    "list_cameras",
    "open_camera",
]
