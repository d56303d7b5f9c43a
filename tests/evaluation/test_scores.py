"""TAP-Vid's metrics against cases worked out by hand, and the laws of what is measured beside them."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.evaluation import scores as metrics
from online_tapir.evaluation.scores import Redetection


def track(*errors_px: float) -> NDArray[np.float64]:
    """One point [1, T, 2] that stands at (100, 50), reported so many pixels to the right of it."""
    return np.array([[[100 + error, 50] for error in errors_px]], np.float64)


def flags(text: str) -> NDArray[np.bool_]:
    """One point's flags [1, T]: `1` seen, `.` hidden."""
    return np.array([[letter == "1" for letter in text]])


def test_a_case_worked_out_by_hand() -> None:
    # Errors 0.5, 3, 0, 20, 0 px; truly seen, but for the third frame; called seen, but for the second.
    scores = metrics.score(
        track(0.5, 3, 0, 20, 0), flags("1.111"), track(0, 0, 0, 0, 0), flags("11.11"), np.ones((1, 5), bool)
    )
    # Truly seen: 4. Called seen: frames 1, 3, 4, 5. Frame 1 and 5 hit at every threshold; frame 3 is hidden and
    # frame 4 is 20 px off, so both are false alarms at every threshold; frame 2 is within 4 px, but not called seen.
    assert scores.jaccard == pytest.approx([2 / 6] * 5)
    assert scores.average_jaccard == pytest.approx(1 / 3)
    assert scores.position_accuracy == pytest.approx([2 / 4, 2 / 4, 3 / 4, 3 / 4, 3 / 4])
    assert scores.average_position_accuracy == pytest.approx(0.65)
    assert scores.occlusion_accuracy == pytest.approx(3 / 5)
    assert scores.median_error == pytest.approx((0.5 + 3) / 2)


@pytest.mark.parametrize(("points", "frames"), [(1, 33), (7, 7), (33, 5)])
def test_scores_are_those_of_the_definition_counted_one_position_at_a_time(points: int, frames: int) -> None:
    rng = np.random.default_rng(points)
    truth = rng.uniform(0, 256, (points, frames, 2))
    told = truth + rng.normal(0, 1, truth.shape) * rng.choice([0.5, 2, 8, 32], (points, frames, 1))
    called, seen, scored = rng.random((3, points, frames)) < 0.7
    expected: list[tuple[float, float]] = []
    for threshold in metrics.THRESHOLDS_PX:
        hits = misses = false_alarms = within = 0
        for n, t in np.argwhere(scored).tolist():
            near = math.dist(told[n, t], truth[n, t]) < threshold
            hit = bool(seen[n, t] and called[n, t] and near)
            hits += hit
            misses += bool(seen[n, t] and not hit)  # a false negative: seen, and called hidden or placed too far
            false_alarms += bool(called[n, t] and not (seen[n, t] and near))
            within += bool(seen[n, t] and near)
        expected.append((hits / (hits + misses + false_alarms), within / (hits + misses)))
    scores = metrics.score(told, called, truth, seen, scored)
    found = list(zip(scores.jaccard, scores.position_accuracy, strict=True))
    np.testing.assert_allclose(found, expected)
    assert scores.average_jaccard == pytest.approx(sum(jaccard for jaccard, _ in expected) / 5)
    assert scores.average_position_accuracy == pytest.approx(sum(accuracy for _, accuracy in expected) / 5)
    agreed = [called[n, t] == seen[n, t] for n, t in np.argwhere(scored).tolist()]
    assert scores.occlusion_accuracy == pytest.approx(sum(agreed) / len(agreed))


def test_a_hidden_point_that_is_called_seen_is_a_false_alarm_however_near() -> None:
    scores = metrics.score(track(0, 0), flags("11"), track(0, 0), flags("1."), np.ones((1, 2), bool))
    assert scores.jaccard == pytest.approx([1 / 2] * 5)
    assert scores.position_accuracy == (1, 1, 1, 1, 1)  # the hidden one is in neither count
    assert scores.occlusion_accuracy == 1 / 2


def test_strided_queries_score_a_point_once_for_each_query() -> None:
    # One point of four frames, wrong on the last alone, queried on frames 0 and 3: the query's own frame never counts.
    truth, told = np.repeat(track(0, 0, 0, 0), 2, axis=0), np.repeat(track(0, 0, 0, 99), 2, axis=0)
    everywhere, query_frame = np.ones((2, 4), bool), np.array([0, 3])
    strided = metrics.score(told, everywhere, truth, everywhere, metrics.frames_but_query(query_frame, 4))
    assert strided.position_accuracy == pytest.approx([5 / 6] * 5)
    causal = metrics.score(told, everywhere, truth, everywhere, metrics.frames_after_query(query_frame, 4))
    assert causal.position_accuracy == pytest.approx([2 / 3] * 5)


