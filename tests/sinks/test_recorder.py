"""Recordings begin and end on request; a new one begins with the points that are there."""

import threading
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from online_tapir.camera import Capture
from online_tapir.errors import PublishError
from online_tapir.live.sink import Sink
from online_tapir.live.stream import Stream
from online_tapir.points.placement import Grid
from online_tapir.recording.reader import Recording
from online_tapir.recording.tables import Settings
from online_tapir.recording.writer import RecordingWriter
from online_tapir.records import Frame, Label
from online_tapir.sinks import background
from online_tapir.sinks.background import WriterSink
from online_tapir.sinks.recorder import Recorder
from online_tapir.testing import FakeTracker, SyntheticCamera, make_tracks, run, sliding_pictures


def opening(folder: Path) -> WriterSink:
    settings = Settings(model="fake", weights=None, dtype="float32", iterations=None, max_points=8, window=4)
    return WriterSink(RecordingWriter(folder, settings), "it", report=lambda line: None)


def recorder(parent: Path) -> Recorder:
    return Recorder(parent, opening, now=lambda: datetime(2026, 1, 2, 3, 4, 5))


class At(Sink):
    """Does something once after each of some frames."""

    def __init__(self, **then: object) -> None:
        self._then = {int(frame.removeprefix("frame")): act for frame, act in then.items()}

    def serve(self, stream: Stream) -> None:
        act = self._then.pop(-1 if stream.tracks is None else stream.tracks.frame_id, None)
        if act is not None:
            act()  # type: ignore[operator]


def track(*sinks: Sink) -> None:
    run(SyntheticCamera(sliding_pictures(20, 33, 49), name="desk"), FakeTracker(), Grid(2, 1), sinks)


def test_a_part_of_a_run_is_recorded_with_its_points(tmp_path: Path) -> None:
    sink = recorder(tmp_path)
    track(sink, At(frame4=lambda: sink.switch(True), frame9=lambda: sink.switch(False)))
    sink.close()
    assert sink.folder == ""
    [folder] = tmp_path.iterdir()
    assert folder.name == "desk-20260102-030405"
    steps = list(Recording(folder).steps())
    assert [step.frame.id for step in steps] == [5, 6, 7, 8, 9]
    [first] = steps[0].named
    assert first.ids.tolist() == [0, 1]
    assert first.frame_id == 5
    np.testing.assert_array_equal(first.xy, steps[0].tracks.xy)
    assert not any(step.named for step in steps[1:])


def test_a_recording_begun_midway_keeps_names_and_leaves_out_what_left_the_picture(tmp_path: Path) -> None:
    sink = recorder(tmp_path)
    xy = np.array([[10, 10], [-5, 10], [20, 20]], np.float32)
    tracks = make_tracks(3, xy, ids=np.array([2, 5, 9]), size=(49, 33), labels={9: Label("nose", "face")})
    frame = Frame(3, 0, 0, sliding_pictures(1, 33, 49)[0])
    stream = Stream(Capture(SyntheticCamera([frame.rgb], name="desk")), FakeTracker(), threading.Event())  # type: ignore[arg-type]
    sink.begin(stream)
    sink.switch(True)
    sink.publish(frame, tracks)
    sink.close()
    [folder] = tmp_path.iterdir()
    [step] = Recording(folder).steps()
    [queries] = step.named
    assert queries.ids.tolist() == [2, 9]
    assert queries.labels == {9: Label("nose", "face")}


def test_a_recording_that_runs_is_ended_with_the_run(tmp_path: Path) -> None:
    sink = recorder(tmp_path)
    track(sink, At(frame4=lambda: sink.switch(True)))
    sink.close()
    sink.close()
    [folder] = tmp_path.iterdir()
    assert len(Recording(folder)) == 15


def test_a_recording_that_ended_on_a_full_disk_is_over_and_another_may_begin(tmp_path: Path) -> None:
    sink = recorder(tmp_path)
    stream = Stream(
        Capture(SyntheticCamera(sliding_pictures(1, 33, 49), name="desk")), FakeTracker(), threading.Event()
    )  # type: ignore[arg-type]
    sink.begin(stream)
    sink.switch(True)
    full = sink._running
    assert full is not None
    full[1]._writer.write = fails  # type: ignore[method-assign]
    frame = Frame(0, 0, 0, sliding_pictures(1, 33, 49)[0])
    sink.publish(frame, make_tracks(0, np.zeros((0, 2)), size=(49, 33)))
    full[1]._thread.join(20)  # type: ignore[union-attr]
    assert sink.folder == ""
    sink._now = lambda: datetime(2026, 1, 2, 3, 4, 6)
    sink.switch(True)
    assert sink.folder.endswith("030406")
    sink.close()


def test_a_recording_that_is_ended_midway_is_written_to_its_end_however_long_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[str] = []
    slow, go = opening(tmp_path / "slow"), threading.Event()
    slow._report, slow._close_s = reports.append, None
    written = slow._writer.write
    slow._writer.write = lambda step: go.wait(20) and written(step)  # type: ignore[assignment,method-assign]
    monkeypatch.setattr(background, "CLOSE_SECONDS", 0.01)
    sink = Recorder(tmp_path, lambda folder: slow, (tmp_path / "slow", slow))
    stream = Stream(
        Capture(SyntheticCamera(sliding_pictures(1, 33, 49), name="desk")), FakeTracker(), threading.Event()
    )  # type: ignore[arg-type]
    sink.begin(stream)
    for number in range(3):
        frame = Frame(number, 0, 0, sliding_pictures(1, 33, 49)[0])
        sink.publish(frame, make_tracks(number, np.zeros((0, 2)), size=(49, 33)))
    sink.switch(False)
    go.set()
    sink.close()
    assert len(Recording(tmp_path / "slow")) == 3
    assert not [report for report in reports if "missing" in report]


def fails(step: object) -> None:
    raise OSError("the disk is full")


def test_what_is_so_already_is_refused(tmp_path: Path) -> None:
    sink = recorder(tmp_path)
    said: list[str] = []

    def switch(on: bool) -> None:
        try:
            sink.switch(on)
        except PublishError as error:
            said.append(str(error))

    track(sink, At(frame2=lambda: switch(False), frame3=lambda: switch(True), frame4=lambda: switch(True)))
    sink.close()
    assert said == ["nothing is recorded", f"it is being recorded already, into {tmp_path}/desk-20260102-030405"]


def test_a_folder_that_cannot_be_made_is_told_and_tracking_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sink = recorder(tmp_path / "file")
    refused = threading.Event()

    def switch() -> None:
        with pytest.raises(PublishError, match="cannot record"):
            sink.switch(True)
        refused.set()

    track(sink, At(frame2=switch))
    assert refused.is_set()
    assert sink.folder == ""
