"""A recording gives back what was written, up to where it was cut, and ends by itself before the disk is full."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from online_tapir.errors import ConfigError, PublishError
from online_tapir.recording.codecs import CodecName
from online_tapir.recording.reader import Recording
from online_tapir.recording.steps import RESERVE, Source, TrackedFrame
from online_tapir.recording.tables import Settings, read_table, table_path
from online_tapir.recording.video import VIDEO
from online_tapir.recording.writer import RecordingWriter
from online_tapir.records import Frame, Queries
from online_tapir.sinks.background import WriterSink
from online_tapir.testing import make_tracks

Pictures = list[NDArray[np.uint8]]
HEIGHT, WIDTH = 33, 49


def step(rgb: NDArray[np.uint8], frame_id: int, points: int = 3) -> TrackedFrame:
    """Frame `frame_id` with `points` points, of which the last was named on it and one more taken back again."""
    rng = np.random.default_rng(frame_id)
    xy, chance = rng.random((points, 2), np.float32), rng.random(points, np.float32)
    tracks = make_tracks(
        frame_id,
        xy,
        visible=chance > 0.5,
        occlusion=chance,
        uncertainty=1 - chance,
        size=(WIDTH, HEIGHT),
        captured_ns=10 * frame_id,
        captured_unix_ns=20 * frame_id,
        dropped=frame_id,
    )
    named = Queries(np.array([points - 1, points], np.int32), np.full((2, 2), frame_id, np.float32), frame_id)
    return TrackedFrame(Frame(frame_id, 10 * frame_id, 20 * frame_id, rgb), tracks, [named] if points else [])


def record(folder: Path, steps: list[TrackedFrame], codec: CodecName = "huffyuv") -> RecordingWriter:
    writer = RecordingWriter(folder, Settings(), codec)
    writer.begin(Source("desk"))
    for one in steps:
        writer.write(one)
    return writer


def same(found: TrackedFrame, written: TrackedFrame) -> None:
    for name in ("id", "captured_ns", "captured_unix_ns", "rgb"):
        assert_array_equal(getattr(found.frame, name), getattr(written.frame, name))
    for name in ("frame_id", "ids", "xy", "visible", "occlusion", "uncertainty", "dropped", "width", "height"):
        assert_array_equal(getattr(found.tracks, name), getattr(written.tracks, name))
        assert np.asarray(getattr(found.tracks, name)).dtype == np.asarray(getattr(written.tracks, name)).dtype


@pytest.fixture
def steps(make_frames: Callable[..., Pictures]) -> list[TrackedFrame]:
    return [
        step(rgb, 3 * i, points)
        for i, (rgb, points) in enumerate(zip(make_frames(7, HEIGHT, WIDTH), (3, 1, 0, 7, 7, 0, 2), strict=True))
    ]


def test_what_was_written_comes_back_to_the_bit(tmp_path: Path, steps: list[TrackedFrame]) -> None:
    record(tmp_path / "a", steps).close("the run ended", 5)
    recording = Recording(tmp_path / "a")
    found = list(recording.steps())
    assert len(found) == len(recording) == len(steps)
    for one, other in zip(found, steps, strict=True):
        same(one, other)
    assert all(one.exact for one in found)
    manifest = recording.manifest
    assert (manifest.camera.name, manifest.width, manifest.height) == ("desk", WIDTH, HEIGHT)
    assert (manifest.end, manifest.unrecorded) == ("the run ended", 5)


def test_points_come_back_with_their_frames_and_those_without_a_track_do_not(
    tmp_path: Path, steps: list[TrackedFrame]
) -> None:
    record(tmp_path / "a", steps).close("")
    named = [[queries.ids.tolist() for queries in one.named] for one in Recording(tmp_path / "a").steps()]
    assert named == [[[2]], [[0]], [], [[6]], [[6]], [], [[1]]]
    assert read_table(tmp_path / "a", "queries").to_pylist()[0] == {
        "id": 2, "x": 0.0, "y": 0.0, "frame_id": 0, "answered_frame_id": 0, "name": "", "group": "",
    }  # fmt: skip


def test_a_lossy_video_is_told_frame_by_frame(tmp_path: Path, steps: list[TrackedFrame]) -> None:
    record(tmp_path / "a", steps, "mjpeg").close("")
    found = list(Recording(tmp_path / "a").steps())
    assert len(found) == len(steps)
    assert not any(one.exact for one in found)


def test_what_a_killed_program_leaves_is_readable_up_to_the_cut(tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (33, HEIGHT, WIDTH, 3), np.uint8)
    steps = [step(rgb, i) for i, rgb in enumerate(pictures)]
    record(tmp_path / "a", steps).close("")
    whole = (tmp_path / "a" / VIDEO).read_bytes()
    for left in (0.3, 0.7):
        writer = record(tmp_path / f"{left}", steps)
        shutil.copytree(tmp_path / f"{left}", cut := tmp_path / f"cut {left}")  # as if it were killed here
        writer.close("")
        (cut / VIDEO).write_bytes(whole[: int(left * len(whole))])
        found = list(Recording(cut).steps())
        assert Recording(cut).manifest.end is None
        assert left * 33 - 3 <= len(found) <= left * 33 + 1
        for one, other in zip(found, steps, strict=False):
            same(one, other)
            assert one.exact


@pytest.mark.parametrize("name", ["frames", "tracks", "queries"])
def test_a_table_may_be_cut_anywhere(tmp_path: Path, steps: list[TrackedFrame], name: str) -> None:
    record(tmp_path / "a", steps).close("")
    path = table_path(tmp_path / "a", name)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        for one, other in zip(Recording(tmp_path / "a").steps(), steps, strict=False):
            same(one, other)


def test_tables_that_disagree_are_refused(tmp_path: Path, steps: list[TrackedFrame]) -> None:
    record(tmp_path / "a", steps).close("")
    record(tmp_path / "b", steps[1:]).close("")
    shutil.copy(table_path(tmp_path / "b", "tracks"), tmp_path / "a")
    with pytest.raises(ConfigError, match="disagree at frame 0"):
        list(Recording(tmp_path / "a").steps())


def test_a_disk_that_fills_ends_the_recording_with_one_note_and_what_there_is_can_be_read(
    tmp_path: Path, steps: list[TrackedFrame]
) -> None:
    notes: list[str] = []
    free = iter([RESERVE * 9, RESERVE * 9, RESERVE * 2, RESERVE * 2])
    writer = RecordingWriter(tmp_path / "a", Settings(), free_bytes=lambda folder: next(free, RESERVE))
    sink = WriterSink(writer, "the recording", report=notes.append)
    for one in steps:
        sink.publish(one.frame, one.tracks)
    sink.close()
    assert notes == ["the recording ended: the disk is all but full (64 MiB are free); tracking goes on"]
    recording = Recording(tmp_path / "a")
    assert len(list(recording.steps())) == 3
    assert recording.manifest.end == "the disk is all but full (64 MiB are free)"


def test_on_a_full_disk_no_recording_begins(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="all but full"):
        RecordingWriter(tmp_path / "a", Settings(), free_bytes=lambda folder: RESERVE - 1)
    assert not list(tmp_path.iterdir())


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PublishError, match="name a new folder"):
        RecordingWriter(tmp_path, Settings())
    with pytest.raises(PublishError, match="cannot record into"):
        RecordingWriter(tmp_path / "notes.txt", Settings())


def test_a_run_without_a_frame_leaves_nothing(tmp_path: Path) -> None:
    RecordingWriter(tmp_path / "a", Settings()).close("no frame came")
    assert not (tmp_path / "a").exists()
    RecordingWriter(tmp_path / "a", Settings()).close("no frame came")
