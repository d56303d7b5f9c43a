"""Cameras join and leave a run while it goes on; one that fails or ends stops no other."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.camera import Capture, SyntheticCamera
from online_tapir.camera.base import free_name
from online_tapir.errors import CameraError, ConfigError
from online_tapir.live.roster import Absent, Member, Roster
from online_tapir.live.run import Run
from online_tapir.live.sink import Sink
from online_tapir.live.stream import Stream
from online_tapir.points.placement import Grid
from online_tapir.testing import FakeTracker, ListSink, sliding_pictures

PATIENCE_S = 20.0


def wait_until(told: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not told():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


class Ended(ListSink):
    """Also keeps the names of the streams that left."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[str] = []

    def end(self, stream: Stream) -> None:
        self.left.append(stream.name)

    def seen(self) -> dict[str, int]:
        """How many frames of each camera came."""
        names = [tracks.camera for tracks in self.tracks]
        return {name: names.count(name) for name in dict.fromkeys(names)}


def member(name: str, frames: int = 5, *, may_end: Callable[[], Any] = lambda: True, breaks: bool = False) -> Member:
    """A camera of some frames that ends, or `breaks`, after them, not before it `may_end`."""
    few = sliding_pictures(min(frames, 5), 33, 49)

    def pictures() -> Iterator[NDArray[np.uint8]]:
        yield from (few[i % len(few)] for i in range(frames))
        wait_until(may_end)
        if breaks:
            raise CameraError("the cable is out")

    capture = Capture(SyntheticCamera(pictures(), name=name), report=lambda line: None)
    stream = Stream(capture, FakeTracker(), threading.Event(), points=Grid(2, 1), report=lambda line: None)  # type: ignore[arg-type]
    return Member(stream, [ListSink()])


def gone(report: str) -> None:
    """Reports nothing."""


def test_a_camera_that_ends_leaves_and_the_others_go_on() -> None:
    sink = Ended()
    members = [member("short", 3), member("long", 30, may_end=lambda: sink.left)]
    Run(members, [sink], threading.Event()).go()
    assert sink.seen() == {"short": 3, "long": 30}
    assert sink.left == ["short"]


def test_a_camera_that_takes_long_to_open_delays_no_other() -> None:
    may_open = threading.Event()

    def open_(name: str, settings: Mapping[str, Any]) -> Member:
        if name == "slow":
            assert may_open.wait(PATIENCE_S)
        return member(name, 5)

    with Roster(open_, gone) as roster:
        roster.add("slow", {})
        roster.add("quick", {})
        wait_until(lambda: "quick" in roster.held)
        assert roster.absent["slow"] == Absent("opening")
        may_open.set()
        wait_until(lambda: roster.held == {"slow", "quick"})


def test_a_camera_that_fails_is_told_and_the_others_go_on() -> None:
    sink, roster = Ended(), Roster(report=gone)
    members = [member("broken", 3, breaks=True), member("whole", 30, may_end=lambda: roster.absent)]
    roster.begin(members)
    Run(members, [sink], threading.Event(), roster=roster).go()
    assert sink.seen() == {"broken": 3, "whole": 30}
    assert roster.absent == {"broken": Absent("failed", "the cable is out")}


def test_the_last_cameras_error_is_the_runs() -> None:
    sink = Ended()
    members = [member("first", 3), member("second", 9, may_end=lambda: sink.left, breaks=True)]
    with pytest.raises(CameraError, match="cable"):
        Run(members, [sink], threading.Event()).go()
    assert sink.left == ["first"]


def test_what_a_camera_held_is_given_back_when_it_leaves_and_at_the_end() -> None:
    given_back: list[str] = []
    members = [member("short", 3), member("long", 60, may_end=lambda: given_back)]
    for one in members:
        one.held.callback(given_back.append, one.stream.name)
    roster = Roster(report=gone)
    roster.begin(members)
    with roster:
        Run(members, [], threading.Event(), roster=roster).go()
        wait_until(lambda: given_back)
        assert given_back == ["short"]
    assert given_back == ["short", "long"]


def test_what_left_just_before_the_end_is_given_back_too() -> None:
    given_back: list[str] = []
    first, second = member("first"), member("second")

    def slowly() -> None:
        time.sleep(0.2)
        given_back.append("first")

    first.held.callback(slowly)
    second.held.callback(given_back.append, "second")
    roster = Roster(report=gone)
    third = member("third")
    roster.begin([first, second, third])
    with roster:
        roster.left(first.stream)
        roster.left(second.stream)
    assert sorted(given_back) == ["first", "second"]


class Meanwhile(Sink):
    """Does each step once, as soon as it can."""

    def __init__(self, *steps: Any) -> None:
        self._steps = list(steps)

    def serve(self, stream: Stream) -> None:
        if self._steps and self._steps[0]() is not False:
            del self._steps[0]


