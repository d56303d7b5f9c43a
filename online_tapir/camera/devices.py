"""Lists the cameras attached to this machine, by index and name. Opens none on Linux, each one briefly elsewhere."""

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2

from online_tapir.camera.hush import hush

PROBED = 8  # indices tried where the system has no list to read


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """One attached camera: what `--camera` calls it, and what the system calls it."""

    index: int
    path: str
    name: str

    def __str__(self) -> str:
        return f"{self.index} ({self.name})"


def list_cameras(*, sysfs: Path = Path("/sys/class/video4linux"), devices: Path = Path("/dev")) -> list[CameraInfo]:
    """The attached cameras in the order of their indices: from sysfs on Linux, elsewhere by trying the first eight."""
    return _from_sysfs(sysfs, devices) if sys.platform == "linux" else _by_probing()


def _from_sysfs(sysfs: Path, devices: Path) -> list[CameraInfo]:
    found = []
    for entry in sysfs.glob("video*"):
        number, device = entry.name.removeprefix("video"), devices / entry.name
        if number.isdigit() and device.exists() and not _is_metadata(entry):
            name = _text(entry / "name") or "unnamed"
            found.append(CameraInfo(int(number), str(device), name))
    return sorted(found, key=lambda camera: camera.index)


def _is_metadata(entry: Path) -> bool:
    """Whether this is a webcam's metadata node: the same device as its pictures, but an odd index and no pictures."""
    index = _text(entry / "index")
    return index.isdigit() and int(index) % 2 == 1


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _by_probing() -> list[CameraInfo]:
    hush()
    found = []
    for index in range(PROBED):
        capture = cv2.VideoCapture(index)
        if capture.isOpened():
            found.append(CameraInfo(index, str(index), capture.getBackendName()))
        capture.release()
    return found
