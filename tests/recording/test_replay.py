"""A recorded run tracked again: the same to the bit by the same model, and compared honestly where it is not."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from online_tapir.camera.demo import DemoCamera
from online_tapir.cli.app import main
from online_tapir.errors import PublishError
from online_tapir.live.sink import Sink
from online_tapir.live.stream import Stream
from online_tapir.model.tapir import Tapir
from online_tapir.points.objects import Objects
from online_tapir.points.placement import Grid
from online_tapir.recording.codecs import CodecName
from online_tapir.recording.reader import RecordedStep, Recording
from online_tapir.recording.replay import Comparer, replay
from online_tapir.recording.steps import TrackedFrame
from online_tapir.recording.tables import Settings, table_path
from online_tapir.recording.video import VIDEO
from online_tapir.recording.writer import RecordingWriter
from online_tapir.records import Frame, Label, Tracks
from online_tapir.sinks.background import WriterSink
from online_tapir.testing import FakeTracker, make_tracks, run
from online_tapir.tracking.tracker import Tracker
from tests.cli.test_app import refused

LONG = 60  # seconds; only a broken program takes so long
SETTINGS = Settings(max_points=9, window=4)
Make = Callable[..., Tapir]


class Script(Sink):
    """A stand-in for a control socket: does `acts[i]` once frame i is done."""

    def __init__(self, acts: dict[int, Callable[[Stream], Any]]) -> None:
        self._acts = dict(acts)

    def serve(self, stream: Stream) -> None:
        if stream.tracks is not None and (act := self._acts.pop(stream.tracks.frame_id, None)) is not None:
            act(stream)


def points(*xy: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(xy, np.float32).reshape(-1, 2)


BUSY = {
    2: lambda stream: stream.add(points(11, 12, 30, 7), 0),  # a late query
    4: lambda stream: stream.remove(np.array([1, 6], np.int32)),
    5: lambda stream: (stream.add(points(3, 3), 5), stream.remove(np.array([8])), stream.add(points(9, 9), 4)),
    7: lambda stream: stream.clear(),
    9: lambda stream: stream.add(points(20, 20, 40, 30), 8),
}  # fmt: skip


def record(
    folder: Path,
    model: Tapir,
    codec: CodecName = "huffyuv",
    acts: dict[int, Any] = BUSY,
    tracker: Tracker | None = None,
    **how: Any,
) -> Recording:
    """Thirteen frames of the demo, on which points come and go."""
    tracker = tracker or Tracker(model, SETTINGS.max_points, SETTINGS.window)
    sink = WriterSink(RecordingWriter(folder, SETTINGS, codec), "the recording")
    run(DemoCamera(49, 33, fps=0), tracker, Grid(3, 2), [sink, Script(acts)], frames=13, **how)
    sink.close()
    return Recording(folder)


def tracker(model: Tapir) -> Tracker:
    return Tracker(model, SETTINGS.max_points, SETTINGS.window)


class ListWriter:
    """Keeps the steps it is given."""

    def __init__(self) -> None:
        self.steps: list[TrackedFrame] = []

    def begin(self, source: object) -> None: ...

    def write(self, step: TrackedFrame) -> None:
        self.steps.append(step)

    def close(self, end: str, unrecorded: int = 0) -> None: ...


@pytest.mark.parametrize("codec", ["huffyuv"])
def test_the_same_model_gives_the_same_tracks_to_the_bit(tmp_path: Path, make_model: Make, codec: CodecName) -> None:
    recording = record(tmp_path / "a", make_model(), codec)
    comparison = replay(recording, tracker(make_model()))
    assert comparison.identical, comparison
    assert (comparison.frames, comparison.changed_pictures, comparison.left_out) == (13, 0, 0)
    assert (comparison.max_px, comparison.visibility_agreement) in [(0, 1), (None, 1)]
    assert {point.id for point in comparison.per_point} == {0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11}
    assert "the tracks are identical" in str(comparison)


def test_a_replay_keeps_the_names(tmp_path: Path, make_model: Make) -> None:
    named = {3: lambda stream: stream.add(points(20, 20, 30, 20), 2, ["nose", ""], "face")}
    recording = record(tmp_path / "run", make_model(), acts=named)
    writer = ListWriter()
    replay(recording, tracker(make_model()), [writer])
    assert writer.steps[-1].tracks.labels == {6: Label("nose", "face"), 7: Label("", "face")}


def test_names_that_are_given_later_hold_from_then_on(tmp_path: Path, make_model: Make) -> None:
    acts = {
        3: lambda stream: stream.tracker.label(2, Label("nose", "face", 0x00FF00)),
        6: lambda stream: stream.tracker.label(2, Label("", "face")),
        8: lambda stream: stream.tracker.label(2, Label()),
    }
    recording = record(tmp_path / "run", make_model(), acts=acts)
    told = [step.tracks.labels for step in recording.steps()]
    assert told == [{}] * 4 + [{2: Label("nose", "face", 0x00FF00)}] * 3 + [{2: Label("", "face")}] * 2 + [{}] * 4
    writer = ListWriter()
    assert replay(recording, tracker(make_model()), [writer]).identical
    assert [step.tracks.labels for step in writer.steps] == told
    table_path(recording.folder, "labels").unlink()  # as older programs wrote it
    assert not recording.cut_tables()
    assert [step.tracks.labels for step in recording.steps()] == [{}] * 13


@pytest.mark.parametrize("motion", ["off", "similarity", "affine"])
def test_what_a_run_makes_of_the_answers_a_replay_makes_of_them_too(tmp_path: Path, motion: Any) -> None:
    def moves(xy: Any, named: int, now: int) -> tuple[Any, bool]:
        return xy + now / 4, not (2 <= now <= 8 and xy[0, 0] > 30)  # the right points come back after seven frames

    class Answering(FakeTracker):
        def collect(self) -> Tracks:
            tracks = super().collect()
            return replace(tracks, model_frame_id=tracks.frame_id)

    settings = replace(SETTINGS, objects=motion)
    sink = WriterSink(RecordingWriter(tmp_path / "a", settings), "the recording")
    points = Answering(moves)
    name = {1: lambda stream: [stream.tracker.label(int(id), Label(group="cup")) for id in stream.tracker.ids]}
    objects = None if motion == "off" else Objects(motion)
    run(DemoCamera(49, 33, fps=0), points, Grid(4, 2), [sink, Script(name)], frames=13, objects=objects)
    sink.close()
    recording = Recording(tmp_path / "a")
    shown = [int(step.tracks.visible.sum()) for step in recording.steps()]
    assert shown[8:11] == [4, 4, 8], "they had yet to prove themselves"
    comparison = replay(recording, Answering(moves))  # type: ignore[arg-type]
    assert comparison.identical, comparison


def test_points_that_are_replaced_are_replaced_again(tmp_path: Path, make_model: Make) -> None:
    def impatient(stream: Stream) -> None:
        stream.wait_for_hidden(0)

    recording = record(tmp_path / "a", make_model(), acts={1: impatient}, replenish=True)
    comparison = replay(recording, tracker(make_model()))
    assert comparison.identical, comparison


def test_another_model_is_told_apart(tmp_path: Path, make_model: Make) -> None:
    comparison = replay(record(tmp_path / "a", make_model()), tracker(make_model(seed=1)))
    assert not comparison.identical
    assert "the tracks differ" in str(comparison)


def test_a_replay_can_be_recorded_and_replayed(tmp_path: Path, make_model: Make) -> None:
    recording = record(tmp_path / "a", make_model())
    writer = RecordingWriter(tmp_path / "b", SETTINGS)
    again = make_model(seed=1)
    replay(recording, tracker(again), [writer])
    writer.close("the replay ended")
    comparison = replay(Recording(tmp_path / "b"), tracker(again))
    assert comparison.identical, comparison
    assert comparison.frames == 13


def test_pictures_that_lost_detail_are_said(tmp_path: Path, make_model: Make) -> None:
    comparison = replay(record(tmp_path / "a", make_model(), "mjpeg"), tracker(make_model()))
    assert comparison.changed_pictures == 13
    assert "13 pictures differ from those tracked" in str(comparison)


def test_frames_and_points_that_are_missing_are_said(tmp_path: Path, make_model: Make) -> None:
    kept = list(record(tmp_path / "a", make_model()).steps())
    writer = RecordingWriter(tmp_path / "b", SETTINGS)
    for step in kept:
        if step.frame.id not in (4, 8):  # points are named on both, and answered on frames 6 and 10
            writer.write(TrackedFrame(step.frame, step.tracks, step.named, (step.frame.id > 4) + (step.frame.id > 8)))
    writer.close("the run ended", 2)
    comparison = replay(Recording(tmp_path / "b"), tracker(make_model()))
    assert (comparison.frames, comparison.unrecorded, comparison.left_out) == (11, 2, 3)
    assert not comparison.identical
    assert "2 frames that were tracked are missing" in str(comparison)
    assert "3 left out" in str(comparison)


def test_points_of_a_saved_state_are_said_to_have_no_beginning_here(tmp_path: Path, make_model: Make) -> None:
    before, model = tracker(make_model()), make_model()
    before.add(points(11, 12, 30, 7))
    before.step(DemoCamera(49, 33).scene.render(0))
    before.save_state(tmp_path / "points")
    resumed = tracker(model)
    resumed.load_state(tmp_path / "points")
    recording = record(tmp_path / "a", model, acts={1: lambda stream: stream.add(points(9, 9), 1)}, tracker=resumed)
    comparison = replay(recording, tracker(model))
    assert (comparison.frames, comparison.resumed, comparison.left_out) == (13, 2, 0)
    assert [point.id for point in comparison.per_point] == [*range(2, 9)]
    assert not comparison.identical
    assert "2 more points were not named in this recording, but came from a saved state" in str(comparison)
    assert comparison.as_json()["resumed"] == 2


def test_a_replay_ends_when_told(tmp_path: Path, make_model: Make) -> None:
    recording, stop = record(tmp_path / "a", make_model()), threading.Event()
    assert replay(recording, tracker(make_model()), frames=5).frames == 5
    stop.set()
    comparison = replay(recording, tracker(make_model()), stop=stop)
    assert (comparison.frames, comparison.points, comparison.median_px) == (0, 0, None)
    assert str(comparison)


def test_a_writer_that_fails_ends_the_replay_with_a_sentence(tmp_path: Path, make_model: Make) -> None:
    class Full(ListWriter):
        def write(self, step: TrackedFrame) -> None:
            raise OSError("no room")

    with pytest.raises(PublishError, match="cannot write frame 0: no room"):
        replay(record(tmp_path / "a", make_model()), tracker(make_model()), [Full()])


def test_a_comparison_is_what_one_would_work_out_by_hand(tmp_path: Path, make_model: Make) -> None:
    comparer = Comparer(record(tmp_path / "a", make_model()))
    rgb = np.zeros((16, 16, 3), np.uint8)

    def tracks(frame_id: int, rows: Sequence[tuple[int, float, float, bool]]) -> Tracks:
        ids, x, y, visible = zip(*rows, strict=True)
        return make_tracks(frame_id, np.stack([x, y], axis=1), ids=ids, visible=visible, size=(16, 16), model="m")

    for frame_id, then, now in [
        (0, [(1, 0, 0, True), (4, 5, 5, True)], [(1, 3, 4, True), (4, 5, 6, False)]),
        (1, [(1, 0, 0, False), (4, 5, 5, True)], [(1, 9, 9, True), (4, 5, 5, True)]),
        (2, [(1, 1, 0, True), (4, 5, 5, True), (7, 0, 0, True)], [(1, 1, 2, True), (4, 5, 5, True)]),
    ]:
        comparer.add(RecordedStep(Frame(frame_id, 0, 0, rgb), tracks(frame_id, then)), tracks(frame_id, now))
    comparison = comparer.comparison(left_out=1)
    distances = [5, 1, 0, 2, 0]
    found = np.array([comparison.median_px, comparison.p95_px, comparison.max_px], np.float64)
    assert_allclose(found, np.percentile(distances, [50, 95, 100]).tolist(), rtol=1e-6)
    assert comparison.visibility_agreement == 4 / 6
    one, four = comparison.per_point
    assert (one.id, one.frames, one.worst_px, one.worst_frame_id) == (1, 3, 5, 0)
    assert (four.id, four.frames, four.median_px, four.worst_px, four.worst_frame_id) == (4, 3, 0, 1, 0)
    assert (one.visibility_agreement, four.visibility_agreement) == (2 / 3, 2 / 3)
    assert json.loads(json.dumps(comparison.as_json()))["per_point"][0]["id"] == 1


DEMO = ("--camera", "demo", "--fps", "0", "--points", "grid:2", "--threads", "1")
SMALL = ("--size", "49x33")
SILENT = ("--rerun", "off", "--publish", "off", "--control", "off", "--quiet")


def test_the_command_line_records_replays_and_paints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    run, again = str(tmp_path / "run"), str(tmp_path / "again")
    main([*DEMO, *SMALL, *SILENT, "--frames", "3", "--record", run, "--save-video", f"{run}.mp4"])
    main(["replay", run, "--json", "--device", "cpu", "--out", again, "--save-video", f"{again}.mp4"])
    compared = json.loads(capsys.readouterr().out)
    assert compared["identical"] is True
    assert (compared["frames"], compared["points"], compared["model"]) == (3, 4, "small")
    assert Path(f"{run}.mp4").read_bytes()[4:8] == Path(f"{again}.mp4").read_bytes()[4:8] == b"ftyp"
    main(["replay", again, "--iterations", "1", "--frames", "2", "--device", "cpu"])
    assert "2 of 3 frames tracked again by small, recorded with small; 4 points" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main([*DEMO, *SMALL, *SILENT, "--frames", "3", "--record", run])
    assert left.value.code == 2
    assert "name a new folder" in " ".join(capsys.readouterr().err.split())
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_is_ended_in_the_middle_leaves_a_recording(tmp_path: Path, number: signal.Signals) -> None:
    large = ("--size", "321x193")  # a frame fills a good part of what is not written yet
    words = [sys.executable, "-m", "online_tapir", *DEMO, *large, *SILENT, "--record", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    video = tmp_path / "run" / VIDEO
    with subprocess.Popen(words, env=environment) as process:
        waited = threading.Event()
        while process.poll() is None and not (video.exists() and video.stat().st_size > 600_000):
            waited.wait(0.02)
        process.send_signal(number)
        process.wait(LONG)
    recording = Recording(tmp_path / "run")
    steps = list(recording.steps())
    assert len(steps) > 2
    assert [step.frame.id for step in steps] == list(range(len(steps)))
    assert all(step.exact for step in steps)
    if number == signal.SIGTERM:
        assert process.returncode == 0
        assert recording.manifest.end == "the run ended"
        assert len(steps) == len(recording)
    else:
        assert recording.manifest.end is None
        assert table_path(tmp_path / "run", "tracks").stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "left", "said"),
    [
        ("tracks.arrows", 300, "tracks.arrows is cut short; only 0 of 13 frames"),
        ("tracks.arrows", -9, "tracks.arrows is cut short"),
        ("queries.arrows", 0, "queries.arrows is cut short; no point was compared"),
        ("queries.arrows", -1, "queries.arrows is cut short"),
        ("frames.arrows", 2500, "frames.arrows is cut short"),
        (VIDEO, 12_000, "of 13 frames have their tracks and their picture"),
    ],
)
def test_a_recording_that_lacks_what_it_promises_is_not_called_identical(
    tmp_path: Path, make_model: Make, name: str, left: int, said: str
) -> None:
    path = record(tmp_path / "a", make_model()).folder / name
    path.write_bytes(path.read_bytes()[:left])
    comparison = replay(Recording(tmp_path / "a"), tracker(make_model()))
    assert said in "; ".join(comparison.missing)
    assert "the tracks are identical" not in str(comparison)


def test_a_whole_recording_lacks_nothing_and_one_that_was_cut_off_promises_nothing(
    tmp_path: Path, make_model: Make
) -> None:
    recording, stop = record(tmp_path / "a", make_model()), threading.Event()
    assert replay(recording, tracker(make_model())).missing == ()
    assert replay(recording, tracker(make_model()), frames=5).missing == ()
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest | {"end": None}))
    path = table_path(tmp_path / "a", "tracks")
    path.write_bytes(path.read_bytes()[:-2000])
    comparison = replay(Recording(tmp_path / "a"), tracker(make_model()))
    assert 0 < comparison.frames < 13
    assert (comparison.identical, comparison.missing) == (True, ())
    stop.set()
    comparison = replay(Recording(tmp_path / "a"), tracker(make_model()), stop=stop)
    assert comparison.missing == ("no point was compared",)


def test_the_command_line_fails_where_it_could_not_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    main([*DEMO, *SMALL, *SILENT, "--frames", "3", "--record", str(run)])
    table_path(run, "tracks").write_bytes(b"")
    assert "was not compared in full: tracks.arrows is cut short" in refused(capsys, "replay", run, "--device", "cpu")
