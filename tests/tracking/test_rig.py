"""The law of a rig: each lane gives the tracks of a lone tracker, whatever the other lanes do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from online_tapir.errors import ConfigError, FrameError, QueryError
from online_tapir.model.config import TapirConfig
from online_tapir.model.tapir import Tapir
from online_tapir.records import Frame, Tracks
from online_tapir.testing import sliding_pictures
from online_tapir.tracking.rig import Rig
from online_tapir.tracking.tracker import Tracker
from tests.configs import LIKE_SMALL

LANES = 3
SIZES = [(64, 96), (64, 96), (75, 51)]  # height and width of each lane's frames
FRAMES = 8


@pytest.fixture(params=[False, True], ids=["public inputs", "own inputs"])
def model(request: pytest.FixtureRequest, make_model: Callable[..., Tapir], tiny_config: TapirConfig) -> Tapir:
    own: bool = request.param
    return make_model(LIKE_SMALL if own else tiny_config)


@pytest.fixture(params=[False, True], ids=["in turn", "as a batch"])
def rig(request: pytest.FixtureRequest, model: Tapir) -> Rig:
    return Rig(model, LANES, max_points=8, window=3, batch=request.param)


def pictures(lane: int) -> list[NDArray[np.uint8]]:
    return sliding_pictures(FRAMES, *SIZES[lane])


def scattered(lane: int, count: int, seed: int = 0) -> NDArray[np.float32]:
    height, width = SIZES[lane]
    return (np.random.default_rng(seed).random((count, 2)) * (width, height)).astype(np.float32)


def act(tracker: Tracker, lane: int, number: int) -> None:
    """Points that are added, named late and removed, at other times in each lane."""
    if number == lane:
        tracker.add(scattered(lane, 3, seed=lane))
    if number == lane + 2:
        tracker.add(scattered(lane, 2, seed=lane + 9), frame_id=tracker.frame_ids[0])
    if number == lane + 4:
        tracker.remove(tracker.ids[1:2])


def assert_same(one: Tracks, other: Tracks) -> None:
    assert one.ids.tolist() == other.ids.tolist()
    assert (one.frame_id, one.width, one.height) == (other.frame_id, other.width, other.height)
    np.testing.assert_allclose(one.xy, other.xy, atol=1e-4, rtol=0)
    np.testing.assert_allclose(one.occlusion, other.occlusion, atol=1e-4, rtol=0)
    np.testing.assert_allclose(one.uncertainty, other.uncertainty, atol=1e-4, rtol=0)


TICKS = st.lists(st.sets(st.integers(0, LANES - 1)), min_size=FRAMES, max_size=2 * FRAMES)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ticks=TICKS)
def test_a_lane_gives_the_tracks_of_a_lone_tracker_however_the_lanes_tick(model: Tapir, ticks: list[set[int]]) -> None:
    rig = Rig(model, LANES, max_points=8, window=3, batch=True)
    alone = [Tracker(model, max_points=8, window=3) for _ in range(LANES)]
    numbers = [0] * LANES
    for tick in ticks:
        frames, expected = {}, {}
        for lane in sorted(tick):
            number = numbers[lane]
            if number == FRAMES:
                continue
            for tracker in (rig.lane(lane), alone[lane]):
                act(tracker, lane, number)
            frames[rig.lane(lane)] = pictures(lane)[number]
            expected[rig.lane(lane)] = alone[lane].step(pictures(lane)[number])
            numbers[lane] += 1
        for tracker, tracks in rig.step(frames).items():
            assert_same(tracks, expected[tracker])


def test_lanes_come_and_go_and_a_new_stream_finds_nothing_of_the_one_before(rig: Rig, model: Tapir) -> None:
    stays, leaves = rig.take(), rig.take()
    alone = Tracker(model, max_points=8, window=3)
    for tracker in (stays, leaves, alone):
        tracker.add(scattered(0, 4))
    for number in range(3):
        picture = pictures(0)[number]
        found = rig.step({stays: picture, leaves: picture[::-1].copy()})
        assert_same(found[stays], alone.step(picture))
    rig.give_back(leaves)
    assert rig.free == LANES - 1
    comes, fresh = rig.take(), Tracker(model, max_points=8, window=3)
    assert (comes is leaves, comes.frame_ids, len(comes.ids)) == (True, [], 0)
    for tracker in (comes, fresh):
        tracker.add(scattered(2, 3, seed=5))
    for number in range(3, 6):
        found = rig.step({stays: pictures(0)[number], comes: pictures(2)[number]})
        assert_same(found[stays], alone.step(pictures(0)[number]))
        assert_same(found[comes], fresh.step(pictures(2)[number]))


def test_no_more_streams_than_lanes(rig: Rig) -> None:
    taken = [rig.take() for _ in range(LANES)]
    with pytest.raises(ConfigError, match="all 3 lanes of this rig are taken"):
        rig.take()
    rig.give_back(taken[1])
    assert rig.take() is taken[1]


def test_a_lane_goes_on_where_a_saved_one_stopped_though_the_rig_runs(rig: Rig, model: Tapir, tmp_path: Path) -> None:
    whole = Tracker(model, max_points=8, window=3)
    whole.add(scattered(1, 5))
    for number in range(3):
        whole.step(pictures(1)[number])
    whole.save_state(tmp_path / "points")
    other, again = rig.take(), rig.take()
    other.add(scattered(0, 2))
    rig.step({other: pictures(0)[0]})
    again.load_state(tmp_path / "points")
    for number in range(3, 6):
        found = rig.step({other: pictures(0)[number], again: pictures(1)[number]})[again]
        expected = whole.step(pictures(1)[number])
        assert found.ids.tolist() == expected.ids.tolist()
        np.testing.assert_allclose(found.xy, expected.xy, atol=1e-4, rtol=0)
    saved = again.save_state(tmp_path / "again")
    assert saved.ids.tolist() == [0, 1, 2, 3, 4]


def test_a_frame_that_is_refused_moves_no_lane(rig: Rig, model: Tapir) -> None:
    one, other = rig.take(), rig.take()
    alone = Tracker(model, max_points=8, window=3)
    for tracker in (one, other, alone):
        tracker.add(scattered(0, 3))
    first, second = (Frame(number, 0, 0, picture) for number, picture in enumerate(pictures(0)[:2]))
    rig.step({one: first, other: first})
    alone.step(first)
    with pytest.raises(FrameError, match="frame 0 came after frame 0"):
        rig.step({one: second, other: first})
    other.add([[95.0, 63.0]])
    with pytest.raises(QueryError, match="outside"):
        rig.step({one: second, other: Frame(1, 0, 0, pictures(2)[1])})
    assert_same(rig.step({one: second})[one], alone.step(second))


def test_points_are_inspected_in_two_lanes_at_once(rig: Rig, model: Tapir) -> None:
    alone = [Tracker(model, max_points=8, window=3) for _ in range(2)]
    lanes = [rig.take() for _ in range(2)]
    for index, tracker in enumerate([*lanes, *alone]):
        tracker.add(scattered(0, 4, seed=index % 2))
        tracker.inspect(index % 2 + 1)
    found = rig.step({lane: pictures(0)[index] for index, lane in enumerate(lanes)})
    for index, (lane, lone) in enumerate(zip(lanes, alone, strict=True)):
        mine, theirs = found[lane].inspection, lone.step(pictures(0)[index]).inspection
        assert mine is not None
        assert theirs is not None
        assert mine.id == theirs.id == index + 1
        np.testing.assert_allclose(mine.cost, theirs.cost, atol=1e-4, rtol=0)
        np.testing.assert_allclose(mine.correlations[-1].query, theirs.correlations[-1].query, atol=1e-4, rtol=0)


def test_lanes_may_be_given_frames_one_by_one(rig: Rig, model: Tapir) -> None:
    """As by cameras that are served in turn, two frames under way for each."""
    lanes, alone = [rig.take() for _ in range(2)], [Tracker(model, max_points=8, window=3) for _ in range(2)]
    for index, tracker in enumerate([*lanes, *alone]):
        tracker.add(scattered(0, 4, seed=index % 2))
    for number in range(2):
        for lane in lanes:
            lane.submit(pictures(0)[number])
    for number in range(2):
        for lane, lone in reversed(list(zip(lanes, alone, strict=True))):
            assert_same(lane.collect(), lone.step(pictures(0)[number]))


def test_a_rig_without_lanes_is_refused(model: Tapir) -> None:
    with pytest.raises(ConfigError, match="lanes=0"):
        Rig(model, 0)
