"""The inspected point is drawn where the stages put it, at every scale, and nothing of it stays when it is over."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import rerun as rr
from numpy.testing import assert_allclose, assert_array_equal

from online_tapir.drawing.inspection_pictures import crop_around
from online_tapir.drawing.query_patches import SIDE, QueryPatch
from online_tapir.records import Correlations, Inspection, Stage, Tracks
from online_tapir.sinks.rerun.blueprint import CLOSE_UP_SIDE, OVERLAYS, STAGE_CURVES
from online_tapir.sinks.rerun.inspector import AT_REST, CLOSE_UPS, Inspector, report
from online_tapir.testing import make_tracks

WIDTH, HEIGHT = 480, 270
PICTURE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
PLACES = ((200.0, 100.0), (203.5, 98.0), (204.25, 97.5))
MS = 1_000_000


class Log:
    """A recording that keeps what is logged, by entity."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, tuple[Any, ...], bool]] = []

    def log(self, entity: str | list[object], *what: Any, static: bool = False) -> None:
        path = entity if isinstance(entity, str) else "/".join(map(str, entity))
        self.entries.append((path, what, static))

    def last(self, entity: str) -> Any:
        """What was last logged there; the first of it, where it was several things at once."""
        return next(what[0] for path, what, _ in reversed(self.entries) if path == entity)

    def all(self, entity: str) -> tuple[Any, ...]:
        return next(what for path, what, _ in reversed(self.entries) if path == entity)

    @property
    def cleared(self) -> list[str]:
        return [path for path, what, _ in self.entries if isinstance(what[0], rr.Clear)]


def values(batch: Any) -> np.ndarray:
    """Of a component: positions [N, 2], scales [1, 3], scalars [1], strips [N, L, 2]."""
    return np.array(batch.as_arrow_array().to_pylist())


def inspection(
    places: Sequence[tuple[float, float]] = PLACES, id: int = 7, planes: int = 3, visible: bool = True
) -> Inspection:
    rng = np.random.default_rng(1)
    names = ["match", *(f"refine {index}" for index in range(1, len(places)))]
    stages = tuple(
        Stage(name, np.array(place, np.float32), 0.1 * index, 0.25, visible)
        for index, (name, place) in enumerate(zip(names, places, strict=True))
    )
    patches = rng.normal(size=(4, 7, 7)).astype(np.float32)
    recent = patches if planes > 1 else None
    correlations = tuple(
        Correlations(after.name, before.xy, patches, recent, np.ones((4, 2), np.float32))
        for before, after in pairwise(stages)
    )
    heat = rng.random((32, 32), dtype=np.float32)
    return Inspection(id, rng.random((planes, 32, 32), dtype=np.float32), heat / heat.sum(), stages, correlations)


def tracks(time_ms: int, seen: Inspection | None) -> Tracks:
    return make_tracks(time_ms, (), size=(WIDTH, HEIGHT), captured_ns=time_ms * MS, inspection=seen)


def query(gone: bool = False) -> QueryPatch:
    xy = np.array([100.25, 50.75], np.float32)
    return QueryPatch(41, xy, None if gone else crop_around(PICTURE, xy, SIDE))


def drawn(*inspections: Inspection | None, of: QueryPatch | None = None) -> Log:
    log = Log()
    inspector = Inspector(log)  # type: ignore[arg-type]
    for number, one in enumerate(inspections):
        inspector.draw(PICTURE, tracks(33 * number, one), of)
    return log


def test_the_path_over_the_picture_goes_through_the_stages() -> None:
    log = drawn(inspection())
    assert_allclose(values(log.last("camera/inspector/stages").positions), PLACES)
    assert_allclose(values(log.last("camera/inspector/path").strips), [PLACES])


@pytest.mark.parametrize("planes", [1, 3])
def test_every_map_lies_over_the_whole_picture(planes: int) -> None:
    log = drawn(inspection(planes=planes))
    maps = [path for path, _, _ in log.entries if path in OVERLAYS]
    assert maps == list(OVERLAYS)[: 1 + planes]
    for entity in maps:
        _, transform = log.all(entity)
        ((across, down, _),) = values(transform.scale)
        assert_allclose((160 * across, 90 * down), (WIDTH, HEIGHT))


@pytest.mark.parametrize("reach", [0.0, 3.0, 11.0, 40.0, 100.0, 300.0])
def test_the_close_up_shows_all_stages_and_the_last_in_its_middle(reach: float) -> None:
    log = drawn(inspection([(200.5 - reach, 100.5 + reach), (200.5, 100.5)]))
    places = values(log.last("inspector/close_up/stages").positions)
    assert_allclose(places[-1], [CLOSE_UP_SIDE / 2] * 2, atol=1e-4)
    assert ((places >= 0) & (places <= CLOSE_UP_SIDE)).all() == (reach <= CLOSE_UPS[-1] / 2)
    picture, transform = log.all("inspector/close_up/picture")
    assert_allclose(
        values(transform.scale)[0, :2] * picture.format.as_arrow_array().to_pylist()[0]["width"], CLOSE_UP_SIDE
    )


