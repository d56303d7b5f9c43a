"""A viewer gets the newest picture, one at a time, as large as its link holds."""

from hypothesis import given
from hypothesis import strategies as st

from online_tapir.web.viewer import LADDER, MOST_WIDTH, RECENT, STEADY, Viewer

MS = 1_000_000


def shown(viewer: Viewer, wait_ms: float, times: int) -> None:
    for at in range(times):
        number = viewer.send("a", at, captured_ns=0, now_ns=0)
        assert viewer.acknowledge(number, int(wait_ms * MS))


def test_nothing_is_sent_twice_and_only_the_newest() -> None:
    viewer = Viewer()
    assert viewer.next({}) is None
    assert viewer.next({"a": 3}) == "a"
    viewer.send("a", 3, 0, 0)
    assert viewer.next({"a": 3}) is None
    assert viewer.next({"a": 9}) == "a"


def test_cameras_take_turns_and_none_starves() -> None:
    viewer, served = Viewer(), []
    for number in range(12):
        camera = viewer.next(dict.fromkeys("abc", number))
        assert camera is not None
        served.append(camera)
        viewer.send(camera, number, 0, 0)
    assert served == ["a", "b", "c"] * 4


def test_who_looks_at_one_camera_gets_no_other() -> None:
    viewer = Viewer()
    viewer.look("b", 400)
    assert viewer.next({"a": 1}) is None
    assert viewer.next({"a": 1, "b": 1}) == "b"


def test_looking_elsewhere_shows_what_is_there_at_once() -> None:
    viewer = Viewer()
    viewer.send("a", 1, 0, 0)
    viewer.look("a", 300)
    assert viewer.next({"a": 1}) == "a"


def test_only_the_picture_in_flight_is_acknowledged_and_its_age_is_told() -> None:
    viewer = Viewer()
    assert not viewer.acknowledge(0, 0)
    number = viewer.send("a", 1, captured_ns=10 * MS, now_ns=20 * MS)
    assert not viewer.acknowledge(number + 1, 30 * MS)
    assert viewer.in_flight
    assert viewer.acknowledge(number, 35 * MS)
    assert not viewer.acknowledge(number, 36 * MS)
    assert viewer.latency_ms == 25


def test_a_slow_link_gets_smaller_pictures_and_a_quick_one_larger_again() -> None:
    viewer = Viewer()
    viewer.look(None, 800)
    best = viewer.picture(1280)
    assert (best.width, best.quality) == (800, LADDER[0][1])
    shown(viewer, 400, RECENT * len(LADDER))
    worst = viewer.picture(1280)
    assert (worst.width, worst.quality) == (round(800 * LADDER[-1][0]), LADDER[-1][1])
    shown(viewer, 10, STEADY * len(LADDER))
    assert viewer.picture(1280) == best


@given(st.lists(st.tuples(st.floats(0, 5000), st.integers(-(10**9), 10**9), st.integers(16, 8000))))
def test_a_picture_always_has_a_sensible_size(steps: list[tuple[float, int, int]]) -> None:
    viewer = Viewer()
    for wait_ms, width, frame_width in steps:
        viewer.look("a", width)
        shown(viewer, wait_ms, 1)
        assert 0 < viewer.picture(frame_width).width <= max(64, min(frame_width, MOST_WIDTH))