def test_cameras_are_added_and_removed_while_it_runs() -> None:
    def opening(name: str, settings: Mapping[str, Any]) -> Member:
        return member(name, settings["frames"])

    stop = threading.Event()
    roster, sink = Roster(opening, gone), Ended()
    first = member("first", 100_000)
    roster.begin([first])
    steps = Meanwhile(
        lambda: roster.add("second", {"frames": 100_000}),
        lambda: "second" in sink.seen(),
        lambda: roster.remove("first"),
        lambda: sink.left == ["first"],
        stop.set,
    )
    with roster:
        Run([first], [sink, steps], stop, roster=roster).go()
    assert list(sink.seen()) == ["first", "second"]
    assert sink.left == ["first"]
    assert [stream.name for stream in sink.streams] == ["first", "second"]


def test_a_camera_that_cannot_be_opened_is_told_and_hurts_no_other() -> None:
    def opening(name: str, settings: Mapping[str, Any]) -> Member:
        raise CameraError("nobody is there")

    said: list[str] = []
    roster = Roster(opening, said.append)
    roster.begin([member("first")])
    roster.add("second", {})
    wait_until(lambda: said)
    assert roster.absent == {"second": Absent("failed", "nobody is there")}
    assert not roster.expected
    roster.add("second", {})  # another attempt
    wait_until(lambda: len(said) == 2)
    roster.remove("second")
    assert roster.absent == {}


def test_whatever_an_opening_raises_is_told_and_the_name_is_free_again() -> None:
    tries = iter([RuntimeError("no device"), ConfigError("no such file")])

    def opening(name: str, settings: Mapping[str, Any]) -> Member:
        raise next(tries)

    said: list[str] = []
    with Roster(opening, said.append) as roster:
        for reason in ("RuntimeError('no device')", "no such file"):
            roster.add("door", {})
            wait_until(lambda reason=reason: roster.absent["door"] == Absent("failed", reason))
            assert not roster.expected
    assert said == ["camera door cannot join: RuntimeError('no device')", "camera door cannot join: no such file"]


def test_a_camera_that_is_removed_before_it_is_open_never_joins() -> None:
    go, closed = threading.Event(), threading.Event()

    def opening(name: str, settings: Mapping[str, Any]) -> Member:
        go.wait(PATIENCE_S)
        late = member(name)
        late.held.callback(closed.set)
        return late

    roster = Roster(opening, gone)
    roster.begin([member("first")])
    with roster:
        roster.add("late", {})
        assert roster.expected
        roster.remove("late")
        go.set()
        assert closed.wait(PATIENCE_S)
        assert roster.arrivals() == []


def test_a_camera_that_is_added_again_while_it_opens_has_its_new_settings() -> None:
    go, closed = threading.Event(), threading.Event()

    def opening(name: str, settings: Mapping[str, Any]) -> Member:
        if settings["source"] == "wrong":
            go.wait(PATIENCE_S)
        opened = member(name)
        if settings["source"] == "wrong":
            opened.held.callback(closed.set)
        else:
            opened.stream.epoch = 7
        return opened

    roster = Roster(opening, gone)
    roster.begin([member("first")])
    with roster:
        roster.add("door", {"source": "wrong"})
        roster.remove("door")
        roster.add("door", {"source": "right"})
        go.set()
        assert closed.wait(PATIENCE_S)
        wait_until(lambda: roster._arrived)
        [arrived] = roster.arrivals()
        assert arrived.stream.epoch == 7
        roster.left(arrived.stream)


def test_a_camera_that_is_removed_when_it_is_just_ready_never_joins() -> None:
    closed = threading.Event()

    def opening(name: str, settings: Mapping[str, Any]) -> Member:
        ready = member(name)
        ready.held.callback(closed.set)
        return ready

    roster = Roster(opening, gone)
    roster.begin([member("first")])
    with roster:
        roster.add("late", {})
        wait_until(lambda: roster._arrived)
        roster.remove("late")
        assert roster.arrivals() == []
        assert closed.wait(PATIENCE_S)
        wait_until(lambda: "late" not in roster.held)


def test_names_are_taken_once_and_the_last_camera_stays() -> None:
    roster = Roster(report=gone)
    roster.begin([member("first")])
    with pytest.raises(ConfigError, match="already"):
        roster.add("first", {})
    with pytest.raises(ConfigError, match="only camera"):
        roster.remove("first")
    with pytest.raises(ConfigError, match="no camera is called 'other'; there are first"):
        roster.remove("other")


def test_a_free_name_is_like_the_one_that_is_taken() -> None:
    assert free_name("demo", ()) == "demo"
    assert free_name("demo", {"demo", "demo-2"}) == "demo-3"
    assert len(free_name("x" * 64, {"x" * 64})) <= 64
