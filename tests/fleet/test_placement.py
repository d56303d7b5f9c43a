"""Laws of the placement: no lane is used twice, nobody waits while there is room, moves end, and loads even out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from online_tapir.fleet.placement import BALANCE_S, GAIN, REST_S, SETTLE_S, Placement, RigRoom

LANES = 4


def rooms(placement: Placement, names: list[str], cost: dict[str, float] | float = 0.1) -> dict[str, RigRoom]:
    """Rigs that measure what their cameras cost."""
    costs = cost if isinstance(cost, dict) else dict.fromkeys(placement.homes, cost)
    return {rig: RigRoom(LANES, {camera: costs[camera] for camera in of(placement, rig)}) for rig in names}


def of(placement: Placement, rig: str) -> list[str]:
    """The cameras of a rig."""
    return [camera for camera, home in placement.homes.items() if home.rig == rig]


def loads(placement: Placement, names: list[str], cost: dict[str, float]) -> dict[str, float]:
    return {rig: sum(cost[camera] for camera in of(placement, rig)) for rig in names}


@settings(max_examples=60)
@given(st.data())
def test_whatever_happens_no_rig_has_more_cameras_than_lanes_and_nobody_waits_while_there_is_room(
    data: st.DataObject,
) -> None:
    placement, now_s = Placement(), 0.0
    all_cameras, all_rigs = [f"camera{i}" for i in range(14)], [f"rig{i}" for i in range(4)]
    for _ in range(data.draw(st.integers(1, 12))):
        now_s += data.draw(st.sampled_from([0.5, 15.0, 400.0]))
        wanted = set(data.draw(st.lists(st.sampled_from(all_cameras))))
        there = data.draw(st.lists(st.sampled_from(all_rigs), unique=True))
        draining = set(data.draw(st.lists(st.sampled_from(all_rigs))))
        costs = {camera: data.draw(st.floats(0, 2)) for camera in all_cameras}
        rigs = {
            rig: RigRoom(
                LANES, {c: costs[c] for c, home in placement.homes.items() if home.rig == rig}, rig in draining
            )
            for rig in there
        }
        before = {camera: home.rig for camera, home in placement.homes.items()}
        decisions = placement.decide(now_s, wanted, rigs)
        homes = {camera: home.rig for camera, home in placement.homes.items()}
        assert set(homes) | set(placement.waiting) == wanted
        assert not set(homes) & set(placement.waiting)
        for rig in there:
            assert sum(home == rig for home in homes.values()) <= LANES
        free = sum(LANES - sum(home == rig for home in homes.values()) for rig in set(there) - draining)
        assert not placement.waiting or not free
        assert all(homes[camera] in there for camera in homes)
        changed = {camera for camera in homes if homes[camera] != before.get(camera)}
        assert {decision.camera for decision in decisions} >= changed


def test_cameras_of_a_rig_that_is_gone_go_to_the_others_and_the_rest_stay() -> None:
    placement = Placement()
    wanted = [f"camera{i}" for i in range(6)]
    placement.decide(0, wanted, rooms(placement, ["a", "b", "c"]))
    before = {camera: home.rig for camera, home in placement.homes.items()}
    assert sorted(before.values()) == ["a", "a", "b", "b", "c", "c"]
    placement.decide(1, wanted, rooms(placement, ["a", "c"]))
    for camera, home in placement.homes.items():
        assert home.rig == before[camera] if before[camera] != "b" else home.rig in "ac"


def test_a_draining_rig_is_emptied_only_as_far_as_there_is_room() -> None:
    placement = Placement()
    wanted = [f"camera{i}" for i in range(6)]
    placement.decide(0, wanted, rooms(placement, ["a", "b"]))
    rigs = rooms(placement, ["a", "b"])
    rigs["a"] = RigRoom(LANES, rigs["a"].costs, draining=True)
    placement.decide(1, wanted, rigs)
    there = [home.rig for home in placement.homes.values()]
    assert (there.count("a"), there.count("b")) == (2, LANES)
    assert not placement.waiting


def test_cameras_without_a_lane_wait_and_are_told_why() -> None:
    placement = Placement()
    wanted = [f"camera{i}" for i in range(LANES + 1)]
    placement.decide(0, wanted, rooms(placement, ["a"]))
    (why,) = placement.waiting.values()
    assert "all 4 lanes of 1 rigs are taken" in why
    placement.decide(1, wanted, {})
    assert set(placement.waiting.values()) == {"no rig is up"}
    assert len(placement.waiting) == LANES + 1


def test_a_new_rig_is_filled_until_the_loads_are_even_and_then_nothing_moves() -> None:
    placement, now_s = Placement(), 0.0
    cost = {f"camera{i}": 0.2 + 0.05 * i for i in range(4)}
    placement.decide(now_s, list(cost), rooms(placement, ["a"], cost))
    for _ in range(40):
        now_s += BALANCE_S
        placement.decide(now_s, list(cost), rooms(placement, ["a", "b"], cost))
    there = loads(placement, ["a", "b"], cost)
    assert max(there.values()) - min(there.values()) < 2 * GAIN + max(cost.values())
    moved = placement.moves
    assert moved >= 1
    for _ in range(200):
        now_s += REST_S
        placement.decide(now_s, list(cost), rooms(placement, ["a", "b"], cost))
    assert placement.moves == moved


def test_a_camera_that_was_moved_rests() -> None:
    placement = Placement()
    cost = {"one": 0.5, "two": 0.5}
    placement.decide(0, list(cost), rooms(placement, ["a"], cost))
    moved_s = SETTLE_S + 1
    placement.decide(moved_s, list(cost), rooms(placement, ["a", "b"], cost))
    assert placement.moves == 1
    (moved,) = [camera for camera, home in placement.homes.items() if home.rig == "b"]
    heavy = {**cost, moved: 3.0, "three": 0.1}
    placement.adopt("three", "b", 0)
    placement.decide(moved_s + REST_S - 1, list(heavy), rooms(placement, ["a", "b"], heavy))
    assert placement.homes[moved].rig == "b"


@pytest.mark.parametrize("asked", ["a", "b"])
def test_a_move_by_hand_holds(asked: str) -> None:
    placement = Placement()
    placement.decide(0, ["one"], rooms(placement, ["a", "b"]))
    placement.move("one", asked, 1)
    placement.decide(SETTLE_S + 2, ["one"], rooms(placement, ["a", "b"]))
    assert placement.homes["one"].rig == asked
