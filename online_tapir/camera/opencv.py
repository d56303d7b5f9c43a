"""Devices, network streams and video files: everything that OpenCV's VideoCapture reads."""

import math
import os
import re
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.camera.base import in_words, topic_name
from online_tapir.camera.devices import list_cameras
from online_tapir.camera.hush import hush
from online_tapir.clock import MakePace, Pace
from online_tapir.errors import CameraError
from online_tapir.picture import bgr_to_rgb8

DEFAULT_FPS = 30.0  # for a file without a plausible rate
LEAST_TIMEOUT_S = 5.0  # of a network stream
CORRUPT_GRABS = 30  # a live source is lost after this many failures in a row,
CORRUPT_SECONDS = 2.0  # or after failing for longer than this
MOST_FRAMES = 10**9  # of a file; a higher number means that the container does not know
FASTEST_FPS = 1000.0  # a higher value is the container's clock rate, not a frame rate

_REPAIR = "copy it again, or repair it with `ffmpeg -i BROKEN -c copy REPAIRED`"


class OpenCvCamera:
    """An open VideoCapture that has delivered at least one frame."""

    def __init__(self, capture: cv2.VideoCapture, *, label: str, name: str, live: bool, fps: float = 0.0) -> None:
        self.label = label
        self.name = topic_name(name)
        self.live = live
        self._capture = capture
        self._first = self._read_first()  # bgr [H, W, 3]
        self.size = (self._first.shape[1], self._first.shape[0])
        self._capture_fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps or _believable(self._capture_fps, otherwise=0.0 if live else DEFAULT_FPS)
        self.asked = ""
        self._grabs = 0
        self._promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)  # frames, by the header of a file; often an estimate
        self._at_ms = 0.0  # of the newest frame of a file
        self._corrupt = 0  # undecodable frames still to be reported, before the one that is grabbed
        self._pace: Pace | None = None

    @property
    def description(self) -> str:
        return f"{self.label}: {in_words(self.size, self.fps)}" + (f" (asked {self.asked})" if self.asked else "")

    def pace(self, pace_by: MakePace) -> None:
        """Delivers frames at their own rate, not as fast as they are requested."""
        self._pace = pace_by(self.fps)

    def grab(self) -> bool:
        if self._pace is not None:
            self._pace.wait()
        self._grabs += 1
        if not self.live:
            return self._at_first or self._grab_recorded()
        self._corrupt = self._corrupt - 1 if self._corrupt else self._grab_past_corrupt()
        return True

    def retrieve(self) -> NDArray[np.uint8]:
        if self._at_first:
            return bgr_to_rgb8(self._first)
        if not self._corrupt:
            ok, bgr = self._capture.retrieve()
            if ok:
                return bgr_to_rgb8(bgr)
        raise CameraError(f"frame {self._grabs - 1} of {self.label} cannot be decoded; the source is damaged")

    def read(self) -> NDArray[np.uint8] | None:
        return self.retrieve() if self.grab() else None

    def close(self) -> None:
        self._capture.release()

    def _grab_recorded(self) -> bool:
        """Grabs the next frame of a file; False at its end. Raises CameraError where the file is cut or damaged.

        VideoCapture fails the same way for a frame that cannot be decoded and at the end: only the next grabs can tell.
        """
        if self._capture.grab():
            self._at_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
            return True
        given = self._grabs - 1
        if any(self._capture.grab() for _ in range(CORRUPT_GRABS)):
            raise CameraError(f"frame {given} of {self.label} cannot be decoded, the file is damaged; {_REPAIR}")
        if self._ended_early(given):
            promised = f"{self._promised:.0f} frames"
            raise CameraError(f"{self.label} ended after {given} of {promised}, it is cut short or damaged; {_REPAIR}")
        return False

    def _ended_early(self, given: int) -> bool:
        """Whether both the number of frames and the time of the last one are well short of what the header promises.

        A container without an index promises its length times an average rate, which is no count of its frames.
        """
        fps = self._capture_fps
        if not (0 < self._promised < MOST_FRAMES and 0 < fps <= FASTEST_FPS):
            return False
        slack = 2 + 0.05 * self._promised
        reached = self._at_ms * fps / 1000 + 1  # frames
        return self._promised - max(given, reached) > slack

    def _grab_past_corrupt(self) -> int:
        """Grabs the next frame that can be decoded; returns how many before it could not.

        VideoCapture fails the same way for such a frame and at the end of the stream: only the next grab can tell.
        """
        began_s = time.monotonic()
        for corrupt in range(CORRUPT_GRABS):
            if self._capture.grab():
                return corrupt
            if time.monotonic() - began_s > CORRUPT_SECONDS:
                break
        raise CameraError(f"{self.label} stopped giving frames; see that it is still there")

    @property
    def _at_first(self) -> bool:
        """Whether the current frame is a file's first, read on opening. A live camera's is too old to deliver."""
        return self._grabs == 1 and not self.live

    def _read_first(self) -> NDArray[np.uint8]:
        ok, bgr = self._capture.read()
        if not ok:
            self._capture.release()
            cause = "another program may be using it" if self.live else "it is empty or damaged"
            raise CameraError(f"{self.label} opened but gave no frame; {cause}")
        return np.asarray(bgr, dtype=np.uint8)


