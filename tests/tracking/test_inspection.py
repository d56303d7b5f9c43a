"""What is said of an inspected point is of that point, in image pixels, and says what its published track says."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from online_tapir.errors import QueryError
from online_tapir.model.config import TapirConfig
from online_tapir.model.tapir import Tapir
from online_tapir.records import Correlations, Inspection, Tracks
from online_tapir.tracking.tracker import Tracker
from online_tapir.wire import messages as wire

Pictures = list[NDArray[np.uint8]]
MakeModel = Callable[..., Tapir]
MakeFrames = Callable[..., Pictures]

WIDTH, HEIGHT = 161, 130
XY = [[40.5, 30], [100, 64], [80, 65], [20, 100], [155, 3]]


@pytest.fixture
def model(make_model: MakeModel, tiny_config: TapirConfig) -> Tapir:
    return make_model(replace(tiny_config, recent_inputs=True))


@pytest.fixture
def tracker(model: Tapir) -> Tracker:
    tracker = Tracker(model, 8)
    tracker.add(XY)
    return tracker


@pytest.fixture
def frames(make_frames: MakeFrames) -> Pictures:
    return make_frames(8, HEIGHT, WIDTH)


def seen(tracks: Tracks) -> Inspection:
    assert tracks.inspection is not None
    return tracks.inspection


def told(tracks: Tracks, id: int) -> tuple[object, ...]:
    """What the tracks say of a point."""
    row = tracks.ids.tolist().index(id)
    place, chances = tracks.xy[row].tolist(), (tracks.occlusion[row], tracks.uncertainty[row])
    return (place, *chances, tracks.visible[row])


@pytest.mark.parametrize(
    ("resolution", "names"),
    [
        (None, ["match", "refine 1", "refine 2"]),
        ((96, 64), ["match", "refine 1", "refine 2"]),
        (
            "frame",
            ["match", *(f"{size} refine {i}" for size in ("96x64", "120x88", "160x128") for i in (1, 2))],
        ),
    ],
    ids=str,
)
def test_every_stage_has_its_name_and_the_last_is_what_is_published(
    model: Tapir, frames: Pictures, resolution: tuple[int, int] | None, names: list[str]
) -> None:
    tracker = Tracker(model, 8, resolution=resolution)
    tracker.add(XY)
    tracker.inspect(1)
    for frame in frames[:3]:
        tracks = tracker.step(frame)
        inspection = seen(tracks)
        assert [stage.name for stage in inspection.stages] == names
        assert [one.stage for one in inspection.correlations] == names[1:]
        last = inspection.stages[-1]
        assert (last.xy.tolist(), last.occlusion, last.uncertainty, last.visible) == told(tracks, 1)


def test_the_heat_is_where_the_first_guess_is_from(tracker: Tracker, frames: Pictures) -> None:
    tracker.inspect(2)
    for frame in frames[:3]:
        inspection = seen(tracker.step(frame))
        assert inspection.heat.shape == inspection.cost.shape[1:] == (8, 12)
        assert inspection.heat.min() >= 0
        assert inspection.heat.sum() == pytest.approx(1, abs=1e-5)
        row, column = np.unravel_index(inspection.heat.argmax(), inspection.heat.shape)
        rows, columns = np.mgrid[:8, :12] + 0.5
        near = (rows - row - 0.5) ** 2 + (columns - column - 0.5) ** 2 < 25
        weight = inspection.heat * near / (inspection.heat * near).sum()
        place = (columns * weight).sum() * WIDTH / 12, (rows * weight).sum() * HEIGHT / 8
        assert_allclose(inspection.stages[0].xy, place, atol=0.01)


def test_correlations_lie_where_they_say(tracker: Tracker, frames: Pictures) -> None:
    """At first the running features are the query, so the patch of the coarse level is a piece of the cost volume."""
    tracker.inspect(1)
    for frame in frames[:3]:
        inspection = seen(tracker.step(frame))
        first = inspection.correlations[0]
        assert first.query.shape == (3, 7, 7)
        assert_allclose(first.xy, inspection.stages[0].xy)
        assert_allclose(inspection.correlations[1].xy, inspection.stages[1].xy)
        assert_allclose(first.reach, [[3 * WIDTH / w, 3 * HEIGHT / h] for w, h in ((24, 16), (12, 8), (6, 4))])
        assert first.recent is not None
        for patch, cost in ((first.query[1], inspection.cost[0]), (first.recent[1], inspection.cost[1])):
            assert_allclose(patch, sampled(cost, first, level=1), atol=1e-4)


def sampled(cost: NDArray[np.float32], where: Correlations, level: int) -> NDArray[np.float64]:
    """Bilinear samples [7, 7] of a map of the whole picture at the places of a patch; zero outside."""
    height, width = cost.shape
    padded = np.pad(cost.astype(np.float64), 1)
    found = np.zeros((7, 7))
    steps = np.linspace(-1, 1, 7)
    for row, column in np.ndindex(7, 7):
        x = (where.xy[0] + steps[column] * where.reach[level, 0]) * width / WIDTH + 0.5  # in the padded map's cells
        y = (where.xy[1] + steps[row] * where.reach[level, 1]) * height / HEIGHT + 0.5
        if 0 <= x < width + 1 and 0 <= y < height + 1:
            left, top = int(x), int(y)
            across, down = x - left, y - top
            upper = padded[top, left] * (1 - across) + padded[top, left + 1] * across
            lower = padded[top + 1, left] * (1 - across) + padded[top + 1, left + 1] * across
            found[row, column] = upper * (1 - down) + lower * down
    return found


def test_a_model_without_last_sights_shows_none(make_model: MakeModel, frames: Pictures) -> None:
    tracker = Tracker(make_model(), 8)
    tracker.add(XY)
    tracker.inspect(1)
    inspection = seen(tracker.step(frames[0]))
    assert len(inspection.cost) == 1
    assert all(one.recent is None for one in inspection.correlations)


def test_an_inspected_point_is_followed_when_others_go_and_come(tracker: Tracker, frames: Pictures) -> None:
    tracker.step(frames[0])
    tracker.inspect(4)
    for frame, change in zip(
        frames[1:],
        (
            lambda: tracker.remove([0]),
            lambda: tracker.add([[7, 7], [33, 33]]),
            lambda: tracker.add([[50, 50]], frame_id=1),
            lambda: tracker.remove([2, 5]),
        ),
        strict=False,
    ):
        change()
        tracks = tracker.step(frame)
        last = seen(tracks).stages[-1]
        assert (seen(tracks).id, tracker.inspected) == (4, 4)
        assert (last.xy.tolist(), last.occlusion, last.uncertainty, last.visible) == told(tracks, 4)


def test_a_point_that_waits_may_be_inspected_and_is_from_its_first_frame_on(tracker: Tracker, frames: Pictures) -> None:
    tracker.step(frames[0])
    for xy, frame_id in (([[50, 50]], None), ([[60, 50]], 0)):
        (id,) = tracker.add(xy, frame_id=frame_id).tolist()
        tracker.inspect(id)
        assert tracker.inspected == id
    assert seen(tracker.step(frames[1])).id == 6


def test_another_point_none_and_its_removal_end_an_inspection(tracker: Tracker, frames: Pictures) -> None:
    assert tracker.inspected is None
    assert tracker.step(frames[0]).inspection is None
    tracker.inspect(1)
    tracker.inspect(3)
    assert seen(tracker.step(frames[1])).id == 3
    tracker.inspect(None)
    assert tracker.step(frames[2]).inspection is None
    for end in (lambda: tracker.remove([3]), tracker.clear):
        tracker.inspect(3 if 3 in tracker.ids else 4)
        end()
        assert tracker.inspected is None
        assert tracker.step(frames[tracker.frame_ids[-1] + 1]).inspection is None


def test_a_point_that_is_removed_while_its_frame_is_under_way_is_still_told_of(
    tracker: Tracker, frames: Pictures
) -> None:
    tracker.inspect(3)
    tracker.submit(frames[0])
    tracker.remove([3])
    tracker.submit(frames[1])
    assert seen(tracker.collect()).id == 3
    assert tracker.collect().inspection is None


def test_a_point_that_is_not_there_is_refused_and_changes_nothing(tracker: Tracker, frames: Pictures) -> None:
    tracker.inspect(2)
    for id in (5, 77, -1, 2**40):
        with pytest.raises(QueryError, match=f"there is no point {id}; it was removed before, or never added"):
            tracker.inspect(id)
    assert seen(tracker.step(frames[0])).id == 2


def test_a_query_that_is_refused_with_its_frame_is_inspected_no_more(tracker: Tracker, frames: Pictures) -> None:
    (outside,) = tracker.add([[1000, 1000]]).tolist()
    tracker.inspect(outside)
    with pytest.raises(QueryError, match="outside the 161x130 frame"):
        tracker.step(frames[0])
    assert tracker.inspected is None
    assert tracker.step(frames[0]).inspection is None


def test_a_step_without_an_inspection_does_no_more_than_one_before_there_ever_was_one(
    tracker: Tracker, frames: Pictures, count_ops: Callable[[], Any]
) -> None:
    tracker.step(frames[0])
    done = []
    for inspected, rgb in zip((None, 2, None), frames[1:], strict=False):
        tracker.inspect(inspected)
        with count_ops() as ops:
            tracker.step(rgb)
        done.append(ops.asked)
    before, inspecting, after = done
    assert before == after
    assert before.total() < inspecting.total()


def test_the_wire_carries_no_inspection(tracker: Tracker, frames: Pictures) -> None:
    tracker.inspect(2)
    tracks = tracker.step(frames[0])
    assert wire.encode(tracks) == wire.encode(replace(tracks, inspection=None))
    assert wire.decode(wire.encode(tracks)).inspection is None
