"""What is known beforehand of a tracker's scores comes out of `evaluate`: an oracle's, a still one's, a blind one's."""

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from rich.console import Console

from online_tapir.errors import ConfigError
from online_tapir.evaluation.baselines import LucasKanade
from online_tapir.evaluation.compare import as_dict, best_within, compare, equal_time_table, evaluate, report_table
from online_tapir.evaluation.following import follow
from online_tapir.evaluation.videos import Video, hard_videos, still_videos, validation_videos
from online_tapir.records import Tracks
from online_tapir.testing import make_tracks


def video(points: int = 7, frames: int = 33, height: int = 48, width: int = 96, seed: int = 0) -> Video:
    """A drifting picture, frame t marked by its number in the first pixel, with points that come and go."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 256, (height + frames, width + frames, 3), np.uint8)
    shots = np.stack([scene[t : t + height, t : t + width] for t in range(frames)])
    shots[:, 0, 0] = np.arange(frames)[:, None]
    start = rng.uniform([frames, frames], [width, height], (points, 2))
    xy = start[:, None] - np.arange(frames)[:, None]  # [N, T, 2]
    visible = rng.random((points, frames)) < 0.8
    query_frame = rng.integers(0, frames // 2, points)
    visible[np.arange(points), query_frame] = True
    return Video("drifting", shots, xy.astype(np.float32), visible, query_frame)


class Told:
    """A tracker that knows the videos, and answers what `answer` makes of the truth about its points."""

    def __init__(self, truth: Video, answer: Callable[[Video, NDArray[np.int64], int], tuple[ArrayLike, ArrayLike]]):
        self.truth, self.answer = truth, answer
        self.points: list[int] = []
        self.queued: list[NDArray[np.float32]] = []
        self.frame = -1

    def add(self, xy: ArrayLike, frame_id: int | None = None) -> NDArray[np.int32]:
        self.queued.extend(np.asarray(xy, np.float32))
        count = len(self.points) + len(self.queued)
        return np.arange(count - len(self.queued), count, dtype=np.int32) * 10 + 5  # ids are the tracker's own affair

    def step(self, rgb: NDArray[np.uint8]) -> Tracks:
        self.frame += 1
        assert rgb[0, 0, 0] == self.frame, "frames come once each, in order"
        for query in self.queued:
            distance = np.abs(self.truth.xy[:, self.frame] - query).sum(axis=1)
            assert distance.min() < 1e-3, "points are asked for where they truly are"
            self.points.append(int(distance.argmin()))
        self.queued.clear()
        xy, visible = self.answer(self.truth, np.array(self.points, np.int64), self.frame)
        ids = np.arange(len(self.points), dtype=np.int32) * 10 + 5
        return make_tracks(self.frame, xy, ids=ids, visible=visible, size=(96, 48))


def oracle(truth: Video, points: NDArray[np.int64], t: int) -> tuple[ArrayLike, ArrayLike]:
    return truth.xy[points, t], truth.visible[points, t]


def blind(truth: Video, points: NDArray[np.int64], t: int) -> tuple[ArrayLike, ArrayLike]:
    return truth.xy[points, t], np.zeros(len(points), bool)


def beside(truth: Video, points: NDArray[np.int64], t: int) -> tuple[ArrayLike, ArrayLike]:
    """1.125 px too far right in a picture 96 wide: 3 px at 256."""
    return truth.xy[points, t] + [1.125, 0], truth.visible[points, t]


def still(frames: int = 12) -> Video:
    noise = np.random.default_rng(5).uniform(0, 255, (48, 96, 3)).astype(np.float32)
    picture = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.5)).astype(np.uint8)
    points = np.array([[20.5, 20.5], [50.25, 30.75], [70.0, 10.0]], np.float32)
    xy = np.repeat(points[:, None], frames, axis=1)
    return Video("still", np.stack([picture] * frames), xy, np.ones((3, frames), bool), np.array([0, 3, 5]))


@pytest.mark.parametrize("points_at_once", [1, 3, 256])
def test_the_oracle_scores_full_marks(points_at_once: int) -> None:
    truth = video()
    report = evaluate(lambda: Told(truth, oracle), [truth], "oracle", "drifting", points_at_once)
    scores = report.scores
    assert (scores.average_jaccard, scores.average_position_accuracy, scores.occlusion_accuracy) == (1, 1, 1)
    assert scores.median_error == 0
    assert (report.tracker, report.data, report.videos, report.points) == ("oracle", "drifting", 1, 7)
    assert 0 < report.step_ms_p50 <= report.step_ms_p95


def test_errors_are_measured_at_256_by_256() -> None:
    truth = video()
    scores = evaluate(lambda: Told(truth, beside), [truth]).scores
    assert scores.position_accuracy == (0, 0, 1, 1, 1)
    assert scores.median_error == pytest.approx(3, abs=1e-4)
    assert scores.occlusion_accuracy == 1


def test_a_blind_tracker_has_no_jaccard_and_is_right_about_what_is_hidden() -> None:
    truth = video()
    scores = evaluate(lambda: Told(truth, blind), [truth]).scores
    after = np.arange(33) > truth.query_frame[:, None]
    assert scores.average_jaccard == 0
    assert scores.average_position_accuracy == 1
    assert scores.occlusion_accuracy == pytest.approx(np.mean(~truth.visible[after]))


def test_a_real_tracker_on_a_still_scene_is_near_perfect_and_steady() -> None:
    report = evaluate(LucasKanade, [still()])
    assert report.scores.average_jaccard > 0.999
    assert report.jitter_px < 0.01
    assert report.drift_px < 0.01
    assert math.isnan(report.redetection.rate)


def test_what_is_followed_starts_at_the_query_and_not_before() -> None:
    truth = video()
    told = follow(lambda: Told(truth, oracle), truth)
    started = np.arange(33) >= truth.query_frame[:, None]
    assert (told.visible == (truth.visible & started)).all()
    assert np.array_equal(told.xy[started], truth.xy[started])
    assert len(told.step_ns) == 33 - truth.query_frame.min() - 2  # the first two are warm-up


def test_a_query_on_the_far_border_is_moved_onto_the_frame() -> None:
    truth = still()
    xy = truth.xy.copy()
    xy[0] = [96, 48]
    followed = follow(LucasKanade, replace(truth, xy=xy)).xy
    assert (followed[0, 0] < [96, 48]).all()
    assert np.allclose(followed[0, 0], [96, 48])


def test_every_tracker_meets_the_same_videos_which_are_taken_once() -> None:
    taken = []

    def videos() -> Iterator[Video]:
        for seed in range(3):
            taken.append(seed)
            yield replace(still(), name=f"{seed}")

    first, second = compare({"a": LucasKanade, "b": LucasKanade}, videos(), "still")
    assert taken == [0, 1, 2]
    assert (first.tracker, second.tracker, first.videos, first.points) == ("a", "b", 3, 9)
    assert first.scores == second.scores


def test_a_video_without_points_is_survived_and_no_video_is_refused() -> None:
    truth = video()
    empty = replace(truth, xy=truth.xy[:0], visible=truth.visible[:0], query_frame=truth.query_frame[:0])
    assert evaluate(LucasKanade, [empty, still()]).scores.average_jaccard > 0.999
    with pytest.raises(ConfigError, match="nothing holds no video"):
        evaluate(LucasKanade, [], data="nothing")


def test_reports_become_a_table_and_json() -> None:
    truth = video()
    report = evaluate(lambda: Told(truth, oracle), [truth], "oracle", "drifting")
    printed = io.StringIO()
    Console(file=printed, width=240).print(report_table([report]))
    for cell in ("oracle", "drifting", "AJ", "<16", "found again", "100.0"):
        assert cell in printed.getvalue()
    plain = json.loads(json.dumps(as_dict(report), allow_nan=False))
    assert plain["scores"]["average_jaccard"] == 1
    assert plain["thresholds_px"] == [1, 2, 4, 8, 16]
    assert plain["jitter_px"] is None  # no point stood still
    assert plain["redetection"]["returned"] == report.redetection.returned


def test_what_is_held_in_time_is_reported_if_a_rate_is_given() -> None:
    report = evaluate(LucasKanade, [still()], fps=0.5)  # so slow that any machine answers in time
    assert report.held is not None
    assert report.held.average_jaccard > 0.999
    assert report.answered == 1
    printed = io.StringIO()
    Console(file=printed, width=240).print(report_table([report]))
    assert "AJ at 0.5 fps" in printed.getvalue()
    assert evaluate(LucasKanade, [still()]).held is None


def test_equal_time_is_the_best_that_fits_in_it() -> None:
    one = evaluate(LucasKanade, [still()], "small 256x256", "still")
    small = replace(one, step_ms_p50=9.0, scores=replace(one.scores, average_jaccard=0.5))
    large = replace(small, tracker="small 384x384", step_ms_p50=20.0, scores=replace(one.scores, average_jaccard=0.7))
    worse = replace(large, tracker="small 512x512", step_ms_p50=40.0, scores=replace(one.scores, average_jaccard=0.6))
    choices = [worse, small, large]
    assert [best_within(choices, ms) for ms in (8.9, 9.0, 19.9, 20.0, 1000.0)] == [None, small, small, large, large]
    printed = io.StringIO()
    Console(file=printed, width=240).print(equal_time_table({"small": choices, "LK": [replace(one, tracker="LK")]}))
    row = next(line for line in printed.getvalue().splitlines() if "small" in line)
    assert [cell.strip() for cell in row.split("│")[2:-1]] == ["50.0 256x256"] * 2 + ["70.0 384x384"] * 3


def test_validation_scenes_are_always_the_same_and_right_about_their_queries() -> None:
    once = list(validation_videos(None, count=2, frames=5, size=64, points=7))
    again = list(validation_videos(None, count=2, frames=5, size=64, points=7))
    assert [one.name for one in once] == ["scene 0", "scene 1"]
    assert not np.array_equal(once[0].frames, once[1].frames)
    for one, other in zip(once, again, strict=True):
        assert one.frames.shape == (5, 64, 64, 3)
        assert one.frames.dtype == np.uint8
        assert np.array_equal(one.frames, other.frames)
        assert np.array_equal(one.xy, other.xy)
        assert one.visible[np.arange(7), one.query_frame].all()


def test_still_scenes_stand_still_under_noise() -> None:
    (one,) = still_videos(None, count=1, frames=7, size=64, points=7)
    assert np.ptp(one.xy, axis=1).max() == 0
    assert one.visible.all()
    assert 0 < np.abs(np.diff(one.frames.astype(int), axis=0)).mean() < 20


def test_hard_scenes_turn_grow_and_hide_more_than_the_others() -> None:
    """Seen in pairs of points that are far apart: how much their distance and direction change."""

    def spread(videos: Iterable[Video]) -> tuple[float, float, float]:
        growths, turns, hidden = [], [], []
        for video in videos:
            between = video.xy[:, None] - video.xy[None]  # [N, N, T, 2]
            length = np.linalg.norm(between, axis=-1)
            far = np.triu(length[..., 0] > 20)
            ratio = np.log(length[far][:, -1] / length[far][:, 0])
            angle = np.arctan2(between[..., 1], between[..., 0])[far]
            growths.append(np.median(np.abs(ratio)))
            turns.append(np.median(np.abs(np.angle(np.exp(1j * (angle[:, -1] - angle[:, 0]))))))
            hidden.append(1 - video.visible.mean())
        return float(np.mean(growths)), float(np.mean(turns)), float(np.mean(hidden))

    size = {"count": 4, "frames": 24, "size": 64, "points": 24}
    easy, hard = spread(validation_videos(None, **size)), spread(hard_videos(None, **size))
    assert all(more > 1.2 * less for more, less in zip(hard, easy, strict=True)), (easy, hard)


def test_photographs_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder"):
        list(validation_videos(tmp_path / "nowhere", count=1))
