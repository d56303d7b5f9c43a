"""Runs streaming point trackers over videos with known truth and reports accuracy, jitter, drift and speed.

Everything is causal: a tracker gets each frame once, in order, and only frames after a point's query are scored.
Videos are this project's scenes, rendered here, or those of a data set (`tapvid`).
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from online_tapir.errors import ConfigError
from online_tapir.evaluation import scores as metrics
from online_tapir.evaluation.baselines import PointTracker
from online_tapir.evaluation.scores import THRESHOLDS_PX, Redetection, TrackScores
from online_tapir.plain_json import without_nan
from online_tapir.scenes.clips import SceneConfig, make_clips
from online_tapir.scenes.textures import TextureBank

MakeTracker = Callable[[], PointTracker]

VALIDATION_SEED = 1_000_000_007  # far above the training seeds, which count up from 0
PROCEDURAL_TEXTURES = 48
WARM_UP_STEPS = 2  # of each run, excluded from the times


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """Frames with the true tracks of points on them; each point is tracked from its query frame on."""

    name: str
    frames: NDArray[np.uint8]  # [T, H, W, 3] RGB
    xy: NDArray[np.float32]  # [N, T, 2] image pixels
    visible: NDArray[np.bool_]  # [N, T]
    query_frame: NDArray[np.int64]  # [N]


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

    def add(self, video: Video, xy: NDArray[np.float32], visible: NDArray[np.bool_], step_ns: Sequence[int]) -> None:
        frames, height, width = video.frames.shape[:3]
        told, truth = metrics.scale_to_256(xy, width, height), metrics.scale_to_256(video.xy, width, height)
        scored = metrics.frames_after_query(video.query_frame, frames)  # [N, T]
        self.scores.append(metrics.score(told, visible, truth, video.visible, scored))
        self.points += len(xy)
        self.redetection += metrics.redetection(told, visible, truth, video.visible, video.query_frame)
        after = metrics.frames_after_return(video.visible, video.query_frame)  # [N, T]
        self.returned.append(metrics.score(told, visible, truth, video.visible, after).average_jaccard)
        self.jitter.extend(metrics.jitter(told, truth, video.visible, scored).tolist())
        self.drift.extend(metrics.drift(told, truth, video.visible, scored).tolist())
        self.step_ns.extend(step_ns)

    def report(self, tracker: str, data: str) -> Report:
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
        )


def evaluate(
    make_tracker: MakeTracker,
    videos: Iterable[Video],
    tracker: str = "",
    data: str = "",
    points_at_once: int = 256,
) -> Report:
    """Scores one tracker on `videos`; see `compare`."""
    return compare({tracker: make_tracker}, videos, data, points_at_once)[0]


def compare(
    make_trackers: Mapping[str, MakeTracker], videos: Iterable[Video], data: str = "", points_at_once: int = 256
) -> list[Report]:
    """Scores trackers, named by their keys, on the same videos; iterates over `videos` once.

    Each video gets a fresh tracker. A video with more than `points_at_once` points is run several times, as a tracker
    may have a fixed capacity. Times are of `step` alone. Raises ConfigError if there are no videos.
    """
    tallies = {name: _Tally() for name in make_trackers}
    for video in videos:
        for name, make_tracker in make_trackers.items():
            tallies[name].add(video, *follow(make_tracker, video, points_at_once))
    if not all(tally.scores for tally in tallies.values()):
        raise ConfigError(f"{data or 'the data set'} holds no video to evaluate on; give a data set with at least one")
    return [tally.report(name, data) for name, tally in tallies.items()]


def follow(
    make_tracker: MakeTracker, video: Video, points_at_once: int = 256
) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[int]]:
    """Runs a tracker over a video: its xy [N, T, 2] (image pixels), visible [N, T] and nanoseconds per step.

    Each point is queried on its query frame, at its true position. On earlier frames it is hidden at that position.
    """
    count, frames = video.visible.shape
    if not count:
        return np.zeros((0, frames, 2), np.float32), np.zeros((0, frames), bool), []
    groups = np.array_split(np.arange(count), math.ceil(count / points_at_once))
    runs = [_follow_group(make_tracker(), video, group) for group in groups]
    xy, visible, step_ns = zip(*runs, strict=True)
    return np.concatenate(xy), np.concatenate(visible), [ns for times in step_ns for ns in times]


def _follow_group(
    tracker: PointTracker, video: Video, points: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[int]]:
    """Like `follow`, for some of the points [n] in one tracker."""
    query_frame = video.query_frame[points]  # [n]
    query_xy = _onto_the_frame(video.xy[points, query_frame], video.frames)  # [n, 2]
    xy = np.repeat(query_xy[:, None], len(video.frames), axis=1)  # [n, T, 2]
    visible = np.zeros(xy.shape[:2], bool)  # [n, T]
    row_of: dict[int, int] = {}  # by the tracker's id
    step_ns = []
    for t, rgb in enumerate(video.frames):
        due = np.flatnonzero(query_frame == t)
        if len(due):
            row_of.update(zip(tracker.add(query_xy[due]).tolist(), due.tolist(), strict=True))
        started = time.perf_counter_ns()
        tracks = tracker.step(rgb)
        if row_of:
            step_ns.append(time.perf_counter_ns() - started)
        rows = [row_of[point] for point in tracks.ids.tolist()]
        xy[rows, t] = tracks.xy
        visible[rows, t] = tracks.visible
    return xy, visible, step_ns[WARM_UP_STEPS:]


def _onto_the_frame(xy: NDArray[np.float32], frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Clips positions [n, 2] into the frame: annotations may lie exactly on its far border, which is outside."""
    far = np.nextafter(np.array(frames.shape[2:0:-1], np.float32), np.float32(0))
    return np.clip(xy, np.float32(0), far)