def test_the_close_up_stands_still_while_the_stages_come_and_go() -> None:
    far, near = inspection([(160.5, 100.5), (200.5, 100.5)]), inspection([(200.5, 100.5), (200.5, 100.5)])
    log = drawn(far, *[near] * 29)
    widths = [
        what[0].format.as_arrow_array().to_pylist()[0]["width"]
        for path, what, _ in log.entries
        if path == "inspector/close_up/picture"
    ]
    assert widths == [129] * 30
    later = drawn(far, *[near] * 40)
    assert later.last("inspector/close_up/picture").format.as_arrow_array().to_pylist()[0]["width"] == CLOSE_UPS[0]


def test_trails_are_of_the_first_guess_and_of_the_last_refinement() -> None:
    log = drawn(*[inspection([(200 + number, 100), (205 + number, 101)]) for number in range(40)])
    first, last = values(log.last("camera/inspector/trails").strips)
    assert len(first) == 31  # a second and the frame it began with
    assert_allclose(first[-1], (239, 100))
    assert_allclose(last - first, np.tile([5, 1], (31, 1)))


def test_every_stage_has_a_line_in_every_curve_described_once() -> None:
    log = drawn(inspection(), inspection())
    for entity, expected in zip(STAGE_CURVES, (lambda o: o, lambda o: 0.25, lambda o: (1 - o) * 0.75), strict=True):
        told = [(what[0], static) for path, what, static in log.entries if path == entity]
        assert [static for _, static in told] == [True, False, False]
        assert told[0][0].names.as_arrow_array().to_pylist() == ["match", "refine 1", "refine 2"]
        assert_allclose(values(told[-1][0].scalars), [expected(0.1 * index) for index in range(3)], rtol=1e-6)


def test_what_is_over_is_cleared_and_how_to_begin_is_said() -> None:
    log = drawn(inspection(), inspection(), None, None)
    assert log.cleared.count("camera/inspector") == log.cleared.count("inspector") == 2  # before the first and after it
    assert log.last("inspector/what").text.as_arrow_array().to_pylist() == [AT_REST]
    assert log.entries[-1][0] == "inspector/what"


def test_what_stays_as_it_is_is_logged_again_for_those_who_come_late() -> None:
    log = drawn(*[inspection()] * 91, *[None] * 61, of=query())
    logged = [path for path, _, _ in log.entries]
    for entity in ("inspector/query/picture", "inspector/close_up/legend", "inspector/correlations/guesses"):
        assert logged.count(entity) in (3, 4)  # of three seconds
    assert logged.count("inspector/correlations") == 91
    assert logged[-2:] == ["inspector/what"] * 2


def test_another_point_begins_anew() -> None:
    log = drawn(inspection(), replace(inspection([(10, 10), (11, 11)]), id=8))
    assert log.cleared.count("inspector") == 2
    first, last = values(log.last("camera/inspector/trails").strips)
    assert_array_equal(first, [(10, 10)])
    assert_array_equal(last, [(11, 11)])


def test_the_query_has_its_patch_and_a_cross_at_its_place() -> None:
    log = drawn(inspection(), of=query())
    cross = values(log.last("inspector/query/place").strips)
    assert_allclose(cross.mean(axis=(0, 1)), [SIDE // 2 + 0.25, SIDE // 2 + 0.75])
    assert "named at 100.2, 50.8 on frame 41\n" in report(inspection(), query())


def test_of_a_frame_that_is_gone_no_patch_is_shown_and_that_is_said() -> None:
    log = drawn(inspection(), of=query(gone=True))
    assert not [path for path, _, _ in log.entries if path.startswith("inspector/query")]
    assert "frame 41; that frame is gone" in report(inspection(), query(gone=True))
    assert "before this viewer began" in report(inspection(), None)


def test_a_report_tells_how_far_each_refinement_moved_the_point() -> None:
    lines = report(inspection([(0, 0), (3, 4), (3, 4)], visible=False), None).splitlines()
    assert "hidden at 3.0, 4.0" in lines[0]
    assert [line.split("|")[-2].strip() for line in lines[-3:]] == ["", "5.0 px", "0.0 px"]


def test_every_refinement_has_its_patches_and_a_mark_at_their_middles() -> None:
    log = drawn(inspection(planes=1, id=6), inspection(planes=3, id=7))
    guesses = values(log.last("inspector/correlations/guesses").positions)
    assert len(guesses) == 2 * 2 * 4
    assert len(values(log.last("inspector/correlations/stages").positions)) == 2
