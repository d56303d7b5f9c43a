"""Whatever becomes of the writing, `publish` never waits and nothing is lost in silence."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from online_tapir.camera import Capture, SyntheticCamera
from online_tapir.live.stream import Stream
from online_tapir.recording.steps import Source, TrackedFrame
from online_tapir.records import Frame, Queries
from online_tapir.sinks import background
from online_tapir.sinks.background import LEAST_BACKLOG, WriterSink
from online_tapir.testing import FakeTracker, make_tracks

LONG = 20.0  # seconds; only a broken program waits so long
RGB = np.zeros((16, 17, 3), np.uint8)


class ListWriter:
    """Keeps what it is given; waits for `go` before each step, and fails at step `fails_at`."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.source: Source | None = None
        self.steps: list[TrackedFrame] = []
        self.closed: tuple[str, int] | None = None
        self.go = threading.Event()
        self.began = threading.Event()
        self._fails_at = fails_at

    def begin(self, source: Source) -> None:
        self.source = source

    def write(self, step: TrackedFrame) -> None:
        self.began.set()
        assert self.go.wait(LONG)
        if len(self.steps) == self._fails_at:
            raise OSError("the disk is full")
        self.steps.append(step)

    def close(self, end: str, unrecorded: int = 0) -> None:
        self.closed = end, unrecorded


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def open_sink(notes: list[str]) -> Iterator[Callable[..., tuple[WriterSink, ListWriter]]]:
    opened: list[tuple[WriterSink, ListWriter]] = []

    def open_(fails_at: int | None = None, *, close_s: float | None = LONG) -> tuple[WriterSink, ListWriter]:
        writer = ListWriter(fails_at)
        sink = WriterSink(writer, "the recording", report=notes.append, backlog_bytes=0, close_s=close_s)
        opened.append((sink, writer))
        return sink, writer

    yield open_
    for sink, writer in opened:
        writer.go.set()
        sink.close()


def publish(sink: WriterSink, frame_id: int) -> None:
    sink.publish(Frame(frame_id, 0, 0, RGB), make_tracks(frame_id, (), size=(17, 16)))


def named_on(frame_id: int) -> Queries:
    return Queries(np.array([frame_id], np.int32), np.zeros((1, 2), np.float32), frame_id)


Open = Callable[..., tuple[WriterSink, ListWriter]]


def test_every_step_is_written_in_order_and_the_writer_is_told_what_is_filmed(
    open_sink: Open, notes: list[str]
) -> None:
    sink, writer = open_sink()
    tracker: Any = FakeTracker()
    sink.begin(Stream(Capture(SyntheticCamera([RGB], name="desk", live=True, fps=7)), tracker, threading.Event()))
    for frame_id in range(LEAST_BACKLOG):
        sink.named("desk", [named_on(frame_id)])
        publish(sink, frame_id)
    writer.go.set()
    sink.close()
    sink.close()
    assert writer.source == Source("desk", "desk: 17x16 at 7 fps", True, 7)
    assert [step.frame.id for step in writer.steps] == list(range(LEAST_BACKLOG))
    assert [[queries.frame_id for queries in step.named] for step in writer.steps] == [[0], [1], [2], [3]]
    assert writer.closed == ("the run ended", 0)
    assert notes == []


def test_a_slow_disk_never_blocks_and_what_it_is_too_slow_for_is_counted_and_said(
    open_sink: Open, notes: list[str]
) -> None:
    sink, writer = open_sink()
    publish(sink, 0)
    assert writer.began.wait(LONG)  # it holds frame 0, and the backlog is empty
    for frame_id in range(1, LEAST_BACKLOG + 4):
        publish(sink, frame_id)
    assert sink.dropped == 3
    writer.go.set()
    sink.close()
    assert [step.frame.id for step in writer.steps] == list(range(LEAST_BACKLOG + 1))
    assert writer.closed == ("the run ended", 3)
    assert notes == ["the recording lacks 3 frames: they came faster than they could be written"]


def test_points_of_a_frame_that_is_left_out_come_with_the_next(open_sink: Open) -> None:
    sink, writer = open_sink()
    publish(sink, 0)
    assert writer.began.wait(LONG)
    for frame_id in range(1, LEAST_BACKLOG + 3):
        sink.named("desk", [named_on(frame_id)])
        publish(sink, frame_id)  # there is no room for the last two
    writer.go.set()
    while len(writer.steps) <= LEAST_BACKLOG:
        writer.began.wait(0.001)
    publish(sink, 99)
    sink.close()
    last = writer.steps[-1]
    assert (last.frame.id, last.unrecorded) == (99, 2)
    assert [queries.frame_id for queries in last.named] == [LEAST_BACKLOG + 1, LEAST_BACKLOG + 2]


def test_a_writer_that_fails_ends_with_one_note_and_publish_goes_on(open_sink: Open, notes: list[str]) -> None:
    sink, writer = open_sink(fails_at=2)
    writer.go.set()
    frame_id = 0
    while writer.closed is None:
        publish(sink, frame_id)
        frame_id += 1
    for later in range(frame_id, frame_id + 9):
        publish(sink, later)
    sink.close()
    assert len(writer.steps) == 2
    assert writer.closed[0] == "the disk is full"
    assert notes[0] == "the recording ended: the disk is full; tracking goes on"
    assert all("they came faster" in note for note in notes[1:])
    for number in range(3, 100):
        sink.named("desk", [Queries(np.array([number], np.int32), np.zeros((1, 2), np.float32), number)])
        publish(sink, number)
    assert not sink._named, "nothing is kept for nobody"


def test_a_disk_that_hangs_does_not_keep_the_program_from_ending(open_sink: Open, notes: list[str]) -> None:
    sink, writer = open_sink(close_s=0.01)
    publish(sink, 0)
    sink.close()
    assert notes == ["the recording was still busy after 0.01 s; its last frames are missing"]
    assert writer.closed is None


def test_a_file_that_is_written_at_the_end_is_waited_for(
    open_sink: Open, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "CLOSE_SECONDS", 0.01)
    sink, writer = open_sink(close_s=None)

    def report(line: str) -> None:
        notes.append(line)
        writer.go.set()

    sink._report = report
    publish(sink, 0)
    sink.close()
    assert writer.closed == ("the run ended", 0)
    assert notes == ["the recording is still being written"]


def test_memory_that_does_not_suffice_at_the_end_is_told(open_sink: Open, notes: list[str]) -> None:
    def fails(end: str, unrecorded: int = 0) -> None:
        raise MemoryError

    sink, writer = open_sink()
    writer.go.set()
    writer.close = fails  # type: ignore[method-assign]
    publish(sink, 0)
    sink.close()
    assert notes == ["the recording could not be written: MemoryError"]


def test_without_a_frame_the_writer_is_closed_all_the_same(open_sink: Open, notes: list[str]) -> None:
    sink, writer = open_sink()
    sink.close()
    assert writer.closed == ("no frame came", 0)
    assert notes == []
