"""The soak runs the real loop with a user beside it, and says which law did not hold."""

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench import soak
from bench.command import BenchError
from bench.memory import Sample, Sampler, figures
from bench.soak import Account, Settings, laws, main, watch
from bench.stub import StubTracker
from online_tapir.records import Frame

RGB = np.zeros((33, 49, 3), np.uint8)
GOOD_USER = {"out_of_order": 0, "received": 33, "last_frame": 49, "ids_given_twice": 0, "answers": {"all": 7}}


def account(*published: tuple[int, int]) -> Account:
    """Of frames, and what each said was dropped."""
    kept, tracker = Account(), StubTracker(max_points=1)
    for id, dropped in published:
        frame = Frame(id, 0, 0, RGB)
        kept.publish(frame, replace(tracker.step(frame), dropped=dropped))
    return kept


def facts(*samples: Sample, **user: Any) -> dict[str, Any]:
    return figures(list(samples), 1) | {"user": GOOD_USER | user}


@pytest.mark.parametrize(
    "published",
    [
        [(0, 0), (1, 0), (2, 0)],
        [(0, 0), (7, 6), (8, 6)],
        [(0, 3), (7, 6), (33, 31)],  # dropped already, and not yet missing, when frame 0 left
    ],
)
def test_frames_that_were_published_or_dropped_are_accounted_for(published: list[tuple[int, int]]) -> None:
    kept = account(*published)
    assert (kept.unaccounted, kept.out_of_order) == (0, 0)
    assert kept.published + kept.missing == published[-1][0] + 1


@pytest.mark.parametrize(
    "published",
    [
        [(0, 0), (2, 0)],  # frame 1 has vanished
        [(0, 1), (1, 1)],  # dropped, it says, and none is missing
    ],
)
def test_a_frame_that_vanished_is_found(published: list[tuple[int, int]]) -> None:
    assert account(*published).unaccounted == 1


def test_a_frame_that_comes_twice_is_found() -> None:
    assert account((0, 0), (1, 0), (1, 0)).out_of_order == 1


def test_a_run_that_ends_as_it_began_breaks_no_law() -> None:
    kept = account(*((id, 0) for id in range(50)))
    assert laws(facts(Sample(1, 100, 9, 7), Sample(2, 101, 11, 7), Sample(3, 104.9, 9, 7)), kept) == []


@pytest.mark.parametrize(
    ("sample", "user", "broken"),
    [
        (Sample(2, 106, 9, 7), {}, "memory at the end is 1.06"),
        (Sample(2, 100, 10, 7), {}, "open_files: 9 after warm-up, 10 at the end"),
        (Sample(2, 100, 9, 8), {}, "threads: 7 after warm-up, 8 at the end"),
        (Sample(2, 100, 9, 7), {"out_of_order": 1}, "out of order"),
        (Sample(2, 100, 9, 7), {"received": 51}, "the user read 51 of 50"),
        (Sample(2, 100, 9, 7), {"last_frame": 50}, "never published"),
        (Sample(2, 100, 9, 7), {"ids_given_twice": 1}, "given twice"),
        (Sample(2, 100, 9, 7), {"answers": {"no_answer": 1}}, "nobody answered"),
    ],
)
def test_a_law_that_is_broken_is_named(sample: Sample, user: dict[str, Any], broken: str) -> None:
    kept = account(*((id, 0) for id in range(50)))
    found = laws(facts(Sample(1, 100, 9, 7), sample, **user), kept)
    assert any(broken in law for law in found), found


def test_the_real_loop_loses_no_frame_and_its_user_sees_it() -> None:
    kept, sampler = Account(), Sampler(100, 300)
    settings = Settings(frames=300, stub=True, fps=100, lose_every=120, points=7, size="49x33", threads=1)
    fps, seen = watch(settings, sampler, kept)
    assert (kept.published, kept.unaccounted, kept.out_of_order) == (300, 0, 0)
    assert [sample.frames for sample in sampler.samples] == [100, 200, 300]
    assert 0 < seen["received"] <= 300
    assert seen["out_of_order"] == seen["ids_given_twice"] == 0
    assert seen["answers"]["all"] > 0
    assert fps > 0


def test_a_user_that_fails_is_told() -> None:
    with (
        pytest.raises(BenchError, match=r"the user of the run ended with -?\d+"),
        soak.user("nowhere", ready=threading.Event()),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "why"),
    [(Settings(frames=7, warm_up=4), "not twice"), (Settings(lose_every=33), "give --fps, too")],
)
def test_what_cannot_be_soaked_is_refused(settings: Settings, why: str) -> None:
    with pytest.raises(BenchError, match=why):
        main(settings)


def test_a_run_that_is_over_in_a_moment_waits_for_its_user() -> None:
    kept, sampler = Account(), Sampler(1, 40)
    fps, seen = watch(Settings(frames=40, stub=True, points=7, size="49x33", threads=1), sampler, kept)
    assert (kept.published, kept.unaccounted) == (40, 0)
    assert seen["received"] >= 39  # all but the first, after which the run waited
    assert seen["answers"]["all"] >= 1
    assert seen["out_of_order"] == seen["ids_given_twice"] == 0
    connected = {sample.open_files for sample in sampler.samples[1:]}
    assert max(connected) - min(connected) <= soak.MORE_NOW_AND_THEN  # nobody connects in the middle of the figures
    assert fps > 0
