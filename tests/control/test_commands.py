"""Each command does what its line in the table says, or refuses by name and changes nothing."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from online_tapir.camera import Capture, SyntheticCamera
from online_tapir.clock import StepClock
from online_tapir.control.commands import obey
from online_tapir.control.protocol import ControlError, Request
from online_tapir.live.state_keeper import StateKeeper
from online_tapir.live.stream import Stream
from online_tapir.model.tapir import Tapir
from online_tapir.points.placement import Listed
from online_tapir.records import Frame
from online_tapir.tracking.tracker import Tracker

HEIGHT, WIDTH, ROOM, WINDOW = 33, 49, 7, 4
XY = np.array([[10, 12], [40, 30]], np.float32)


class Run:
    """A stream and the frames it is stepped through."""

    def __init__(self, model: Tapir, pictures: list[NDArray[np.uint8]], *, replenish: bool = False) -> None:
        tracker = Tracker(model, max_points=ROOM, window=WINDOW)
        self.stream = Stream(
            Capture(SyntheticCamera(pictures[:1])),
            tracker,
            threading.Event(),
            points=Listed(XY),
            replenish=replenish,
            clock=StepClock(5_000_000_000, 100_000_000_000),
        )
        self._pictures = pictures
        self._next = 0

    def step(self, frames: int = 1) -> None:
        for id in range(self._next, self._next + frames):
            frame = Frame(id, id, id, self._pictures[id % len(self._pictures)])
            self.stream.submit(frame)
            _, _, tracks = self.stream.collect()
            self.stream.published(frame, tracks)
        self._next += frames

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return obey(self.stream, Request(command, arguments))

    def refused(self, command: str, **arguments: Any) -> str:
        before = self.stream.tracker.ids.tolist()
        with pytest.raises(ControlError) as refusal:
            self.ask(command, **arguments)
        assert self.stream.tracker.ids.tolist() == before
        return refusal.value.name


@pytest.fixture
def run(make_model: Callable[..., Tapir], make_frames: Callable[..., list[NDArray[np.uint8]]]) -> Run:
    run = Run(make_model(), make_frames(9, HEIGHT, WIDTH))
    run.step(6)  # frames 0 to 5, of which the window holds 2 to 5
    return run


def test_added_points_live_on_the_very_next_frame_under_ids_of_their_own(run: Run) -> None:
    assert run.ask("add", xy=[(20, 20), (25, 20)]) == {"ids": [2, 3], "frame_id": 5}
    assert run.ask("list")["waiting"] == [2, 3]
    run.step()
    assert [id for id, *_ in run.ask("list")["points"]] == [0, 1, 2, 3]
    assert run.ask("list")["waiting"] == []


def test_a_point_may_be_named_on_any_frame_of_the_window_and_on_no_other(run: Run) -> None:
    for frame_id in (2, 3, 4, 5):
        assert run.ask("add", xy=[(20, 20)], frame_id=frame_id)["frame_id"] == frame_id
    for frame_id in (0, 1, 6, 2**62):
        assert run.refused("add", xy=[(20, 20)], frame_id=frame_id) == "frame_left_window"


def test_normalised_points_are_where_the_pixels_are(run: Run) -> None:
    run.ask("add", xy=[(0.5, 1.0)], normalised=True)
    assert_allclose(run.stream._named[-1][1].xy, [[WIDTH / 2, HEIGHT]])
    assert run.refused("add", xy=[(0.5, 1.01)], normalised=True) == "outside_frame"


def test_what_does_not_fit_is_refused_whole(run: Run) -> None:
    assert run.refused("add", xy=[(20, 20)] * (ROOM - 1)) == "no_room"
    assert run.refused("add", xy=[(20, 20), (WIDTH + 1, 5)]) == "outside_frame"
    assert run.refused("remove", ids=[0, 99]) == "unknown_point"
    assert run.refused("replenish", on=True, points=ROOM + 1) == "no_room"
    assert run.refused("snapshot", format="tiff") == "bad_request"
    assert run.refused("set", heartbeat_s=0.0) == "bad_request"


def test_an_empty_list_of_points_is_no_point(run: Run) -> None:
    assert run.ask("add", xy=[])["ids"] == []
    assert run.ask("remove", ids=[])["removed"] == 0


def test_ids_are_never_used_twice(run: Run) -> None:
    seen: list[int] = [0, 1]
    for _ in range(3):
        seen += run.ask("add", xy=[(20, 20), (25, 25)])["ids"]
        run.step()
        assert run.ask("clear")["removed"] == len(run.stream.tracks.ids)  # type: ignore[union-attr]
        run.step()
    assert seen == list(range(8))


def test_a_removed_point_is_gone_from_the_list_at_once_and_may_be_one_that_waits(run: Run) -> None:
    run.ask("add", xy=[(20, 20)])
    assert run.ask("remove", ids=[0, 2, 2]) == {"removed": 2}
    assert [id for id, *_ in run.ask("list")["points"]] == [1]
    run.step()
    assert run.stream.tracks is not None
    assert run.stream.tracks.ids.tolist() == [1]


def test_a_run_without_points_goes_on(run: Run) -> None:
    run.ask("clear")
    run.step(2)
    assert run.ask("list") == {"frame_id": 7, "points": [], "waiting": [], "labels": []}
    run.ask("add", xy=[(20, 20)])
    run.step()
    assert len(run.ask("list")["points"]) == 1


def test_the_list_says_where_points_are_on_the_newest_frame(run: Run) -> None:
    tracks, listed = run.stream.tracks, run.ask("list")
    assert tracks is not None
    assert listed["frame_id"] == tracks.frame_id == 5
    assert_allclose([[x, y] for _, x, y, _ in listed["points"]], tracks.xy)
    assert [visible for *_, visible in listed["points"]] == tracks.visible.tolist()


@pytest.mark.parametrize(("format", "largest_error"), [("png", 0), ("jpeg", 64)])
def test_a_snapshot_is_the_newest_frame_under_its_own_id(run: Run, format: str, largest_error: int) -> None:
    snapshot = run.ask("snapshot", format=format)
    assert (snapshot["frame_id"], snapshot["width"], snapshot["height"]) == (5, WIDTH, HEIGHT)
    picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(snapshot["image"], np.uint8), -1), cv2.COLOR_BGR2RGB)
    assert run.stream.frame is not None
    assert np.abs(picture.astype(int) - run.stream.frame.rgb).max() <= largest_error
    run.ask("add", xy=[(20, 20)], frame_id=snapshot["frame_id"])


def test_before_the_first_frame_there_is_nothing_to_name_points_on(
    make_model: Callable[..., Tapir], make_frames: Callable[..., list[NDArray[np.uint8]]]
) -> None:
    run = Run(make_model(), make_frames(1, HEIGHT, WIDTH))
    assert run.refused("add", xy=[(1, 1)]) == "no_frame"
    assert run.refused("snapshot") == "no_frame"
    assert run.ask("list") == {"frame_id": -1, "points": [], "waiting": [], "labels": []}
    assert run.ask("status")["frame_id"] == -1


def test_replenish_holds_as_many_points_as_there_are_by_hand(
    make_model: Callable[..., Tapir], make_frames: Callable[..., list[NDArray[np.uint8]]]
) -> None:
    run = Run(make_model(), make_frames(9, HEIGHT, WIDTH), replenish=True)
    run.step()
    assert run.stream.replenishing == 2
    run.ask("add", xy=[(20, 20)])
    assert run.stream.replenishing == 3
    run.ask("remove", ids=[0, 1])
    assert run.stream.replenishing == 1
    run.ask("clear")
    run.step(2)
    assert run.ask("list")["points"] == []  # cleared points do not come back of themselves


def test_replenish_fills_up_to_a_number_and_ends_when_told(run: Run) -> None:
    assert run.ask("replenish", on=True, points=5) == {"on": True, "points": 5}
    run.step(2)
    assert len(run.ask("list")["points"]) == 5
    run.ask("set", patience_frames=3)
    assert (run.stream.patience_frames, run.stream.replenishing) == (3, 5)
    assert run.ask("replenish", on=False) == {"on": False, "points": 0}
    run.ask("remove", ids=[0])
    run.step(2)
    assert len(run.ask("list")["points"]) == 4


def test_a_point_is_inspected_from_the_next_frame_on_until_it_is_told_or_goes(run: Run) -> None:
    assert run.ask("status")["inspected"] == -1
    run.ask("add", xy=[(20, 20)])
    assert run.ask("inspect", id=2) == {"inspected": 2}  # before its first frame
    run.step()
    assert run.stream.tracks is not None
    assert run.stream.tracks.inspection is not None
    assert (run.stream.tracks.inspection.id, run.ask("status")["inspected"]) == (2, 2)
    for id in (3, 2**31 - 1):
        assert run.refused("inspect", id=id) == "unknown_point"
    assert run.ask("status")["inspected"] == 2
    run.ask("remove", ids=[2])
    assert run.ask("status")["inspected"] == -1
    run.ask("inspect", id=1)
    assert run.ask("inspect") == {"inspected": -1}
    run.step()
    assert run.stream.tracks.inspection is None


def test_the_status_tells_the_state_and_how_long_it_has_lasted(run: Run) -> None:
    status = run.ask("status")
    assert (status["state"], status["frame_id"], status["points"], status["room"]) == ("streaming", 5, 2, ROOM - 2)
    assert status["oldest_frame_id"] == 2
    run.ask("pause")
    run.ask("pause")
    status = run.ask("status")
    assert (status["state"], status["since_unix_ns"]) == ("paused", 100_000_000_000)
    run.ask("resume")
    assert run.ask("status")["state"] == "streaming"


def test_options_that_can_change_are_told_and_changed_together(run: Run) -> None:
    assert run.ask("set") == {"heartbeat_s": 1.0, "patience_frames": 45}
    assert run.ask("set", heartbeat_s=0.25, patience_frames=7) == {"heartbeat_s": 0.25, "patience_frames": 7}
    assert run.stream.heartbeat_s == 0.25


def test_points_are_saved_to_the_runs_own_file_and_the_status_says_when(run: Run, tmp_path: Path) -> None:
    tracker = run.stream.tracker
    with StateKeeper(tmp_path / "points", tracker, report=lambda note: None) as keeper:
        run.stream.keeper = keeper
        run.ask("add", xy=[(20, 20)])
        assert run.ask("save") == {"save": 1, "frame_id": 5, "points": 3}
    status = run.ask("status")
    assert (status["saves"], status["save_error"]) == (2, "")
    again = Tracker(tracker.model)
    again.load_state(tmp_path / "points")
    assert again.ids.tolist() == [0, 1, 2]


def test_without_a_file_of_its_own_or_a_frame_a_run_saves_nothing(run: Run) -> None:
    assert run.refused("save") == "not_saved"
    assert (run.ask("status")["saves"], run.ask("status")["save_error"]) == (0, "")
    run.stream.frame = None
    assert run.refused("save") == "no_frame"


def test_stop_sets_the_event_that_ends_the_run(run: Run) -> None:
    assert run.ask("stop") == {"stopping": True}
    assert run.stream.stop.is_set()


def test_a_point_is_inspected_only_where_somebody_sees_it(stream: Stream) -> None:
    stream.shows_inspection = lambda: False
    (id_,) = stream.add(np.array([[5, 5]], np.float32), 5)
    with pytest.raises(ControlError, match=r"no Rerun viewer or window") as refusal:
        obey(stream, Request("inspect", {"id": int(id_)}))
    assert refusal.value.name == "not_shown"
    assert obey(stream, Request("inspect", {})) == {"inspected": -1}
