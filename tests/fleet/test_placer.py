"""What the placer promises: one rig a camera, a higher epoch each time, nothing forgotten, whatever is lost."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from online_tapir.errors import ConfigError, StateError
from online_tapir.fleet.orders import FleetSettings
from online_tapir.fleet.placer import AWAY_S, GATHER_S, LEAVE_S, RETRY_S, Placer, RigState
from online_tapir.fleet.storage import Storage
from online_tapir.wire.directory import CameraEntry, Directory
from tests.fleet.fakes import VERSION, FakeRig, FakeRigs

TABLE = {"camera": "demo"}
TICK_S = 0.25


class Hall:
    """A placer, its rigs and its clock."""

    def __init__(self, folder: Path, *rigs: FakeRig) -> None:
        self.folder = folder
        self.rigs = FakeRigs(*rigs)
        self.now_s = 0.0
        self.placer = self.begun()

    def begun(self) -> Placer:
        """Another placer for the same fleet, as after a restart."""
        fleet = FleetSettings("lab", str(self.folder))
        return Placer(fleet, self.rigs, Storage(fleet.storage), version=VERSION, monotonic_s=lambda: self.now_s)

    def ticks(self, count: int = 4) -> Directory:
        for _ in range(count):
            self.now_s += TICK_S
            now = self.placer.tick()
        return now

    def waits(self, seconds: float) -> Directory:
        return self.ticks(int(seconds / TICK_S) + 1)

    def camera(self, name: str) -> CameraEntry:
        found = self.placer.directory().camera(name)
        assert found is not None
        return found

    def holders(self, name: str) -> list[str]:
        return [rig.name for rig in self.rigs.rigs.values() if name in rig.held and not rig.gone]


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    return Hall(tmp_path, FakeRig("a"), FakeRig("b"))


def test_cameras_are_spread_over_the_rigs_and_found_in_the_directory(hall: Hall) -> None:
    hall.placer.want({f"camera{i}": TABLE for i in range(4)})
    now = hall.ticks()
    assert sorted(camera.rig for camera in now.cameras) == ["a", "a", "b", "b"]
    assert {camera.state for camera in now.cameras} == {"streaming"}
    assert {camera.epoch for camera in now.cameras} == {1}
    assert {(rig.name, rig.taken) for rig in now.rigs} == {("a", 2), ("b", 2)}


def test_a_restarted_rig_gets_its_cameras_back_in_a_higher_epoch(hall: Hall) -> None:
    hall.placer.want({"one": TABLE, "two": TABLE})
    hall.ticks()
    rig = hall.camera("one").rig
    hall.rigs.rigs[rig].die()
    hall.ticks()
    one, two = hall.camera("one"), hall.camera("two")
    assert (one.rig, one.epoch, one.restarts, one.state) == (rig, 2, 1, "streaming")
    assert (two.epoch, two.restarts) == (1, 0)


def test_cameras_of_a_rig_that_is_away_wait_for_it_and_then_go_elsewhere(hall: Hall) -> None:
    hall.placer.want({"one": TABLE})
    hall.ticks()
    rig = hall.camera("one").rig
    hall.rigs.rigs[rig].away_s = AWAY_S - 1
    hall.ticks()
    assert (hall.camera("one").rig, hall.camera("one").state) == (rig, "waiting")
    hall.rigs.rigs[rig].away_s = AWAY_S + 1
    hall.ticks()
    one = hall.camera("one")
    assert (one.rig != rig, one.epoch, one.restarts) == (True, 2, 1)


def test_cameras_of_a_rig_that_is_away_wait_for_its_restart_where_no_other_has_room(tmp_path: Path) -> None:
    hall = Hall(tmp_path, FakeRig("a", lanes=2), FakeRig("b", lanes=2))
    hall.placer.want({f"camera{i}": TABLE for i in range(3)})
    hall.ticks()
    full = "a" if hall.rigs.rigs["a"].held.keys() > {"camera0"} else "b"
    hall.rigs.rigs[full].away_s = AWAY_S + 1
    hall.ticks()
    states = sorted(camera.state for camera in hall.placer.directory().cameras)
    assert states == ["streaming", "streaming", "waiting"]
    hall.rigs.rigs[full].die()
    hall.rigs.rigs[full].away_s = None
    now = hall.ticks()
    assert {camera.state for camera in now.cameras} == {"streaming"}
    assert sum(camera.restarts for camera in now.cameras) == 2


def test_cameras_of_a_lost_machine_go_to_the_others_at_once(hall: Hall) -> None:
    hall.placer.want({"one": TABLE, "two": TABLE})
    hall.ticks()
    hall.rigs.rigs["a"].gone = True
    hall.rigs.rigs["a"].away_s = 0.0
    now = hall.ticks(3)
    assert {camera.rig for camera in now.cameras} == {"b"}
    assert {camera.state for camera in now.cameras} == {"streaming"}


def test_a_moved_camera_is_let_go_of_before_it_is_given_to_another(hall: Hall) -> None:
    hall.placer.want({"one": TABLE})
    hall.ticks()
    old = hall.camera("one").rig
    new = "b" if old == "a" else "a"
    hall.placer.move("one", new)
    for _ in range(6):
        hall.ticks(1)
        assert len(hall.holders("one")) <= 1
    assert hall.holders("one") == [new]
    assert (hall.camera("one").epoch, hall.camera("one").restarts) == (2, 0)


def test_a_rig_that_never_lets_go_does_not_hold_a_camera_for_ever(hall: Hall) -> None:
    hall.placer.want({"one": TABLE})
    hall.ticks()
    old = hall.camera("one").rig
    hall.rigs.rigs[old].clings = True
    hall.placer.move("one", "b" if old == "a" else "a")
    hall.ticks()
    assert hall.camera("one").epoch == 1
    hall.waits(LEAVE_S + 1)
    assert hall.camera("one").epoch == 2
    assert any("has not let go" in note for note in hall.placer.directory().notes)


def test_a_new_placer_goes_on_with_what_was_wanted_and_moves_nothing(hall: Hall) -> None:
    hall.placer.want({f"camera{i}": TABLE for i in range(4)})
    before = hall.ticks()
    hall.rigs.rigs["b"].up = False  # it answers a moment later than the other
    hall.placer = hall.begun()
    hall.ticks(2)
    hall.rigs.rigs["b"].up = True
    after = hall.ticks()
    assert [(one.name, one.rig, one.epoch) for one in after.cameras] == [
        (one.name, one.rig, one.epoch) for one in before.cameras
    ]


def test_a_new_placer_does_not_wait_for_ever_for_a_rig_that_says_nothing(hall: Hall) -> None:
    hall.placer.want({"one": TABLE})
    hall.ticks()
    silent = hall.camera("one").rig
    hall.rigs.rigs[silent].up = False
    hall.placer = hall.begun()
    hall.waits(GATHER_S + 1)
    assert hall.camera("one").rig not in ("", silent)
    assert hall.camera("one").epoch == 2


def test_without_its_storage_a_new_placer_takes_the_word_of_the_rigs(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall.placer.want({"one": TABLE})
    before = hall.ticks()

    def broken(self: Storage) -> dict[str, Any]:
        raise StateError("the disk is gone")

    monkeypatch.setattr(Storage, "read_fleet", broken)
    hall.placer = hall.begun()
    after = hall.ticks()
    assert [(one.name, one.rig, one.epoch) for one in after.cameras] == [
        (one.name, one.rig, one.epoch) for one in before.cameras
    ]
    assert any("the disk is gone" in note for note in after.notes)


def test_a_full_storage_stops_nothing_and_is_told_once(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Storage, content: Mapping[str, Any]) -> None:
        raise StateError("the disk is full")

    monkeypatch.setattr(Storage, "write_fleet", full)
    hall.placer.want({"one": TABLE})
    now = hall.ticks(20)
    assert now.cameras[0].state == "streaming"
    assert len([note for note in now.notes if "the disk is full; tracking goes on" in note]) == 1


def test_a_camera_that_fails_is_tried_again_later_and_later(hall: Hall) -> None:
    for rig in hall.rigs.rigs.values():
        rig.failing["one"] = "there is no such file"
    hall.placer.want({"one": TABLE})
    hall.ticks()
    assert (hall.camera("one").state, hall.camera("one").reason) == ("failed", "there is no such file")
    hall.waits(RETRY_S[0])
    assert hall.camera("one").epoch == 2
    hall.waits(RETRY_S[0])
    assert hall.camera("one").epoch == 2
    hall.waits(RETRY_S[0])
    assert hall.camera("one").epoch == 3


def test_a_camera_that_has_ended_is_not_begun_again(hall: Hall) -> None:
    hall.placer.want({"one": TABLE})
    hall.ticks()
    for rig in hall.rigs.rigs.values():
        rig.ended.add("one")
    hall.waits(60)
    assert (hall.camera("one").state, hall.camera("one").epoch, hall.holders("one")) == ("ended", 1, [])


def test_a_rig_of_another_version_is_refused_by_name(hall: Hall) -> None:
    hall.rigs.rigs["b"].version = "0.9"
    hall.placer.want({"one": TABLE, "two": TABLE})
    now = hall.ticks()
    assert {camera.rig for camera in now.cameras} == {"a"}
    (refused,) = [rig for rig in now.rigs if rig.state == "refused"]
    assert "online-tapir 0.9, the fleet 1.0" in refused.reason


def test_a_drained_machine_is_emptied_and_taken_back(hall: Hall) -> None:
    hall.rigs.rigs["b"].node = "10.0.0.2"
    hall.placer.want({f"camera{i}": TABLE for i in range(3)})
    hall.ticks()
    assert hall.placer.drain("10.0.0.2") == ["b"]
    now = hall.ticks(8)
    assert {camera.rig for camera in now.cameras} == {"a"}
    assert {camera.state for camera in now.cameras} == {"streaming"}
    hall.placer.drain("b", back=True)
    assert {rig.state for rig in hall.ticks().rigs} == {"up"}


def test_more_cameras_than_lanes_wait_and_say_what_would_fit(hall: Hall) -> None:
    hall.placer.want({f"camera{i}": TABLE for i in range(9)})
    now = hall.ticks()
    (waiting,) = [camera for camera in now.cameras if camera.state == "waiting"]
    assert "all 8 lanes of 2 rigs are taken" in waiting.reason


def test_what_a_rig_tells_is_told_once_though_its_report_stays_the_last(hall: Hall) -> None:
    report = replace(hall.rigs.rigs["a"].report(), notes=("the door is open",))
    hall.rigs.look = lambda: {"a": RigState("10.0.0.1", report)}  # type: ignore[method-assign]
    now = hall.ticks(10)
    assert [note for note in now.notes if "the door is open" in note] == ["a: the door is open"]


def test_a_changed_table_is_a_new_placement(hall: Hall) -> None:
    hall.placer.want({"one": TABLE})
    hall.ticks()
    hall.placer.want({"one": {**TABLE, "points": "grid:3"}})
    hall.ticks()
    assert hall.camera("one").epoch == 2
    (holder,) = hall.holders("one")
    assert hall.rigs.rigs[holder].held["one"].table["points"] == "grid:3"


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda placer: placer.add("one", TABLE), "camera 'one' already"),
        (lambda placer: placer.add("two", {}), "names no source"),
        (lambda placer: placer.add("two", {**TABLE, "pionts": "grid:3"}), "did you mean 'points'"),
        (lambda placer: placer.remove("three"), "no camera is called 'three'; there are one"),
        (lambda placer: placer.move("one", "c"), "no rig is called 'c'; there are a, b"),
        (lambda placer: placer.drain("c"), "no rig or node is called 'c'"),
    ],
    ids=["taken", "no source", "no setting", "no camera", "no rig", "no place"],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(hall: Hall, ask: Any, said: str) -> None:
    hall.placer.want({"one": TABLE})
    hall.ticks()
    with pytest.raises(ConfigError, match=said):
        ask(hall.placer)


def test_a_move_to_a_full_rig_is_refused(tmp_path: Path) -> None:
    hall = Hall(tmp_path, FakeRig("a", lanes=1), FakeRig("b", lanes=1))
    hall.placer.want({"one": TABLE, "two": TABLE})
    hall.ticks()
    with pytest.raises(ConfigError, match="all 1 lanes of b are taken"):
        hall.placer.move(next(one.name for one in hall.placer.directory().cameras if one.rig == "a"), "b")


@settings(max_examples=40)
@given(st.data())
def test_whatever_is_lost_epochs_only_grow_and_what_is_published_has_one_holder(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    hall = Hall(tmp_path_factory.mktemp("fleet"), *(FakeRig(name) for name in "abc"))
    wanted = [f"camera{i}" for i in range(6)]
    hall.placer.want(dict.fromkeys(wanted, TABLE))
    epochs = dict.fromkeys(wanted, 0)
    for _ in range(data.draw(st.integers(5, 25))):
        rig = hall.rigs.rigs[data.draw(st.sampled_from("abc"))]
        match data.draw(st.sampled_from(["nothing", "die", "away", "back", "placer", "move", "drain", "undrain"])):
            case "die":
                rig.die()
            case "away":
                rig.away_s = data.draw(st.sampled_from([1.0, AWAY_S + 1]))
            case "back":
                rig.away_s = None
            case "placer":
                hall.placer = hall.begun()
            case "move":
                with suppress(ConfigError):  # no lane is free there, or it is away
                    hall.placer.move(data.draw(st.sampled_from(wanted)), rig.name)
            case "drain" | "undrain" as how:
                if rig.name in {one.name for one in hall.placer.directory().rigs}:
                    hall.placer.drain(rig.name, back=how == "undrain")
        for camera in hall.ticks(1).cameras:
            assert camera.epoch >= epochs[camera.name]
            epochs[camera.name] = camera.epoch
        for name in wanted:
            reachable = [rig for rig in hall.rigs.rigs.values() if rig.away_s is None and name in rig.held]
            current = [
                rig for rig in reachable if rig.held[name].epoch == max(one.held[name].epoch for one in reachable)
            ]
            assert len(current) <= 1
    for rig in hall.rigs.rigs.values():
        rig.away_s = None
        hall.placer.drain(rig.name, back=True) if rig.name in {r.name for r in hall.placer.directory().rigs} else None
    now = hall.waits(LEAVE_S + GATHER_S + 2)
    assert {camera.state for camera in now.cameras} == {"streaming"}
    assert all(len(hall.holders(name)) == 1 for name in wanted)