def open_device(device: int | str, size: tuple[int, int] | None, fps: float | None) -> OpenCvCamera:
    """Opens a camera attached to this machine, by index or path. It may not deliver the requested size and rate."""
    hush()
    label = f"camera {device}"
    backend = cv2.CAP_V4L2 if isinstance(device, str) else cv2.CAP_ANY
    capture = cv2.VideoCapture(device, backend)
    if not capture.isOpened():
        raise CameraError(_no_such_camera(device))
    if size or fps:  # raw pictures at a high size or rate exceed the bandwidth of USB, JPEG does not
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    if size:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
    if fps:
        capture.set(cv2.CAP_PROP_FPS, fps)
    camera = OpenCvCamera(capture, label=label, name=str(device).removeprefix("/dev/"), live=True)
    camera.asked = _unmet(camera, size, fps)
    return camera


def open_stream(address: str, size: tuple[int, int] | None, fps: float | None, timeout_s: float) -> OpenCvCamera:
    """Opens a network stream, read by ffmpeg. The sender sets size and rate; a differing request is only reported.

    timeout_s limits the opening and the wait for each frame. It is at least five seconds, because a stream that waits
    for its next key frame is not broken. ffmpeg does not report damage that it conceals.
    """
    hush()
    label = without_secrets(address)
    timeout_s = max(timeout_s, LEAST_TIMEOUT_S)
    timeout_ms = math.ceil(timeout_s * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise CameraError(
            f"{label} cannot be reached, or sends nothing that can be read, within {timeout_s:g} s; "
            f"check that the sender runs, and try the address with `ffplay`"
        )
    # A recording on a web server has an end and waits to be read, as a file does.
    recorded = address.startswith("http") and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
    camera = OpenCvCamera(capture, label=label, name=host(address), live=not recorded)
    camera.asked = _unmet(camera, size, fps)
    return camera


def open_video(path: Path, size: tuple[int, int] | None, fps: float | None, pace_by: MakePace | None) -> OpenCvCamera:
    """Opens a video file, of which no frame is dropped. fps overrides the file's own rate."""
    hush()
    if path.stat().st_size == 0:
        raise CameraError(f"{path} is an empty file; give a video with at least one frame")
    if not os.access(path, os.R_OK):
        raise CameraError(f"{path} cannot be read: permission denied")
    capture = cv2.VideoCapture(str(path.absolute()))  # of 12:30.mp4, ffmpeg would take 12 for a protocol
    if not capture.isOpened():
        raise CameraError(f"{path} is not a video that OpenCV can read, or is damaged; try it with `ffplay`")
    camera = OpenCvCamera(capture, label=path.name, name=path.stem, live=False, fps=fps or 0.0)
    camera.asked = _unmet(camera, size, fps)
    if pace_by is not None:
        camera.pace(pace_by)
    return camera


def without_secrets(address: str) -> str:
    """The address in a form safe to show: no user, no password, no query (cameras take tokens there)."""
    scheme, _, rest = address.partition("://")
    # The last @, not the first: passwords with an @ or a / in them are not always escaped.
    before, _, after = rest.rpartition("@")
    start = re.split("[?#]", before)[0]
    # A ? or # before the @ is part of a password; but if a host may end there, the @ may be part of a query instead.
    if start != before and not re.fullmatch(r"[^/]*:(?!\d*$)[^/]*", start):
        return f"{scheme}://(hidden)"
    return f"{scheme}://{re.split('[?#]', after)[0]}"


def source_name(spec: str) -> str:
    """What a camera is called unless told: its index or device, the host of its address, the name of its file."""
    if "://" in spec:
        return topic_name(host(spec))
    return topic_name(spec.removeprefix("/dev/") if spec.startswith("/dev/") else Path(spec.partition(":")[0]).stem)


def host(address: str) -> str:
    """The host:port of an address."""
    return without_secrets(address).partition("://")[2].partition("/")[0]


def _believable(fps: float, otherwise: float) -> float:
    return fps if 0 < fps <= FASTEST_FPS else otherwise


def _unmet(camera: OpenCvCamera, size: tuple[int, int] | None, fps: float | None) -> str:
    """What was requested of the camera and not met."""
    unmet = [f"{size[0]}x{size[1]}"] if size and size != camera.size else []
    if fps and abs(fps - camera.fps) > 0.5:
        unmet.append(f"{fps:.4g} fps")
    return " at ".join(unmet)


def _no_such_camera(device: int | str) -> str:
    cameras = list_cameras()
    for camera in cameras:
        if device in (camera.index, camera.path):
            return (
                f"camera {device} ({camera.name}) cannot be opened; another program has it, or you have no permission"
            )
    if not cameras:
        return f"there is no camera {device}: this machine has none; attach one, or try `--camera demo`"
    return f"there is no camera {device}; this machine has {', '.join(map(str, cameras))}"
