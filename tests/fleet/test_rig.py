"""A rig without Ray: it tracks what it is told to, keeps points through placements, and says what is wrong."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from online_tapir import subscribe
from online_tapir.fleet.orders import CameraReport, FleetSettings, Order, RigReport
from online_tapir.fleet.rig import RigRun

PATIENCE_S = 60.0
SETTINGS = {"points": "grid:2", "size": "96x64", "fps": 15, "input": "64x64"}


class Hand:
    """Gives a rig its orders until it has carried them out."""

    def __init__(self, rig: RigRun) -> None:
        self.rig = rig
        self.orders: dict[str, Order] = {}
        self.life = ""
        self.notes: list[str] = []

    def report(self) -> RigReport:
        found = self.rig.sync(self.orders, self.life)
        self.life = found.life
        self.notes.extend(found.notes)
        return found

    def until(self, told: Callable[[Mapping[str, CameraReport]], bool]) -> RigReport:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = self.report()
            if told(found.cameras):
                return found
            assert time.monotonic() < deadline, f"it never happened: {found.cameras}, {self.notes}"
            time.sleep(0.02)


@pytest.fixture
def make_rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Hand]]:
    monkeypatch.setenv("ONLINE_TAPIR_CACHE", str(tmp_path / "cache"))
    rigs: list[RigRun] = []

    def make() -> Hand:
        fleet = FleetSettings("lab", str(tmp_path / "storage"), SETTINGS, save_every_s=0.2)
        rigs.append(RigRun(fleet, f"rig-{len(rigs)}", "127.0.0.1"))
        return Hand(rigs[-1])

    yield make
    for rig in rigs:
        rig.stop()


def streaming(*names: str) -> Callable[[Mapping[str, CameraReport]], bool]:
    return lambda cameras: all(name in cameras and cameras[name].state == "streaming" for name in names)


def heard(report: RigReport, camera: str) -> Any:
    """The first tracks that have points: before the model's first answer there are none."""
    with closing(subscribe(report.address, camera, timeout_ms=20_000)) as stream:
        return next(tracks for tracks in stream if len(tracks.ids))


def test_a_camera_goes_on_with_its_points_on_another_rig(make_rig: Callable[[], Hand]) -> None:
    one, two = make_rig(), make_rig()
    one.report()
    one.orders = {"door": Order(1, {"camera": "demo:1"}), "yard": Order(1, {"camera": "demo:2"})}
    before = heard(one.until(streaming("door", "yard")), "door")
    assert (before.epoch, len(before.ids)) == (1, 4)
    one.orders = {"yard": one.orders["yard"]}
    one.until(lambda cameras: set(cameras) == {"yard"})
    two.report()
    two.orders = {"door": Order(2, {"camera": "demo:1"})}
    after = heard(two.until(streaming("door")), "door")
    assert after.epoch == 2
    assert after.ids.tolist() == before.ids.tolist()


def test_orders_for_another_life_are_ignored(make_rig: Callable[[], Hand]) -> None:
    hand = make_rig()
    hand.orders, hand.life = {"door": Order(1, {"camera": "demo:1"})}, "another"
    assert hand.rig.sync(hand.orders, "another").cameras == {}
    assert hand.rig.sync(hand.orders, hand.report().life).cameras["door"].state == "opening"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"camera": "/nowhere.mp4"}, "there is no file"),
        ({"camera": "demo", "fsp": 3}, "no setting 'fsp'; did you mean 'fps'"),
        ({"camera": "demo", "save-csv": "x.csv"}, "a rig has no table"),
    ],
    ids=["no file", "no setting", "an output"],
)
def test_a_camera_that_cannot_be_opened_fails_alone(
    table: dict[str, Any], said: str, make_rig: Callable[[], Hand]
) -> None:
    hand = make_rig()
    hand.report()
    hand.orders = {"good": Order(1, {"camera": "demo:1"}), "bad": Order(1, table)}
    found = hand.until(lambda cameras: streaming("good")(cameras) and cameras["bad"].state == "failed")
    assert said in found.cameras["bad"].reason


def test_an_address_that_is_not_there_yet_is_waited_for(make_rig: Callable[[], Hand]) -> None:
    hand = make_rig()
    hand.report()
    hand.orders = {"late": Order(1, {"camera": "tcp://127.0.0.1:9"})}
    hand.until(lambda cameras: cameras["late"].state == "lost")


def test_points_that_cannot_be_read_are_told_and_tracking_begins_without(
    make_rig: Callable[[], Hand], tmp_path: Path
) -> None:
    (tmp_path / "storage" / "states" / "door").mkdir(parents=True)
    (tmp_path / "storage" / "states" / "door" / "1.state").write_bytes(b"half a file")
    hand = make_rig()
    hand.report()
    hand.orders = {"door": Order(2, {"camera": "demo:1"})}
    report = hand.until(streaming("door"))
    assert any("door begins without its points" in note for note in hand.notes)
    assert len(heard(report, "door").ids) == 4


def test_a_storage_that_is_gone_is_told_and_tracking_goes_on(make_rig: Callable[[], Hand], tmp_path: Path) -> None:
    (tmp_path / "storage").write_text("a file where the folder should be")
    hand = make_rig()
    hand.report()
    hand.orders = {"door": Order(1, {"camera": "demo:1"})}
    hand.until(lambda cameras: any("tracking goes on" in note for note in hand.notes))
    assert hand.until(streaming("door"))
