"""Strips show three moments of a video for every tracker, with the points where it says they are."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench import strips
from bench.command import BenchError
from bench.videos import read
from online_tapir.model.checkpoint import save_weights
from online_tapir.testing import make_tracks, sliding_pictures, tiny_model


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "sliding.avi"
    frames = sliding_pictures(7)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, frames[0].shape[1::-1])
    for rgb in frames:
        writer.write(np.ascontiguousarray(rgb[..., ::-1]))
    writer.release()
    return path


def test_every_tracker_gets_a_row_of_three_moments(video: Path, tmp_path: Path) -> None:
    save_weights(tmp_path / "mine.safetensors", tiny_model(), {})
    settings = strips.Settings(video=video, models=(str(tmp_path / "mine.safetensors"),), input="96x64", points=12)
    strips.main(settings, out=tmp_path / "strip.png")
    drawn = cv2.imread(str(tmp_path / "strip.png"))
    assert drawn is not None
    height, width = sliding_pictures(1)[0].shape[:2]
    assert drawn.shape[1] == 3 * strips.WIDTH + 2 * strips.GAP
    high = 24 + round(strips.WIDTH * height / width)
    assert drawn.shape[0] == 3 * high  # the model and two peers


def test_points_are_drawn_where_a_tracker_says_they_are() -> None:
    frames = [np.zeros((40, 60, 3), np.uint8)] * 5
    told = [make_tracks(number, [[10 + 8 * number, 20]], size=(60, 40)) for number in range(5)]
    pictures = strips.row("mine", frames, told, [0, 2, 4])[24:]
    for index, number in enumerate((0, 2, 4)):
        left = index * (strips.WIDTH + strips.GAP)
        picture = pictures[:, left : left + strips.WIDTH].max(axis=2)
        scale = strips.WIDTH / 60
        x, y = (round(scale * side) for side in (10 + 8 * number, 20))
        assert picture[y, x] > 60
        assert not picture[:, x + 80 :].any(), "nothing is drawn ahead of it"


def test_what_cannot_be_written_or_read_is_said(video: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot be written"):
        strips.main(strips.Settings(video=video, models=(), points=4), out=tmp_path / "none" / "strip.png")
    with pytest.raises(BenchError, match="cannot be opened as a video"):
        strips.main(strips.Settings(video=tmp_path / "nope.mp4"))


def test_the_grid_lies_in_its_box() -> None:
    xy = strips.grid(sliding_pictures(1)[0], 9, (10, 20, 30, 30))
    assert len(xy) == 9
    assert (xy > [10, 20]).all()
    assert (xy < [40, 50]).all()
    with pytest.raises(BenchError, match="outside"):
        strips.grid(sliding_pictures(1)[0], 9, (1000, 0, 5, 5))


def test_frames_are_read_in_order_and_in_rgb(video: Path) -> None:
    drawn = np.stack(sliding_pictures(7)).astype(int)
    for number, rgb in enumerate(read(video)):
        assert np.abs(drawn - rgb).mean(axis=(1, 2, 3)).argmin() == number  # it is compressed, so not equal
    assert number == 6


def test_a_video_that_is_too_short_is_refused(video: Path) -> None:
    with pytest.raises(BenchError, match="has 1 frames after the first 6"):
        strips.main(strips.Settings(video=video, first=6))