def test_a_point_too_far_counts_against_jaccard_twice() -> None:
    # One seen point 3 px off: a miss and a false alarm at 1 and 2 px, a hit from 4 px on.
    scores = metrics.score(track(0, 3), flags("11"), track(0, 0), flags("11"), np.ones((1, 2), bool))
    assert scores.jaccard == pytest.approx([1 / 3, 1 / 3, 1, 1, 1])


@pytest.mark.parametrize("threshold", metrics.THRESHOLDS_PX)
def test_an_error_of_exactly_the_threshold_is_not_within_it(threshold: int) -> None:
    scores = metrics.score(track(threshold), flags("1"), track(0), flags("1"), np.ones((1, 1), bool))
    assert sum(scores.position_accuracy) == sum(limit > threshold for limit in metrics.THRESHOLDS_PX)


def test_points_count_alike_wherever_they_are() -> None:
    # Three frames of one point and one of another: shares are over all scored positions, not over points.
    truth = np.concatenate([track(0, 0, 0), track(0, 0, 0)])
    told = np.concatenate([track(0, 0, 0), track(0, 0, 99)])
    scored = np.concatenate([flags("111"), flags("..1")])
    scores = metrics.score(told, np.ones((2, 3), bool), truth, np.ones((2, 3), bool), scored)
    assert scores.position_accuracy == pytest.approx([3 / 4] * 5)
    assert scores.jaccard == pytest.approx([3 / 5] * 5)


@pytest.mark.parametrize(("points", "frames"), [(1, 1), (7, 33), (33, 7)])
def test_the_truth_scores_full_marks(points: int, frames: int) -> None:
    rng = np.random.default_rng(points)
    xy, visible = rng.uniform(0, 256, (points, frames, 2)), rng.random((points, frames)) < 0.7
    visible[0, 0] = True
    scores = metrics.score(xy, visible, xy.copy(), visible.copy(), np.ones_like(visible))
    assert (scores.average_jaccard, scores.average_position_accuracy, scores.occlusion_accuracy) == (1, 1, 1)
    assert scores.median_error == 0


def test_jaccard_never_exceeds_position_accuracy() -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(0, 256, (33, 7, 2))
    told = truth + rng.normal(0, 4, truth.shape)
    called, seen = rng.random((2, 33, 7)) < 0.6
    scores = metrics.score(told, called, truth, seen, np.ones((33, 7), bool))
    assert all(j <= a for j, a in zip(scores.jaccard, scores.position_accuracy, strict=True))
    assert list(scores.jaccard) == sorted(scores.jaccard)


def test_query_first_scores_strictly_after_the_query_and_strided_all_but_it() -> None:
    query_frame = np.array([0, 2, 3])
    after = ["".join(".1"[int(x)] for x in row) for row in metrics.frames_after_query(query_frame, 4)]
    others = ["".join(".1"[int(x)] for x in row) for row in metrics.frames_but_query(query_frame, 4)]
    assert after == [".111", "...1", "...."]
    assert others == [".111", "11.1", "111."]


def test_frames_that_are_not_scored_change_nothing() -> None:
    truth, seen, scored = track(0, 0, 0, 0), flags("11.1"), flags("..11")
    quiet = metrics.score(track(0, 0, 0, 3), flags("1111"), truth, seen, scored)
    wild = metrics.score(track(99, math.nan, 0, 3), flags("..11"), truth, seen, scored)
    assert quiet == wild


def test_a_position_that_is_not_a_number_is_within_nothing() -> None:
    scores = metrics.score(track(math.nan, 0), flags("11"), track(0, 0), flags("11"), np.ones((1, 2), bool))
    assert scores.position_accuracy == pytest.approx([1 / 2] * 5)


def test_nothing_to_score_is_not_a_number_and_leaves_the_mean_alone() -> None:
    everything = np.ones((1, 2), bool)
    hidden = metrics.score(track(0, 0), flags(".."), track(0, 0), flags(".."), everything)
    assert math.isnan(hidden.average_jaccard)
    assert math.isnan(hidden.median_error)
    assert hidden.occlusion_accuracy == 1
    half = metrics.score(track(0, 99), flags("11"), track(0, 0), flags("11"), everything)
    mean = metrics.average([hidden, half])
    assert mean.average_jaccard == half.average_jaccard == pytest.approx(1 / 3)
    assert mean.occlusion_accuracy == 1


def test_the_mean_weighs_videos_alike() -> None:
    one = metrics.score(track(0), flags("1"), track(0), flags("1"), np.ones((1, 1), bool))
    many = metrics.score(track(*[99] * 9), flags("1" * 9), track(*[0] * 9), flags("1" * 9), np.ones((1, 9), bool))
    assert metrics.average([one, many]).average_jaccard == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no video was scored"):
        metrics.average([])


