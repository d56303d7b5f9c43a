"""What a run knows of its points is on the disk when it should be, and whatever the disk does, the run goes on."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.camera import SyntheticCamera
from online_tapir.errors import CameraError, StateError
from online_tapir.live.state_keeper import StateKeeper
from online_tapir.model.tapir import Tapir
from online_tapir.points.placement import NOWHERE, Grid
from online_tapir.records import Tracks
from online_tapir.testing import ListSink, run
from online_tapir.tracking import state_file
from online_tapir.tracking.persistence import Persistence
from online_tapir.tracking.state_file import SavedState
from online_tapir.tracking.tracker import Tracker

Pictures = list[NDArray[np.uint8]]
LONG = 60  # seconds; only a broken program takes so long


class Disk:
    """In place of the disk: keeps what is written, and can be full or slow."""

    def __init__(self) -> None:
        self.written: list[SavedState] = []
        self.full = False
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.done = threading.Semaphore(0)

    def write(self, path: Path, saved: SavedState) -> None:
        assert self.goes_on.wait(LONG)
        try:
            if self.full:
                raise StateError("the points cannot be saved: the disk is full")
            self.written.append(saved)
        finally:
            self.done.release()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def tracker(make_model: Callable[..., Tapir], make_frames: Callable[..., Pictures]) -> Tracker:
    """Of two points, on the first of whose frames it is."""
    tracker = Tracker(make_model(), max_points=9)
    tracker.add([[5, 5], [20, 20]])
    tracker.step(make_frames(1)[0])
    return tracker


def settled(keeper: StateKeeper, number: int) -> None:
    """Waits until save `number` is done with."""
    waited = threading.Event()
    for _ in range(1000 * LONG):
        if keeper.outcome.number >= number:
            return
        waited.wait(0.001)
    raise AssertionError("it was never done")


def test_it_is_saved_when_asked_and_at_the_end(tmp_path: Path, tracker: Tracker) -> None:
    notes: list[str] = []
    path = tmp_path / "points"
    with StateKeeper(path, tracker, report=notes.append) as keeper:
        save = keeper.save()
        assert (save.number, save.state.points, save.state.frame_id) == (1, 2, 0)
        settled(keeper, 1)
        assert path.exists()
        tracker.remove([0])
    assert notes == [f"1 points of frame 0 saved to {path}"]
    again = Tracker(tracker.model)
    again.load_state(path)
    assert again.ids.tolist() == [1]


def test_it_is_saved_every_so_often_but_not_twice_after_the_same_frame(
    tmp_path: Path, tracker: Tracker, disk: Disk
) -> None:
    now_ns = 0
    stream: Any = SimpleNamespace(tracks=None)
    keeper = StateKeeper(
        tmp_path / "points", tracker, every_s=10, report=print, monotonic_ns=lambda: now_ns, write=disk.write
    )
    with keeper:
        asked = []
        for second, tracks in [(5, "a"), (11, None), (12, "a"), (13, "b"), (22, "c"), (40, "c"), (41, "d")]:
            now_ns, stream.tracks = second * 10**9, tracks
            keeper.serve(stream)
            asked.append(keeper._asked)
    assert asked == [0, 0, 1, 1, 2, 2, 3]


def test_unless_told_how_often_it_is_not_saved_in_between(tmp_path: Path, tracker: Tracker, disk: Disk) -> None:
    stream: Any = SimpleNamespace(tracks="a")
    with StateKeeper(tmp_path / "points", tracker, write=disk.write, monotonic_ns=lambda: 10**18) as keeper:
        keeper.serve(stream)
        assert keeper._asked == 0


def test_a_disk_that_is_full_is_said_once_and_the_run_goes_on(tmp_path: Path, tracker: Tracker, disk: Disk) -> None:
    notes: list[str] = []
    disk.full = True
    with StateKeeper(tmp_path / "points", tracker, report=notes.append, write=disk.write) as keeper:
        for number in (1, 2):
            keeper.save()
            settled(keeper, number)
        assert keeper.outcome.error == "the points cannot be saved: the disk is full"
        assert notes == ["the points cannot be saved: the disk is full; tracking goes on"]
        disk.full = False
        keeper.save()
        settled(keeper, 3)
        assert keeper.outcome.error == ""
    assert len(disk.written) == 2


def test_a_disk_that_is_full_at_the_end_is_the_runs_error(tmp_path: Path, tracker: Tracker, disk: Disk) -> None:
    disk.full = True
    with (
        pytest.raises(StateError, match="the disk is full"),
        StateKeeper(tmp_path / "points", tracker, write=disk.write),
    ):
        pass


def test_an_error_that_ends_the_run_is_not_hidden_by_that_of_the_disk(
    tmp_path: Path, tracker: Tracker, disk: Disk
) -> None:
    notes: list[str] = []
    disk.full = True
    with (
        pytest.raises(CameraError),
        StateKeeper(tmp_path / "points", tracker, report=notes.append, write=disk.write),
    ):
        raise CameraError("the cable is out")
    assert notes == ["the points cannot be saved: the disk is full"]


def test_an_error_of_the_programs_own_saves_nothing(tmp_path: Path, tracker: Tracker, disk: Disk) -> None:
    for error in (KeyboardInterrupt, ZeroDivisionError):
        with pytest.raises(error), StateKeeper(tmp_path / "points", tracker, write=disk.write):
            raise error
    assert disk.written == []


def test_a_writer_that_breaks_is_said_and_the_next_save_is_written(tmp_path: Path, tracker: Tracker) -> None:
    notes: list[str] = []
    broken = True

    def write(path: Path, saved: SavedState) -> None:
        if broken:
            raise MemoryError("a test")

    with StateKeeper(tmp_path / "points", tracker, report=notes.append, write=write) as keeper:
        keeper.save()
        settled(keeper, 1)
        while not notes:  # it is said a moment later
            time.sleep(0.001)
        broken = False
    assert "MemoryError('a test'); tracking goes on" in notes[0]
    assert keeper.outcome.error == ""


def test_a_slow_disk_holds_nobody_up_and_gets_the_newest(tmp_path: Path, tracker: Tracker, disk: Disk) -> None:
    disk.goes_on.clear()
    with StateKeeper(tmp_path / "points", tracker, report=print, write=disk.write) as keeper:
        for id in tracker.ids.tolist():
            keeper.save()
            tracker.remove([id])
        newest = keeper.save()
        assert keeper.outcome.number == 0
        disk.goes_on.set()
        settled(keeper, newest.number)
    assert [len(saved.ids) for saved in disk.written][-2:] == [0, 0]
    assert len(disk.written) <= 4


def test_a_run_without_a_frame_leaves_what_was_saved_before(tmp_path: Path, make_model: Callable[..., Tapir]) -> None:
    notes: list[str] = []
    with StateKeeper(tmp_path / "points", Tracker(make_model()), report=notes.append):
        pass
    assert notes == []
    assert list(tmp_path.iterdir()) == []


def test_something_else_is_not_overwritten(tmp_path: Path, tracker: Tracker) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StateError, match="not a saved state"):
        StateKeeper(tmp_path / "notes.txt", tracker)


def test_two_runs_track_what_one_would_have(
    tmp_path: Path, make_model: Callable[..., Tapir], make_frames: Callable[..., Pictures]
) -> None:
    """Through the loop, with points replaced: the second has no word of where they were named."""
    pictures, model = make_frames(9), make_model()
    path = tmp_path / "points"

    def tracked(pictures: Pictures, tracker: Tracker, points: Any) -> list[Tracks]:
        sink = ListSink()
        with StateKeeper(path, tracker, report=lambda note: None) as keeper:
            run(SyntheticCamera(pictures), tracker, points, [sink, keeper], keeper=keeper)
        return sink.tracks

    whole = tracked(pictures, Tracker(model, 6), Grid(3, 2))
    first = tracked(pictures[:4], Tracker(model, 6), Grid(3, 2))
    second = Tracker(model, 6)
    second.load_state(path)
    again = tracked(pictures[4:], second, NOWHERE)
    for tracks, expected in zip(first + again, whole, strict=True):
        for name in ("ids", "xy", "visible"):
            assert getattr(tracks, name).tobytes() == getattr(expected, name).tobytes()
    assert state_file.read(path, Persistence(model).origin(None), 6).frames == 9
