"""Parses `--camera` and opens the source that it names."""

import re
from functools import partial
from pathlib import Path

from online_tapir.camera.base import Camera, topic_name
from online_tapir.camera.demo import DemoCamera
from online_tapir.camera.images import SUFFIXES, open_folder, open_image
from online_tapir.camera.looped import Looped
from online_tapir.camera.opencv import open_device, open_stream, open_video, without_secrets
from online_tapir.clock import Clock, SystemClock
from online_tapir.errors import CameraError, ConfigError

MOST_DEVICES = 255  # OpenCV takes larger numbers for other things
MOST_SIDE = 16_384  # pixels of the demo, and of what is asked of a camera
SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "tcp", "udp", "srt")


def open_camera(
    spec: str,
    *,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    realtime: bool = False,
    loop: bool = False,
    name: str | None = None,
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

    size (width, height) and fps are requested of a camera and set for the demo; `description` shows the result. A
    recording keeps its size. It is read as fast as frames are taken, or with realtime at its own rate, which fps
    overrides. The demo runs at fps (default 30), or with fps=0 as fast as frames are taken. timeout_s (at least 5 s)
    limits the opening of a network stream and the wait for each of its frames.

    A recording with `loop` begins again at its end. `name` replaces the name that is made from spec.

    Raises CameraError if there is no such source or it delivers no frame, ConfigError for an invalid size, rate or
    time-out.
    """
    _check(size, fps, timeout_s, demo=_is_demo(spec))
    if name is not None and topic_name(name) != name:
        raise ConfigError(f"--name {name!r} cannot be a topic; {topic_name(name)!r} could: letters, digits and . _ : -")
    open_ = partial(_open, spec, size, fps, realtime, timeout_s, clock or SystemClock())
    camera: Camera = open_()
    if loop:
        if camera.live:
            camera.close()
            raise ConfigError(f"--loop plays a recording again and again, and {without_secrets(spec)} is a live source")
        camera = Looped(camera, open_)
    if name is not None:
        camera.name = name
    return camera


def _open(
    spec: str, size: tuple[int, int] | None, fps: float | None, realtime: bool, timeout_s: float, clock: Clock
) -> Camera:
    if not spec.strip():
        raise CameraError("--camera is empty; give an index, a file, a folder, an address or `demo`")
    if _is_demo(spec):
        return _open_demo(spec, size, 30.0 if fps is None else fps, clock)
    if spec.isascii() and spec.isdecimal():
        return open_device(_index(spec), size, fps)
    if spec.startswith("/dev/"):
        return open_device(spec, size, fps)
    if "://" in spec:
        if spec.partition("://")[0] not in SCHEMES:
            raise ConfigError(
                f"{without_secrets(spec)} cannot be read; an address begins with one of {', '.join(SCHEMES)}"
            )
        return open_stream(spec, size, fps, timeout_s)
    return _open_path(Path(spec).expanduser(), size, fps, clock if realtime else None)


def _index(spec: str) -> int:
    index = int(spec)
    if index > MOST_DEVICES:
        raise CameraError(f"there is no camera {spec}: indices end at {MOST_DEVICES}; see `online-tapir cameras`")
    return index


def can_come_back(spec: str) -> bool:
    """Whether spec names a source that may fail and be reopened: a camera or a stream, not a recording or the demo."""
    return (spec.isascii() and spec.isdecimal()) or spec.startswith("/dev/") or "://" in spec


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
    if size is not None and not (min(size) >= 16 and max(size) <= MOST_SIDE):
        raise ConfigError(f"a size of {size[0]}x{size[1]} was asked for; both sides must be 16 to {MOST_SIDE} pixels")
    if fps is not None and not (0 < fps <= 1000 or (demo and fps == 0)):
        raise ConfigError(f"{fps:g} fps was asked for; give more than 0 and at most 1000 (the demo takes 0: unpaced)")
    if not 0 < timeout_s < float("inf"):
        raise ConfigError(f"a time-out of {timeout_s:g} s was asked for; give one above 0")
