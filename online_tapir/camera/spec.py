"""What `--camera` means: from what a person writes to the source that it names."""

import re
from pathlib import Path

from online_tapir.camera.base import Camera
from online_tapir.camera.demo import DemoCamera
from online_tapir.camera.images import SUFFIXES, open_folder, open_image
from online_tapir.camera.opencv import open_device, open_stream, open_video, without_secrets
from online_tapir.clock import Clock, SystemClock
from online_tapir.errors import CameraError, ConfigError

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "tcp", "udp", "srt")


def open_camera(
    spec: str,
    *,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    realtime: bool = False,
    timeout_s: float = 5.0,
    clock: Clock | None = None,
) -> Camera:
    """Open what spec names: a camera, a stream, a video or a folder of images, or the rendered demo.

    | spec | is | drops |
    | --- | --- | --- |
    | `0`, `/dev/video0` | a camera of this machine | the oldest |
    | `rtsp://`, `http://`, `tcp://`, `udp://`, ... | a network stream | the oldest |
    | `clip.mp4`, a folder of jpg, png, bmp, tiff, webp | a recording | nothing |
    | `demo`, `demo:7` | the rendered scene, with a seed | the oldest; nothing with fps=0 |

    size (width, height) and fps are asked of a camera, and given by the demo; `description` says what came of it. A
    recording keeps its size. It is read as fast as it is taken, or with realtime at its own rate, for which fps stands
    in. The demo runs at fps (30), or with fps=0 as fast as it is taken. A network stream may take timeout_s to open,
    and to give each of its frames (5 s at least).

    Raises CameraError when there is no such source or it gives no frame, ConfigError for a size, rate or time-out that
    cannot be.
    """
    _check(size, fps, timeout_s, demo=_is_demo(spec))
    clock = clock or SystemClock()
    if _is_demo(spec):
        return _open_demo(spec, size, 30.0 if fps is None else fps, clock)
    if spec.isdecimal():
        return open_device(int(spec), size, fps)
    if spec.startswith("/dev/"):
        return open_device(spec, size, fps)
    if "://" in spec:
        if spec.partition("://")[0] not in SCHEMES:
            raise CameraError(
                f"{without_secrets(spec)} cannot be read; an address begins with one of {', '.join(SCHEMES)}"
            )
        return open_stream(spec, size, fps, timeout_s)
    return _open_path(Path(spec).expanduser(), size, fps, clock if realtime else None)


def can_come_back(spec: str) -> bool:
    """Whether spec names what may fail and be opened again: a camera or a network stream, no recording and no demo."""
    return spec.isdecimal() or spec.startswith("/dev/") or "://" in spec


def _open_path(path: Path, size: tuple[int, int] | None, fps: float | None, pace_by: Clock | None) -> Camera:
    if path.is_dir():
        return open_folder(path, fps, pace_by)
    if not path.exists():
        raise CameraError(
            f"there is no file {path}; give a video, a folder of images, a camera's index, an address or `demo` "
            f"(`online-tapir cameras` lists the cameras)"
        )
    if path.suffix.lower() in SUFFIXES:
        return open_image(path, fps, pace_by)
    return open_video(path, size, fps, pace_by)


def _is_demo(spec: str) -> bool:
    return spec == "demo" or spec.startswith("demo:")


def _open_demo(spec: str, size: tuple[int, int] | None, fps: float, clock: Clock) -> DemoCamera:
    seed = spec.partition(":")[2] or "0"
    if not re.fullmatch(r"\d{1,9}", seed, re.ASCII):
        raise CameraError(f"the demo's seed is a whole number, not {seed!r}; write demo or demo:7")
    width, height = size or (640, 480)
    return DemoCamera(width, height, seed=int(seed), fps=fps, clock=clock)


def _check(size: tuple[int, int] | None, fps: float | None, timeout_s: float, *, demo: bool) -> None:
    if size is not None and min(size) < 16:
        raise ConfigError(f"a size of {size[0]}x{size[1]} was asked for; both sides are at least 16 pixels")
    if fps is not None and not (0 < fps <= 1000 or (demo and fps == 0)):
        raise ConfigError(f"{fps:g} fps was asked for; a rate is above 0 and at most 1000 (the demo takes 0: unpaced)")
    if not 0 < timeout_s < float("inf"):
        raise ConfigError(f"a time-out of {timeout_s:g} s was asked for; give one above 0")
