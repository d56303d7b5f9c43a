"""A recording that is cut short or damaged gives what it has, and then an error instead of an ordinary end."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from online_tapir.camera import Capture, open_camera
from online_tapir.camera.opencv import OpenCvCamera
from online_tapir.errors import CameraError

LONG = 30.0  # seconds; only a broken capture waits so long
FRAMES = 40


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Noise, so that every frame takes many bytes."""
    rng = np.random.default_rng(7)
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    for _ in range(FRAMES):
        writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    return path


def delivered_and_error(path: Path) -> tuple[int, str]:
    """How many frames are delivered, and the CameraError that comes instead of an ordinary end."""
    delivered = 0
    with Capture(open_camera(str(path))) as capture:
        try:
            while True:
                assert capture.mailbox.take(LONG).id == delivered
                delivered += 1
        except CameraError as error:
            return delivered, str(error)


def test_a_video_that_was_cut_gives_what_it_has_and_then_an_error(video: Path) -> None:
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    delivered, error = delivered_and_error(video)
    assert 15 <= delivered <= 25
    assert f"clip.avi ended after {delivered} of {FRAMES} frames, it is cut short or damaged" in error


def test_a_frame_that_cannot_be_decoded_is_named(video: Path) -> None:
    content = bytearray(video.read_bytes())
    chunk = content.index(b"movi")
    for _ in range(20):
        chunk = content.index(b"00dc", chunk + 1)
    size = int.from_bytes(content[chunk + 4 : chunk + 8], "little")
    content[chunk + 8 : chunk + 8 + size] = bytes(size)
    video.write_bytes(content)
    delivered, error = delivered_and_error(video)
    assert delivered == 19
    assert "frame 19 of clip.avi cannot be decoded, the file is damaged" in error


def recorded(given: int, last_ms: float, promised: float, fps: float) -> OpenCvCamera:
    """A file that gives so many frames, the last at `last_ms`, and whose header promises `promised` at `fps`."""
    left, picture = [given], np.zeros((33, 49, 3), np.uint8)
    promises = {cv2.CAP_PROP_FRAME_COUNT: promised, cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_POS_MSEC: last_ms}

    def grab() -> bool:
        left[0] -= 1
        return left[0] >= 0

    capture: Any = SimpleNamespace(
        grab=grab, retrieve=lambda: (True, picture), read=lambda: (grab(), picture), get=promises.__getitem__
    )
    return OpenCvCamera(capture, label="clip", name="clip", live=False)


def read_all(camera: OpenCvCamera) -> int:
    frames = 0
    while camera.read() is not None:
        frames += 1
    return frames


@pytest.mark.parametrize(
    ("given", "last_ms", "promised", "fps"),
    [
        (300, 9_966, 300, 30),  # whole
        (298, 9_900, 300, 30),  # a decoder that holds back the last ones
        (150, 9_950, 300, 30),  # a rate that varies: the header has length x rate
        (300, 4_966, 300, 60),  # more frames than the length allows
        (30, 966, 9.2e18, 30),  # a container that does not know
        (30, 966, -1, 30),
        (30, 966, 300, 0),
    ],
)
def test_a_whole_recording_is_never_called_cut(given: int, last_ms: float, promised: float, fps: float) -> None:
    assert read_all(recorded(given, last_ms, promised, fps)) == given


def test_a_recording_short_of_frames_and_of_time_is_called_cut() -> None:
    with pytest.raises(CameraError, match="clip ended after 150 of 300 frames"):
        read_all(recorded(150, 4_966, 300, 30))
