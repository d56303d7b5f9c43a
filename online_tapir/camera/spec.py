"""Parses `--camera` and opens the source that it names."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from online_tapir.camera.base import Camera, topic_name, warn
from online_tapir.camera.demo import DemoCamera
from online_tapir.camera.images import SUFFIXES, open_folder, open_image
from online_tapir.camera.looped import Looped
from online_tapir.camera.opencv import open_device, open_stream, open_video, without_secrets
from online_tapir.clock import Clock, MakePace, Pace, SystemClock
from online_tapir.errors import CameraError, ConfigError
from online_tapir.files import expanded

MOST_INDEX = 99  # of a camera: OpenCV takes the hundreds of a larger index for the number of a backend
MOST_DEMO_PIXELS = 3840 * 2160  # the demo renders its textures once, at about 180 bytes a pixel
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
    report: Callable[[str], None] = warn,
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

    A recording with `loop` begins again at its end. `name` replaces the name that is made from spec. `report` gets a
    line when a recording cannot be played at its own rate.

    Raises CameraError if there is no such source or it delivers no frame, ConfigError for an invalid size, rate or
    time-out.
    """
    _check(size, fps, timeout_s, demo=_is_demo(spec))
    if name is not None and topic_name(name) != name:
        raise ConfigError(f"--name {name!r} cannot be a topic; {topic_name(name)!r} could: letters, digits and . _ : -")
    clock = clock or SystemClock()
    pace_by = _pacer(Path(spec).name or spec, clock, report) if realtime else None
    open_ = partial(_open, spec, size, fps, pace_by, timeout_s, clock)
    camera: Camera = open_()
    if loop:
        if camera.live:
            camera.close()
            raise ConfigError(f"--loop plays a recording again and again, and {camera.name} is a live source")
        camera = Looped(camera, open_)
    if name is not None:
        camera.name = name
    return camera


def _open(
    spec: str, size: tuple[int, int] | None, fps: float | None, pace_by: MakePace | None, timeout_s: float, clock: Clock
) -> Camera:
    if not spec.strip():
        raise CameraError("--camera is empty; give an index, a file, a folder, an address or `demo`")
    if _is_demo(spec):
        return _open_demo(spec, size, 30.0 if fps is None else fps, clock)
    if _is_index(spec):
        return open_device(_index(spec), size, fps)
    if spec.startswith("/dev/"):
        return open_device(spec, size, fps)
    if "://" in spec:
        if spec.partition("://")[0] not in SCHEMES:
            raise ConfigError(
                f"{without_secrets(spec)} cannot be read; an address begins with one of {', '.join(SCHEMES)}"
            )
        return open_stream(spec, size, fps, timeout_s)
    return _open_path(expanded(spec), size, fps, pace_by)


def _pacer(name: str, clock: Clock, report: Callable[[str], None]) -> MakePace:
    """Paces at a rate, and reports once, over all openings, that it cannot be kept."""
    reported = False

    def behind(fps: float, reached: float) -> None:
        nonlocal reported
        if not reported:
            report(
                f"{name} is played at {reached:.3g} frames a second instead of {fps:.4g}: this machine cannot track "
                f"it in real time. No frame is dropped; fewer points or a smaller --resolution are faster"
            )
        reported = True

    return lambda fps: Pace(fps, clock, partial(behind, fps))


def _is_index(spec: str) -> bool:
    return spec.isascii() and spec.isdecimal()


def _index(spec: str) -> int:
    digits = spec.lstrip("0") or "0"  # Python refuses to convert thousands of digits
    if len(digits) > 2:
        shown = digits if len(digits) < 20 else f"{digits[:9]}... ({len(digits)} digits)"
        raise ConfigError(
            f"there is no camera {shown}: indices end at {MOST_INDEX}; see `online-tapir cameras`, or give /dev/videoN"
        )
    return int(digits)


def can_come_back(spec: str) -> bool:
    """Whether spec names a source that may fail and be reopened: a camera or a stream, not a recording or the demo."""
    return _is_index(spec) or spec.startswith("/dev/") or "://" in spec


def _open_path(path: Path, size: tuple[int, int] | None, fps: float | None, pace_by: MakePace | None) -> Camera:
    if _is_there(path) and path.is_dir():
        return open_folder(path, fps, pace_by)
    if not _is_there(path):
        raise CameraError(
            f"there is no file {_shown(path)}; give a video, a folder of images, a camera's index, an address or "
            f"`demo` (`online-tapir cameras` lists the cameras)"
        )
    if path.suffix.lower() in SUFFIXES:
        return open_image(path, fps, pace_by)
    return open_video(path, size, fps, pace_by)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or has a zero byte in it
        return False


def _shown(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


def _is_demo(spec: str) -> bool:
    return spec == "demo" or spec.startswith("demo:")


def _open_demo(spec: str, size: tuple[int, int] | None, fps: float, clock: Clock) -> DemoCamera:
    seed = spec.partition(":")[2] or "0"
    if not re.fullmatch(r"\d{1,9}", seed, re.ASCII):
        raise CameraError(f"the demo's seed is a whole number, not {seed!r}; write demo or demo:7")
    width, height = size or (640, 480)
    if width * height > MOST_DEMO_PIXELS:
        raise ConfigError(
            f"--size {width}x{height} was asked of the demo, which is rendered at 3840x2160 at most; "
            f"give a smaller --size, or a video"
        )
    return DemoCamera(width, height, seed=int(seed), fps=fps, clock=clock)


def _check(size: tuple[int, int] | None, fps: float | None, timeout_s: float, *, demo: bool) -> None:
    if size is not None and not (min(size) >= 16 and max(size) <= MOST_SIDE):
        raise ConfigError(f"a size of {size[0]}x{size[1]} was asked for; both sides must be 16 to {MOST_SIDE} pixels")
    if fps is not None and not (0 < fps <= 1000 or (demo and fps == 0)):
        raise ConfigError(f"{fps:g} fps was asked for; give more than 0 and at most 1000 (the demo takes 0: unpaced)")
    if not 0 < timeout_s < float("inf"):
        raise ConfigError(f"a time-out of {timeout_s:g} s was asked for; give one above 0")