def test_positions_are_scored_at_256_by_256() -> None:
    assert metrics.scale_to_256(np.array([[320.0, 240.0], [640, 0]]), 640, 480).tolist() == [[128, 128], [256, 0]]


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"give positions \[N, T, 2\] and flags \[N, T\]"):
        metrics.score(track(0, 0), flags("1"), track(0, 0), flags("11"), flags("11"))


@pytest.mark.parametrize(
    ("seen", "returned"),
    [
        ("11" + "." * 5 + "1" * 5, 1),
        ("11" + "." * 20 + "1" * 5, 1),
        ("11" + "." * 4 + "1" * 5, 0),  # hidden too briefly
        ("11" + "." * 21 + "1" * 5, 0),  # hidden too long
        ("11" + "." * 5 + "1" * 4, 0),  # gone again too soon
        ("11" + "." * 5 + "1" * 5 + "." * 6 + "1" * 7, 2),
        ("1" * 12, 0),
        ("11" + "." * 10, 0),  # never comes back
    ],
)
def test_an_occlusion_counts_by_its_length_and_the_sight_after_it(seen: str, returned: int) -> None:
    truth = track(*[0] * len(seen))
    told = metrics.redetection(truth, flags(seen), truth.copy(), flags(seen), np.array([0]))
    assert told == Redetection(found=returned, returned=returned)


def test_an_occlusion_before_the_query_does_not_count() -> None:
    seen, truth = flags("11......1111111......11111"), track(*[0] * 26)
    counts = [metrics.redetection(truth, seen, truth.copy(), seen, np.array([q])).returned for q in (0, 1, 8, 14, 20)]
    assert counts == [2, 2, 1, 1, 0]


@pytest.mark.parametrize(
    ("errors", "called", "found"),
    [
        ((9, 9, 0, 0, 9), "11111", 1),  # two frames of the third to fifth suffice
        ((0, 0, 0, 9, 9), "11111", 0),  # one does not
        ((0, 0, 0, 0, 0), "11..1", 0),  # nor does a right position that is called hidden
        ((0, 0, 4, 4, 4), "11111", 0),  # 4 px is not within 4 px
        ((9, 9, 3.9, 9, 3.9), "..1.1", 1),
    ],
)
def test_found_again_asks_for_two_of_three_frames(errors: tuple[float, ...], called: str, found: int) -> None:
    hidden = [0.0] * 6
    told = metrics.redetection(
        track(0, *hidden, *errors), flags("1......" + called), track(*[0] * 12), flags("1......11111"), np.array([0])
    )
    assert told == Redetection(found=found, returned=1)


def test_redetections_pool_over_videos() -> None:
    assert (Redetection(1, 4) + Redetection(2, 2)).rate == 0.5
    assert math.isnan(Redetection(0, 0).rate)


@pytest.mark.parametrize(
    ("seen", "query", "after"),
    [
        ("11.....111", 0, ".......111"),  # from the first sight after the absence on
        ("11.....1..", 0, ".......111"),  # to the end, seen or not
        ("11....1111", 0, ".........."),  # four frames are no absence
        ("1..1......", 0, ".........."),  # it has not come back
        (".....11111", 5, ".........."),  # hidden before its query
        ("11......11", 4, ".........."),  # hidden for four frames since its query
    ],
)
def test_the_frames_after_a_return_begin_with_the_first_sight_after_an_absence(
    seen: str, query: int, after: str
) -> None:
    found = metrics.frames_after_return(flags(seen), np.array([query]))
    np.testing.assert_array_equal(found, flags(after))


def test_jitter_is_the_deviation_and_drift_the_offset_of_still_points() -> None:
    scored = np.ones((1, 6), bool)
    still, seen = track(0, 0, 0, 0, 0, 0), flags("111111")
    trembling = track(0.3, -0.3, 0.3, -0.3, 0.3, -0.3)
    assert metrics.jitter(trembling, still, seen, scored) == pytest.approx([0.3])
    assert metrics.jitter(np.add(trembling, (0, 5)), still, seen, scored) == pytest.approx([0.3])
    assert metrics.drift(track(9, 2, 2, 2, 2, 2), still, seen, scored) == pytest.approx([2])
    assert metrics.drift(np.add(still, (3, 4)), still, seen, scored) == pytest.approx([5])


def test_jitter_and_drift_leave_out_what_moves_and_what_is_hidden() -> None:
    scored = np.ones((1, 6), bool)
    moving, still = track(0, 1, 2, 3, 4, 5), track(0, 0, 0, 0, 0, 0)
    for measure in (metrics.jitter, metrics.drift):
        assert np.isnan(measure(moving, moving.copy(), flags("111111"), scored)).all()
        assert np.isnan(measure(still, still.copy(), flags("1111.."), scored)).all()
        assert measure(track(0, 99, 0, 0, 0, 0), still, flags("1.1111"), scored) == pytest.approx([0])
