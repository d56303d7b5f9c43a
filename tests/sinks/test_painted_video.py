"""A painted video shows the points on their frames, at the pace of the source."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.drawing.painting import Palette
from online_tapir.errors import ConfigError, PublishError
from online_tapir.recording.steps import Source, TrackedFrame
from online_tapir.recording.video import read_video
from online_tapir.records import Frame
from online_tapir.sinks.painted_video import LONGEST_STILL_S, PaintedVideo
from online_tapir.testing import make_tracks

MS = 1_000_000
WIDTH, HEIGHT = 97, 65
FILMED = Source("desk", "", live=True, fps=10.0)


def step(frame_id: int, time_ms: int, level: int = 0) -> TrackedFrame:
    rgb = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
    tracks = make_tracks(
        frame_id, [(48.5, 32.5)], ids=[5], size=(WIDTH, HEIGHT), captured_ns=time_ms * MS, captured_unix_ns=0
    )
    return TrackedFrame(Frame(frame_id, time_ms * MS, 0, rgb), tracks)


def painted(path: Path, source: Source, steps: list[TrackedFrame]) -> list[NDArray[np.uint8]]:
    video = PaintedVideo(path)
    video.begin(source)
    for one in steps:
        video.write(one)
    video.close("the run ended")
    return list(read_video(path, WIDTH, HEIGHT))


def levels(pictures: list[NDArray[np.uint8]]) -> list[int]:
    """How bright each is in its corner, in hundreds."""
    return [round(float(picture[:8, :8].mean()) / 100) for picture in pictures]


def test_a_point_has_its_colour_at_its_place(tmp_path: Path) -> None:
    pictures = painted(tmp_path / "a.mp4", Source(), [step(i, 0) for i in range(7)])
    assert len(pictures) == 7
    color = Palette().colors(step(0, 0).tracks)[0]
    found = pictures[-1][32, 48].astype(int)
    assert np.abs(found - color).max() < 60  # MPEG-4 halves the resolution of colours
    assert pictures[-1][:16].max() < 40


def test_where_frames_of_a_live_source_were_dropped_the_one_before_stays(tmp_path: Path) -> None:
    steps = [step(0, 1000), step(1, 1100, 100), step(4, 1400, 200), step(5, 1510, 100)]
    assert levels(painted(tmp_path / "a.mp4", FILMED, steps)) == [0, 1, 1, 1, 2, 1]


def test_a_frame_too_soon_for_the_rate_is_left_out(tmp_path: Path) -> None:
    steps = [step(0, 0), step(1, 20, 100), step(2, 100, 200)]
    assert levels(painted(tmp_path / "a.mp4", FILMED, steps)) == [0, 2]


def test_a_long_silence_is_shortened(tmp_path: Path) -> None:
    steps = [step(0, 0), step(1, 60_000, 100), step(2, 60_100, 200)]
    still = round(LONGEST_STILL_S * FILMED.fps)
    assert levels(painted(tmp_path / "a.mp4", FILMED, steps)) == [0] * (1 + still) + [1, 2]


def test_each_frame_of_a_file_is_shown_once_whenever_it_was_read(tmp_path: Path) -> None:
    steps = [step(0, 0), step(1, 7000, 100), step(2, 7001, 200)]
    assert levels(painted(tmp_path / "a.mp4", Source(fps=25.0), steps)) == [0, 1, 2]
    video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 25
    video.release()


def test_a_name_or_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.mp4"):
        PaintedVideo(tmp_path / "a.webm")
    with pytest.raises(PublishError, match="is not a writable folder"):
        PaintedVideo(tmp_path / "none" / "a.mp4")