def validation_videos(
    photos: Path | None, count: int = 16, frames: int = 24, size: int = 256, points: int = 64
) -> Iterator[Video]:
    """This project's validation scenes, rendered one by one; the same arguments always give the same scenes.

    Textures are the photographs in folder `photos`, or procedural ones if it is None. Few points come back from an
    occlusion within 24 frames: use 64 frames to measure re-detection.
    Raises ConfigError for a folder that is missing or contains no images.
    """
    config = SceneConfig(height=size, width=size, frames=frames, points=points)
    return _rendered("scene", config, _textures(photos), count)


def hard_videos(
    photos: Path | None, count: int = 8, frames: int = 48, size: int = 256, points: int = 64
) -> Iterator[Video]:
    """Harder scenes: all of them turn by any angle and grow or shrink, and most points are hidden for a while.

    Arguments and errors as for `validation_videos`.
    """
    config = SceneConfig(
        height=size, width=size, frames=frames, points=points, turned=1.0, max_scale=3.0, hidden_points=0.9
    )
    return _rendered("hard", config, _textures(photos), count)


def still_videos(
    photos: Path | None, count: int = 4, frames: int = 200, size: int = 256, points: int = 64
) -> Iterator[Video]:
    """Scenes in which nothing moves, degraded by sensor noise only, to measure drift and jitter.

    Arguments and errors as for `validation_videos`.
    """
    config = SceneConfig(height=size, width=size, frames=frames, points=points, still=True).clean()
    noisy = replace(config, noise=1.0)
    return _rendered("still", noisy, _textures(photos), count)


def _textures(photos: Path | None) -> TextureBank:
    if photos is None:
        return TextureBank.procedural(PROCEDURAL_TEXTURES, VALIDATION_SEED)
    return TextureBank.from_folder(photos)


def _rendered(name: str, config: SceneConfig, textures: TextureBank, count: int) -> Iterator[Video]:
    for i in range(count):
        clips = make_clips([VALIDATION_SEED + i], config, textures)
        frames = ((clips.frames[0].permute(0, 2, 3, 1) + 1) * 127.5).round().byte()  # [T, H, W, 3]
        yield Video(
            name=f"{name} {i}",
            frames=frames.numpy(),
            xy=clips.xy[0].numpy(),
            visible=clips.visible[0].numpy(),
            query_frame=clips.query_frame[0].numpy(),
        )


def report_table(reports: Sequence[Report]) -> Table:
    """Reports on the same data as a table, one row each; shares in percent, errors in pixels at 256x256."""
    table = Table(title=f"{reports[0].data}: TAP-Vid's metrics at 256x256, frames after the query")
    table.add_column("tracker")
    within = (f"<{threshold}" for threshold in THRESHOLDS_PX)
    for heading in ("AJ", *within, "OA", "median px", "AJ_RD", "found again", "jitter", "drift", "ms"):
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
        )
    return table


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
