"""Cameras share a rig where that pays, if their inputs are of one size."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import pytest

from online_tapir.engines.choose import Choice
from online_tapir.launch import plan as planning
from online_tapir.launch.config import ModelConfig, PointsConfig
from online_tapir.launch.plan import ModelTrackers, Plan, planned
from online_tapir.model.tapir import Tapir


@pytest.fixture
def plan(make_model: Callable[..., Tapir]) -> Plan:
    return Plan(make_model(), max_points=4, window=2, resolution=None, require_kernels=False, engine=None)


def test_on_a_cpu_every_camera_has_a_tracker_of_its_own(plan: Plan) -> None:
    rigs = ModelTrackers(plan.model)
    with ExitStack() as held:
        one, other = (rigs.on(plan, 2, held) for _ in range(2))
    assert one.lanes is not other.lanes
    assert not plan.shares


def test_cameras_of_one_input_size_share_a_rig_and_lanes_are_used_again(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "shares", True)
    rigs, wide = ModelTrackers(plan.model), replace(plan, model=plan.model.at((64, 128)))
    with ExitStack() as held, ExitStack() as leaving:
        one, other = rigs.on(plan, 3, held), rigs.on(plan, 3, leaving)
        apart = rigs.on(wide, 3, held)
        assert one.lanes is other.lanes
        assert apart.lanes is not one.lanes
        assert (len(one.lanes.lanes), len(apart.lanes.lanes)) == (3, 1)
        leaving.close()
        comes = rigs.on(plan, 3, held)
        assert comes is other


def test_a_camera_that_joins_a_full_rig_gets_another(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "shares", True)
    rigs = ModelTrackers(plan.model)
    with ExitStack() as held:
        first, second = (rigs.on(plan, 2, held) for _ in range(2))
        joins = rigs.on(plan, 3, held)
        assert first.lanes is second.lanes
        assert joins.lanes is not first.lanes
        assert len(joins.lanes.lanes) == 1


def test_a_precision_that_is_not_to_be_had_is_told_once(
    make_model: Callable[..., Tapir], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "choose_for", lambda *_: Choice(None, "float32", "this processor has no bfloat16"))
    notes: list[str] = []
    wanted = ModelConfig(precision="bfloat16")
    planned(make_model(), wanted, PointsConfig(max_points=4), (96, 64), report=notes.append)
    assert notes[0] == "--precision bfloat16 is float32 here: this processor has no bfloat16"
    assert len(notes) == 2
