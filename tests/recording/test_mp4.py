"""A painted video is H.264 that players take, at any size, and plays up to the last second before it was cut."""

import signal
import subprocess
import sys
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.camera.opencv import open_video
from online_tapir.errors import PublishError
from online_tapir.recording.mp4 import Mp4Writer
from online_tapir.recording.video import VideoWriter, read_video

LONG = 60  # seconds; only a broken program takes so long
COLORS = [(250, 20, 30), (20, 240, 30), (30, 20, 250), (240, 240, 20), (20, 20, 20)]
FPS = 10
KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from online_tapir.recording.mp4 import Mp4Writer

video = Mp4Writer(Path(sys.argv[1]), 10, 49, 33)
for level in range(60):
    video.write(np.full((33, 49, 3), 4 * level, np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""


def flat(color: tuple[int, int, int], height: int, width: int) -> NDArray[np.uint8]:
    return np.broadcast_to(np.array(color, np.uint8), (height, width, 3)).copy()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 49), (64, 97), (65, 96)])
def test_every_picture_comes_back_in_its_colours_at_any_size(tmp_path: Path, height: int, width: int) -> None:
    video = Mp4Writer(tmp_path / "a.mp4", FPS, width, height)
    for color in COLORS:
        video.write(flat(color, height, width))
    video.close()
    video.close()
    found = list(read_video(tmp_path / "a.mp4", width, height))
    assert len(found) == len(COLORS)
    for picture, color in zip(found, COLORS, strict=True):
        assert np.abs(picture.astype(int) - color).max() <= 8


def test_it_is_h264_in_fragments_as_browsers_play_it(tmp_path: Path) -> None:
    video = Mp4Writer(tmp_path / "a.mp4", 30_000 / 1001, 49, 33)
    video.write(flat(COLORS[0], 33, 49))
    video.close()
    with av.open(str(tmp_path / "a.mp4")) as file:
        (stream,) = file.streams
        assert isinstance(stream, av.VideoStream)
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, codec.width, codec.height) == ("h264", "yuv420p", 50, 34)
        assert stream.average_rate == Fraction(30_000, 1001)
    written = (tmp_path / "a.mp4").read_bytes()
    assert written.index(b"moov") < written.index(b"moof") < written.index(b"mdat")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_what_a_killed_program_leaves_plays_up_to_its_last_seconds(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    ended = subprocess.run([sys.executable, "-c", KILLED, path], env={"PYTHONPATH": ":".join(sys.path)}, timeout=LONG)
    assert ended.returncode == -signal.SIGKILL
    levels = [picture.mean() for picture in read_video(path, 49, 33)]
    assert len(levels) >= 60 - 3 * FPS
    np.testing.assert_allclose(levels, 4 * np.arange(len(levels)), atol=4)


def test_a_file_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"cannot write .*a\.mp4 as H\.264: .*No such file"):
        Mp4Writer(tmp_path / "none" / "a.mp4", FPS, 16, 16)


def fill(path: Path) -> None:
    video = Mp4Writer(path, FPS, 16, 16)
    for _ in range(60):
        video.write(flat(COLORS[0], 16, 16))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here to write to")
def test_a_full_disk_is_an_error_of_the_system_that_names_the_file() -> None:
    with pytest.raises((PublishError, OSError), match="No space left on device"):
        fill(Path("/dev/full"))


def test_a_name_with_a_colon_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a relative path ffmpeg would take what is before the colon for a protocol."""
    monkeypatch.chdir(tmp_path)
    Path("12:30").mkdir()
    for path in (Path("12:30.mp4"), Path("12:30/a.mp4")):
        video = Mp4Writer(path, FPS, 64, 48)
        video.write(flat(COLORS[0], 48, 64))
        video.close()
        assert len(list(read_video(path, 64, 48))) == 1
    writer = VideoWriter(Path("12:30/a.avi"), "mjpeg", FPS, 64, 48)
    writer.write(flat(COLORS[0], 48, 64))
    writer.close()
    with closing(open_video(Path("12:30/a.avi"), None, None, None)) as camera:
        assert camera.read() is not None
