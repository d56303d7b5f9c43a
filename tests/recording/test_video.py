"""A lossless video gives back every bit at any size, and what it was given before it was cut."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from online_tapir.errors import CameraError, PublishError
from online_tapir.recording.video import LOSSLESS, VideoWriter, read_video


def noise(count: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), np.uint8)


def write(path: Path, codec: str, pictures: NDArray[np.uint8]) -> None:
    video = VideoWriter(path, codec, 30.0, pictures.shape[2], pictures.shape[1])
    for rgb in pictures:
        video.write(rgb)
    video.close()


@pytest.mark.parametrize("codec", sorted(LOSSLESS))
@pytest.mark.parametrize(("count", "height", "width"), [(1, 16, 16), (7, 33, 49), (33, 17, 48), (2, 64, 33)])
def test_a_lossless_video_gives_back_every_bit(tmp_path: Path, codec: str, count: int, height: int, width: int) -> None:
    pictures = noise(count, height, width)
    write(tmp_path / "a.avi", codec, pictures)
    assert_array_equal(np.stack(list(read_video(tmp_path / "a.avi", width, height))), pictures)


def test_a_lossy_video_has_every_picture_but_not_every_bit(tmp_path: Path) -> None:
    pictures = np.repeat(noise(3, 9, 8), 4, axis=2).repeat(4, axis=1)
    write(tmp_path / "a.avi", "mjpeg", pictures)
    found = np.stack(list(read_video(tmp_path / "a.avi", 32, 36)))
    assert found.shape == pictures.shape
    assert (found != pictures).any()


@pytest.mark.parametrize("left", [0.9, 0.5, 0.2])
def test_a_video_that_was_cut_is_readable_up_to_the_cut(tmp_path: Path, left: float) -> None:
    path, pictures = tmp_path / "a.avi", noise(33, 33, 49)
    write(path, "huffyuv", pictures)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    found = list(read_video(path, 49, 33))
    assert len(found) >= int(left * 33) - 2
    assert_array_equal(np.stack(found[:-1]), pictures[: len(found) - 1])  # in the last it may have been cut


def test_a_video_that_is_not_there_or_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="cannot be read"):
        next(read_video(tmp_path / "none.avi", 16, 16))
    with pytest.raises(PublishError, match="cannot write"):
        VideoWriter(tmp_path / "no folder" / "a.avi", "huffyuv", 30.0, 16, 16)
