"""Several models share a thread in turn; one that fails hurts no other."""

import threading
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest
from numpy.testing import assert_allclose

from online_tapir.flow.model_thread import ModelThread, Work
from online_tapir.flow.tracker import FlowTracker
from online_tapir.model.tapir import Tapir
from online_tapir.records import Frame
from online_tapir.testing import sliding_pictures
from online_tapir.tracking.rig import Rig
from online_tapir.tracking.tracker import Tracker

PATIENCE_S = 20.0


class Greedy:
    """A lane that has work until twelve pieces are done."""

    def __init__(self, name: str, done: list[str], error: Exception | None = None) -> None:
        self.name, self.done, self.error = name, done, error
        self.failure: BaseException | None = None
        self.over = threading.Event()

    @property
    def batch(self) -> object:
        return self

    @property
    def is_asked(self) -> bool:
        return False

    def next_work(self) -> Work | None:
        if len(self.done) >= 12:
            self.over.set()
            return None

        def work() -> None:
            self.done.append(self.name)
            if self.error is not None:
                raise self.error

        return Work(work)

    def failed(self, error: BaseException) -> None:
        self.failure = error


def served(lanes: list[Greedy]) -> int:
    """Serves the lanes until the work is done; returns how many are left."""
    with closing(ModelThread()) as thread:
        with thread.changed:
            for lane in lanes:
                thread.join(lane)
            thread.changed.notify_all()
        assert lanes[-1].over.wait(PATIENCE_S)
        return thread.turns


def test_lanes_that_always_have_work_are_served_in_turn() -> None:
    done: list[str] = []
    assert served([Greedy(name, done) for name in "abc"]) == 3
    assert "".join(done) == "abcabcabcabc"


def test_a_lane_whose_caller_waits_is_served_first(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = [Greedy(name, []) for name in "abc"]
    done: list[str] = []
    for lane in lanes:
        lane.done = done
    monkeypatch.setattr(Greedy, "is_asked", property(lambda lane: lane.name == "c" and "c" not in done))
    served(lanes)
    assert "".join(done).startswith("cab"), "first, and then in turn"


def test_a_lane_that_fails_is_told_and_the_others_go_on() -> None:
    done: list[str] = []
    broken, sound = Greedy("broken", done, ValueError("no")), Greedy("sound", done)
    assert served([broken, sound]) == 1
    assert isinstance(broken.failure, ValueError)
    assert (done.count("broken"), done.count("sound")) == (1, 11)


def test_a_lane_gives_the_tracks_of_a_tracker_alone_though_they_tick_unevenly(make_model: Callable[..., Tapir]) -> None:
    """One begins late and misses frames, one leaves; none notices the others."""
    model, pictures = make_model(), sliding_pictures(8, 64, 96)
    rng = np.random.default_rng(2)
    places = [rng.uniform(10, 50, (3, 2)).astype(np.float32) for _ in range(3)]
    ticks = [range(8), range(1, 8, 2), range(4)]

    def frame(number: int) -> Frame:
        return Frame(number, number * 1_000_000, 0, pictures[number])

    alone = []
    for xy, numbers in zip(places, ticks, strict=True):
        with closing(FlowTracker(Tracker(model, max_points=4), waits=True)) as tracker:
            tracker.add(xy)
            alone.append({number: tracker.step(frame(number)).xy for number in numbers})
    with closing(ModelThread()) as thread:
        lanes = [FlowTracker(Tracker(model, max_points=4), waits=True, thread=thread) for _ in ticks]
        for lane, xy in zip(lanes, places, strict=True):
            lane.add(xy)
        for number in range(8):
            for index, lane in enumerate(lanes):
                if number in ticks[index]:
                    assert_allclose(lane.step(frame(number)).xy, alone[index][number], atol=1e-4)
            if number == 3:
                lanes[2].close()
        for lane in lanes:
            lane.close()
        assert thread.turns == 0


@pytest.mark.parametrize("together", [False, True], ids=["in turn", "as a batch"])
def test_lanes_of_a_rig_share_the_thread_and_each_gives_the_tracks_of_a_tracker_alone(
    make_model: Callable[..., Tapir], together: bool
) -> None:
    model, pictures, cameras = make_model(), sliding_pictures(6, 64, 96), 3
    places = [np.random.default_rng(seed).uniform(10, 50, (3, 2)).astype(np.float32) for seed in range(cameras)]
    rig = Rig(model, cameras, max_points=4, batch=together)
    with closing(ModelThread()) as thread:
        lanes = [FlowTracker(rig.take(), waits=True, thread=thread) for _ in range(cameras)]
        assert thread.turns == (1 if together else cameras)
        alone = [FlowTracker(Tracker(model, max_points=4), waits=True) for _ in range(cameras)]
        for index, tracker in enumerate([*lanes, *alone]):
            tracker.add(places[index % cameras])
        for number, picture in enumerate(pictures):
            frame = Frame(number, number * 1_000_000, 0, picture)
            for tracker in (*lanes, *alone):
                tracker.submit(frame)
            for lane, lone in zip(lanes, alone, strict=True):
                assert_allclose(lane.collect().xy, lone.collect().xy, atol=1e-4)
        for tracker in (*lanes, *alone):
            tracker.close()


def test_an_error_of_a_batch_ends_every_lane_of_it_and_no_other(
    make_model: Callable[..., Tapir], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    rig = Rig(model, 2, max_points=4, batch=True)
    with closing(ModelThread()) as thread:
        batch = [FlowTracker(rig.take(), waits=True, thread=thread) for _ in range(2)]
        other = FlowTracker(Tracker(make_model(), max_points=4), waits=True, thread=thread)
        monkeypatch.setattr(model, "encode_resized", lambda *inputs: 1 / 0)
        frame = Frame(0, 0, 0, sliding_pictures(1, 64, 96)[0])
        with thread.changed:  # so that both frames are there when the thread looks
            for tracker in batch:
                tracker.submit(frame)
        for tracker in batch:
            with pytest.raises(ZeroDivisionError):
                tracker.collect()
        assert other.step(frame).frame_id == 0
        for tracker in (*batch, other):
            tracker.close()


def test_a_shared_thread_outlives_a_tracker_and_ends_with_its_owner(make_model: Callable[..., Tapir]) -> None:
    thread = ModelThread()
    tracker = FlowTracker(Tracker(make_model(), max_points=4), thread=thread)
    tracker.close()
    assert thread._thread.is_alive()
    thread.close()
    assert not thread._thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        tracker.submit(Frame(0, 0, 0, np.zeros((40, 40, 3), np.uint8)))


def test_trackers_that_share_the_model_share_the_time_to_wait(make_model: Callable[..., Tapir]) -> None:
    """Their frames are collected in turn: if each waited for all of its period, the others would come late."""
    frame = Frame(0, 0, 0, sliding_pictures(1)[0])
    patience = []
    with closing(ModelThread()) as thread:
        for _ in range(4):
            tracker = FlowTracker(Tracker(make_model(), max_points=4), thread=thread, clock=lambda: 0)
            tracker._intervals.extend([64_000_000] * 2)
            tracker._model_ns.append(10_000_000)
            patience.append(tracker._patience_ns(frame))
    assert patience[0] == 4 * patience[3] > 0
    assert patience[0] == 2 * patience[1]
