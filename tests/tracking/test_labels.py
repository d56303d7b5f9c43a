"""Points have names, groups and colours, from the call that adds them to whoever reads their tracks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from online_tapir import Label, Tracker
from online_tapir.clock import SystemClock
from online_tapir.drawing.painting import Palette
from online_tapir.errors import ConfigError, QueryError, WireError
from online_tapir.flow.tracker import FlowTracker
from online_tapir.points.placement import parse_points
from online_tapir.records import Frame
from online_tapir.testing import make_tracks, sliding_pictures, tiny_config, tiny_model
from online_tapir.wire import messages as wire

LIKE_SMALL = tiny_config(iterations=1, recent_inputs=True)


@contextmanager
def alone() -> Iterator[Tracker]:
    yield Tracker(tiny_model(LIKE_SMALL), max_points=8)


@contextmanager
def with_flow() -> Iterator[FlowTracker]:
    tracker = FlowTracker(Tracker(tiny_model(LIKE_SMALL), max_points=8), waits=True)
    yield tracker
    tracker.close()


def frames(count: int) -> list[Frame]:
    clock = SystemClock()
    return [Frame(i, clock.monotonic_ns(), 0, rgb) for i, rgb in enumerate(sliding_pictures(count))]


@pytest.mark.parametrize("make", [alone, with_flow])
def test_a_name_goes_with_its_point_until_that_is_gone(make: Callable[..., Any]) -> None:
    first, second, third = frames(3)
    with make() as tracker:
        ids = tracker.add([[30, 20], [60, 40]], names=["left knee", ""], group="leg")
        tracks = tracker.step(first)
        assert tracks.labels == {0: Label("left knee", "leg"), 1: Label("", "leg")}
        assert tracks.id_of("left knee") == 0
        assert tracks.id_of("nobody") is None
        assert [tracks.called(id) for id in ids.tolist()] == ["left knee", "1"]
        tracker.label(1, Label("right knee", color=0xFF8800))
        assert tracker.step(second).labels[1] == Label("right knee", color=0xFF8800)
        tracker.remove([0])
        assert tracker.labels == {1: Label("right knee", color=0xFF8800)}
        assert tracker.add([[30, 20]], names=["left knee"]).tolist() == [2], "a name is free again, an id is not"
        assert set(tracker.step(third).labels) == {1, 2}


@pytest.mark.parametrize("make", [alone, with_flow])
def test_names_survive_a_restart(make: Callable[..., Any], tmp_path: Path) -> None:
    from online_tapir.tracking import state_file

    (first,) = frames(1)
    with make() as tracker:
        tracker.add([[30, 20], [60, 40]], names=["left knee", ""], group="leg")
        tracker.label(1, Label(color=255))
        tracker.step(first)
        state_file.write(tmp_path / "state", tracker.saved_state())
        before = tracker.labels
    with make() as tracker:
        tracker.load_state(tmp_path / "state")
        assert tracker.labels == before


WRONG_NAMES = [
    (["a", "a"], "called 'a' already"),
    (["a"], "1 names for 2 points"),
    (["x" * 65, ""], "cannot be a name"),
    (["\n", ""], "cannot be a name"),
]


@pytest.mark.parametrize(("names", "said"), WRONG_NAMES)
def test_a_wrong_name_is_refused_and_nothing_is_added(names: list[str], said: str) -> None:
    with alone() as tracker:
        with pytest.raises(QueryError, match=said):
            tracker.add([[30, 20], [60, 40]], names=names)
        assert len(tracker.ids) == 0
        tracker.add([[30, 20], [60, 40]], names=["a", "b"])
        with pytest.raises(QueryError, match="called 'a' already"):
            tracker.label(1, Label("a"))
        tracker.label(0, Label("a", color=3))  # its own name is not taken
        with pytest.raises(QueryError, match="no point 7"):
            tracker.label(7, Label("c"))
        with pytest.raises(QueryError, match="no colour"):
            tracker.label(0, Label("c", color=2**24))


def test_names_come_from_a_csv_file(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("name,x,y,color,group\nleft knee,30,20,#ff8800,leg\n,60,40,,\n")
    source = parse_points(str(file))
    assert list(source.labels) == [Label("left knee", "leg", 0xFF8800), Label()]
    file.write_text("x,y,color\n1,2,orange\n")
    with pytest.raises(ConfigError, match="line 2: 'orange' is no colour"):
        parse_points(str(file))
    file.write_text("30,20\n60,40\n")
    assert parse_points(str(file)).labels == ()


def test_names_go_over_the_wire_and_are_left_out_where_there_are_none() -> None:
    plain = make_tracks(xy=[[1, 2], [3, 4]], camera="a")
    named = make_tracks(xy=[[1, 2], [3, 4]], camera="a", labels={1: Label("knee", "leg", 255)})
    assert wire.decode(wire.encode(named)).labels == {1: Label("knee", "leg", 255)}
    assert wire.decode(wire.encode(plain)).labels == {}
    assert b"labels" not in wire.encode(plain)


@pytest.mark.parametrize("labels", [3, [[1, "a", "b"]], [[1, "a", "b", None]], [["1", "a", "b", 3]], [7]])
def test_labels_of_another_shape_are_refused(labels: Any) -> None:
    import msgpack

    message = wire.encode(make_tracks(camera="a"))
    head, _, packed = message.partition(b"\0")
    body = msgpack.unpackb(packed) | {"labels": labels}
    with pytest.raises(WireError, match="labels"):
        wire.decode(head + b"\0" + msgpack.packb(body))


def test_a_points_own_colour_is_drawn() -> None:
    tracks = make_tracks(xy=[[1, 2], [3, 4]], labels={1: Label(color=0xFF8001)}, visible=[True, True])
    np.testing.assert_array_equal(Palette("identity").colors(tracks)[1], [255, 128, 1])
