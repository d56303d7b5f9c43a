"""Compares streaming point trackers on the same videos: accuracy, offline and in time, jitter, drift and speed.

Everything is causal: a tracker gets each frame once, in order, and only frames after a point's query are scored.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from online_tapir.errors import ConfigError
from online_tapir.evaluation import scores as metrics
from online_tapir.evaluation.following import Followed, Held, MakeTracker, follow, follow_live
from online_tapir.evaluation.scores import THRESHOLDS_PX, Positions, Redetection, TrackScores
from online_tapir.evaluation.videos import Video
from online_tapir.plain_json import without_nan

BUDGETS_MS = (10.0, 16.7, 33.3, 66.7, 100.0)  # of a frame: cameras of 100, 60, 30, 15 and 10 frames a second


@dataclass(frozen=True, slots=True)
class Report:
    """Results of one tracker on one set of videos; NaN where nothing could be measured."""

    tracker: str
    data: str
    videos: int
    points: int
    scores: TrackScores  # the mean over videos
    redetection: Redetection  # pooled over videos
    average_jaccard_returned: float  # AJ_RD, the mean over videos: on the frames after points came back
    jitter_px: float  # median over the truly still points, at 256x256
    drift_px: float
    step_ms_p50: float  # over the steps that tracked points, after warm-up
    step_ms_p95: float
    held_fps: float | None  # the camera's rate in what follows; None if that was not measured
    held: TrackScores | None  # of the newest answer at the end of every frame's own period, at this machine's speed
    answered: float  # share of the frames whose own answer came within their period


@dataclass(slots=True, eq=False)
class _Tally:
    """Accumulates the results of one tracker over videos."""

    scores: list[TrackScores] = field(default_factory=list)
    points: int = 0
    redetection: Redetection = field(default_factory=lambda: Redetection(0, 0))
    returned: list[float] = field(default_factory=list)
    jitter: list[float] = field(default_factory=list)
    drift: list[float] = field(default_factory=list)
    step_ns: list[int] = field(default_factory=list)
    held: list[TrackScores] = field(default_factory=list)
    answered: int = 0
    frames: int = 0

    def add(self, video: Video, followed: Followed) -> None:
        told, truth = _at_256(followed.xy, video), _at_256(video.xy, video)
        visible = followed.visible
        scored = metrics.frames_after_query(video.query_frame, len(video.frames))  # [N, T]
        self.scores.append(metrics.score(told, visible, truth, video.visible, scored))
        self.points += len(told)
        self.redetection += metrics.redetection(told, visible, truth, video.visible, video.query_frame)
        after = metrics.frames_after_return(video.visible, video.query_frame)  # [N, T]
        self.returned.append(metrics.score(told, visible, truth, video.visible, after).average_jaccard)
        self.jitter.extend(metrics.jitter(told, truth, video.visible, scored).tolist())
        self.drift.extend(metrics.drift(told, truth, video.visible, scored).tolist())
        self.step_ns.extend(followed.step_ns)

    def add_live(self, video: Video, held: Held) -> None:
        scored = metrics.frames_after_query(video.query_frame, len(video.frames))  # [N, T]
        told, truth = _at_256(held.xy, video), _at_256(video.xy, video)
        self.held.append(metrics.score(told, held.visible, truth, video.visible, scored))
        self.answered += held.answered
        self.frames += held.frames

    def report(self, tracker: str, data: str, fps: float | None) -> Report:
        return Report(
            tracker=tracker,
            data=data,
            videos=len(self.scores),
            points=self.points,
            scores=metrics.average(self.scores),
            redetection=self.redetection,
            average_jaccard_returned=_mean(self.returned),
            jitter_px=_percentile(self.jitter, 50),
            drift_px=_percentile(self.drift, 50),
            step_ms_p50=_percentile(self.step_ns, 50) / 1e6,
            step_ms_p95=_percentile(self.step_ns, 95) / 1e6,
            held_fps=fps,
            held=metrics.average(self.held) if self.held else None,
            answered=self.answered / self.frames if self.frames else math.nan,
        )


def _at_256(xy: Positions, video: Video) -> Positions:
    height, width = video.frames.shape[1:3]
    return metrics.scale_to_256(xy, width, height)


def evaluate(
    make_tracker: MakeTracker,
    videos: Iterable[Video],
    tracker: str = "",
    data: str = "",
    points_at_once: int = 256,
    fps: float | None = None,
) -> Report:
    """Scores one tracker on `videos`; see `compare`."""
    return compare({tracker: make_tracker}, videos, data, points_at_once, fps)[0]


def compare(
    make_trackers: Mapping[str, MakeTracker],
    videos: Iterable[Video],
    data: str = "",
    points_at_once: int = 256,
    fps: float | None = None,
) -> list[Report]:
    """Scores trackers, named by their keys, on the same videos; iterates over `videos` once.

    Each video gets a fresh tracker. A video with more than `points_at_once` points is run several times, as a tracker
    may have a fixed capacity. Times are of `step` alone. With `fps`, every video is also played at that rate, to score
    what is held in time (see `follow_live`). Raises ConfigError if there are no videos.
    """
    tallies = {name: _Tally() for name in make_trackers}
    for video in videos:
        for name, make_tracker in make_trackers.items():
            tallies[name].add(video, follow(make_tracker, video, points_at_once))
            if fps is not None:
                tallies[name].add_live(video, follow_live(make_tracker, video, fps, points_at_once))
    if not all(tally.scores for tally in tallies.values()):
        raise ConfigError(f"{data or 'the data set'} holds no video to evaluate on; give a data set with at least one")
    return [tally.report(name, data, fps) for name, tally in tallies.items()]


def report_table(reports: Sequence[Report]) -> Table:
    """Reports on the same data as a table, one row each; shares in percent, errors in pixels at 256x256."""
    table = Table(title=f"{reports[0].data}: TAP-Vid's metrics at 256x256, frames after the query")
    table.add_column("tracker")
    within = (f"<{threshold}" for threshold in THRESHOLDS_PX)
    fps = reports[0].held_fps
    live = [] if fps is None else [f"AJ at {fps:g} fps", "in time"]
    for heading in ("AJ", *within, "OA", "median px", "AJ_RD", "found again", "jitter", "drift", "ms", *live):
        table.add_column(heading, justify="right")
    for report in reports:
        scores = report.scores
        table.add_row(
            report.tracker,
            _percent(scores.average_jaccard),
            *map(_percent, scores.position_accuracy),
            _percent(scores.occlusion_accuracy),
            _number(scores.median_error),
            _percent(report.average_jaccard_returned),
            f"{report.redetection.found}/{report.redetection.returned}",
            _number(report.jitter_px),
            _number(report.drift_px),
            f"{report.step_ms_p50:.1f}",
            *([] if report.held is None else [_percent(report.held.average_jaccard), _percent(report.answered)]),
        )
    return table


def equal_time_table(choices: Mapping[str, Sequence[Report]]) -> Table:
    """What every model is worth in the same time: its best report among those that take at most so many milliseconds.

    `choices` are the reports of each model, on the same data, at its inputs; a table of Average Jaccard by budget.
    """
    first = next(iter(choices.values()))[0]
    table = Table(title=f"{first.data}: the best Average Jaccard in a given time of a frame")
    table.add_column("model")
    for budget in BUDGETS_MS:
        table.add_column(f"{budget:g} ms", justify="right")
    for name, reports in choices.items():
        cells = [best_within(reports, budget) for budget in BUDGETS_MS]
        table.add_row(name, *("-" if best is None else _with_name(best, name) for best in cells))
    return table


def best_within(reports: Sequence[Report], ms: float) -> Report | None:
    """The report with the highest Average Jaccard among those whose median step takes at most `ms`, if any does."""
    fast = [report for report in reports if report.step_ms_p50 <= ms]
    return max(fast, key=lambda report: report.scores.average_jaccard, default=None)


def _with_name(report: Report, model: str) -> str:
    """The score, and what in the report's name tells it from others of the same model."""
    return f"{_percent(report.scores.average_jaccard)} {report.tracker.removeprefix(model).strip()}".strip()


def as_dict(report: Report) -> dict[str, Any]:
    """The report as plain values for JSON; None replaces NaN, which JSON lacks."""
    redetection = {**asdict(report.redetection), "rate": report.redetection.rate}
    plain: dict[str, Any] = without_nan({**asdict(report), "thresholds_px": THRESHOLDS_PX, "redetection": redetection})
    return plain


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _mean(values: Sequence[float]) -> float:
    """The mean of the values that are not NaN; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _percentile(values: Sequence[float], percent: float) -> float:
    """A percentile of the values that are not NaN; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.percentile(defined, percent)) if defined else math.nan
