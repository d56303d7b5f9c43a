"""Tracks a recording again, with any model: adds the same points on the same frames and compares the tracks.

With the model, settings and thread count of the recording the tracks are bit-identical, as long as every picture is the
one that was tracked and none is missing; the comparison reports both. What a run makes of the model's answers, a replay
makes of them too: points that come back have to prove themselves, and objects place their hidden points.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from online_tapir.errors import PublishError
from online_tapir.points.objects import LEAST, Objects, with_objects
from online_tapir.points.returning import Returns
from online_tapir.recording.reader import RecordedStep, Recording
from online_tapir.recording.steps import TrackedFrame, Writer
from online_tapir.recording.tables import CALIBRATED, table_path
from online_tapir.recording.video import LOSSLESS, VIDEO
from online_tapir.records import Tracks
from online_tapir.tracking.tracker import Tracker

WORST_SHOWN = 5  # points


@dataclass(frozen=True, slots=True)
class PointComparison:
    """One point. Distances are taken on the frames where it was recorded as visible; None if there are none."""

    id: int
    frames: int
    median_px: float | None
    worst_px: float | None
    worst_frame_id: int | None
    visibility_agreement: float  # share of frames with the same visibility, 0 to 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares the tracks of a replay with the recorded ones; distances in pixels of the frame, worst point first."""

    recorded_model: str
    model: str
    frames: int
    frames_recorded: int  # more than `frames` if the replay was stopped, or the recording lacks its last pictures
    changed_pictures: int  # not the ones that were tracked: the codec lost detail
    unrecorded: int  # frames that were tracked, but are not in the recording
    points: int
    left_out: int  # points that were added on a frame that is missing
    carried: int  # frames whose recorded positions optical flow had carried from an earlier answer of the model
    resumed: int  # points that were not named in this recording; not replayed either
    calibrated: bool  # groups were followed through a lens
    identical: bool  # bit for bit, in all that was recorded of the points
    median_px: float | None
    p95_px: float | None
    max_px: float | None
    visibility_agreement: float | None
    missing: tuple[str, ...]  # why this compares less than the manifest promises, or nothing; empty: all was compared
    per_point: tuple[PointComparison, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.frames} of {self.frames_recorded} frames tracked again by {self.model}, recorded with "
            f"{self.recorded_model}; {self.points} points" + (f", {self.left_out} left out" if self.left_out else ""),
            f"{self.changed_pictures} pictures differ from those tracked: the codec lost detail"
            if self.changed_pictures
            else "every picture that was read is the one that was tracked, bit for bit",
        ]
        if self.carried:
            lines.append(
                f"{self.carried} frames were answered by optical flow before the model saw them; a replay tracks every "
                f"frame by the model, so they differ"
            )
        if self.resumed:
            lines.append(
                f"{self.resumed} more points were not named in this recording, but came from a saved state, a template "
                f"or the time before it began: they cannot be tracked again"
            )
        if self.calibrated:
            lines.append(
                "groups were followed through a calibrated lens, which a replay does not know: they may differ"
            )
        if self.unrecorded:
            lines.append(f"{self.unrecorded} frames that were tracked are missing: tracks may differ after them")
        differ = "the tracks differ" if self.points else "no track could be compared"
        of_those = " that could be compared" if self.missing else ""
        lines.append(f"the tracks{of_those} are identical" if self.identical else differ)
        if self.median_px is not None:
            lines.append(
                f"distance where they were visible: median {self.median_px:.3f} px, p95 {self.p95_px:.3f}, "
                f"max {self.max_px:.3f}"
            )
        if self.visibility_agreement is not None:
            lines.append(f"same visibility: {self.visibility_agreement:.2%}")
        if not self.identical:
            lines += [_worst(point) for point in self.per_point[:WORST_SHOWN] if point.worst_px]
        return "\n".join(lines)


class Comparer:
    """Accumulates a comparison, frame by frame."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._ids: list[NDArray[np.int32]] = []
        self._frame_ids: list[NDArray[np.int64]] = []
        self._distance_px: list[NDArray[np.float32]] = []  # NaN where it was recorded as hidden
        self._alike: list[NDArray[np.bool_]] = []
        self._frames = self._changed = self._unrecorded = 0
        self._identical = True
        self._calibrated = False
        self._carried = 0  # frames whose recorded positions flow had carried
        self._model = ""

    def add(self, step: RecordedStep, tracks: Tracks) -> None:
        """`tracks` are those of the replay, with the ids of the recording."""
        then = step.tracks
        _, rows_then, rows = np.intersect1d(then.ids, tracks.ids, assume_unique=True, return_indices=True)
        distance_px = np.linalg.norm(then.xy[rows_then] - tracks.xy[rows], axis=1)
        self._ids.append(then.ids[rows_then])
        self._frame_ids.append(np.full(len(rows), step.frame.id))
        self._distance_px.append(np.where(then.visible[rows_then], distance_px, np.float32(np.nan)))
        self._alike.append(then.visible[rows_then] == tracks.visible[rows])
        self._identical = self._identical and _identical(then, tracks)
        self._frames += 1
        self._changed += not step.exact
        self._unrecorded = step.unrecorded
        self._model = tracks.model
        through_lens = self._recording.manifest.settings.objects == CALIBRATED
        self._calibrated |= through_lens and any(label.group for label in then.labels.values())
        self._carried += step.tracks.model_frame_id != step.frame.id

    def comparison(self, left_out: int, resumed: int = 0, expected: int | None = None) -> Comparison:
        """`expected` frames should have been added; None: whatever was added is all."""
        ids, frame_ids, distance_px, alike = (
            np.concatenate([np.empty(0, kind), *parts])
            for kind, parts in (
                (np.int32, self._ids),
                (np.int64, self._frame_ids),
                (np.float32, self._distance_px),
                (np.bool_, self._alike),
            )
        )
        order = np.argsort(ids, kind="stable")
        starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
        per_point = [
            _compare_point(int(ids[rows[0]]), frame_ids[rows], distance_px[rows], alike[rows])
            for rows in np.split(order, starts[1:])
            if len(rows)
        ]
        median_px, p95_px, max_px = _percentiles(distance_px)
        return Comparison(
            recorded_model=self._recording.manifest.model,
            model=self._model,
            frames=self._frames,
            frames_recorded=len(self._recording),
            changed_pictures=self._changed,
            unrecorded=self._unrecorded,
            points=len(per_point),
            left_out=left_out,
            carried=self._carried,
            resumed=resumed,
            calibrated=self._calibrated,
            identical=self._identical and bool(per_point),
            median_px=median_px,
            p95_px=p95_px,
            max_px=max_px,
            visibility_agreement=float(alike.mean()) if len(alike) else None,
            missing=tuple(self._missing(expected, len(per_point))),
            per_point=tuple(sorted(per_point, key=lambda point: -(point.worst_px or 0.0))),
        )

    def _missing(self, expected: int | None, points: int) -> Iterator[str]:
        manifest = self._recording.manifest
        for name in self._recording.cut_tables():
            yield f"{name} is cut short"
        if expected is not None and self._frames < expected:
            yield f"only {self._frames} of {expected} frames have their tracks and their picture ({VIDEO})"
        if self._changed and manifest.end is not None and manifest.codec in LOSSLESS:
            yield f"{self._changed} pictures in {VIDEO} are damaged: {manifest.codec} keeps every bit, and they differ"
        if not points:
            yield "no point was compared"


class Replay:
    """Replays a recording through a tracker; its tracks get the ids of the recording."""

    def __init__(self, recording: Recording, tracker: Tracker) -> None:
        self.left_out = 0
        self.resumed: set[int] = set()
        self._recording = recording
        self._tracker = tracker
        self._ids: dict[int, int] = {}  # the recording's ids, by the tracker's
        self._named: set[int] = set()  # the recording's ids
        self._returns = Returns()
        motion = recording.manifest.settings.objects
        self._objects = Objects(motion) if motion in LEAST else None

    def track(self, step: RecordedStep) -> Tracks:
        """Removes and adds points as was done before this frame, then tracks it."""
        self._remove_all_but(set(step.tracks.ids.tolist()))
        self._name(step)
        self.resumed |= set(step.tracks.ids.tolist()) - self._named
        tracks = self._tracker.step(step.frame)
        ids = np.array([self._ids[id] for id in tracks.ids.tolist()], np.int32)
        labels = {id: label for id, label in step.tracks.labels.items() if id in ids}
        then = step.tracks
        # A point of a past frame may get a lower number in one run than in the other.
        tracks = replace(tracks, ids=ids, labels=labels, dropped=then.dropped, camera=then.camera)
        tracks = tracks.taken(np.argsort(ids))
        if self._objects is not None:
            tracks = with_objects(tracks, self._objects.follow(tracks))
        return self._returns.sift(tracks, tracks.objects)

    def _remove_all_but(self, kept: set[int]) -> None:
        gone = [id for id, recorded in self._ids.items() if recorded not in kept]
        if gone:
            self._tracker.remove(gone)
            for id in gone:
                del self._ids[id]

    def _name(self, step: RecordedStep) -> None:
        for queries in step.named:
            self._named |= set(queries.ids.tolist())
            now = queries.frame_id == step.frame.id
            if not now and queries.frame_id not in self._tracker.frame_ids:
                self.left_out += len(queries.ids)
                continue
            ids = self._tracker.add(queries.xy, frame_id=None if now else queries.frame_id)
            self._ids |= dict(zip(ids.tolist(), queries.ids.tolist(), strict=True))


def replay(
    recording: Recording,
    tracker: Tracker,
    writers: Sequence[Writer] = (),
    stop: threading.Event | None = None,
    frames: int | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Comparison:
    """Tracks `recording` again with a new `tracker`, to its end, until `stop` is set, or for `frames` frames.

    Calls `advance` after each frame. Writes the new tracks to `writers`, and leaves these open. Raises CameraError if
    the video cannot be read, QueryError if the tracker has no room for the points, PublishError if a writer fails.
    """
    run, comparer = Replay(recording, tracker), Comparer(recording)
    for writer in writers:
        writer.begin(recording.manifest.camera)
    expected: int | None = None if recording.manifest.end is None else min(len(recording), frames or len(recording))
    for count, step in enumerate(recording.steps()):
        if count == frames:
            break
        if stop is not None and stop.is_set():
            expected = None
            break
        tracks = run.track(step)
        comparer.add(step, tracks)
        try:
            for writer in writers:
                writer.write(TrackedFrame(step.frame, tracks, step.named, step.unrecorded))
        except OSError as error:
            raise PublishError(f"cannot write frame {step.frame.id}: {error}") from error
        advance()
    known = table_path(recording.folder, "queries").name not in recording.cut_tables()
    return comparer.comparison(run.left_out, len(run.resumed) if known else 0, expected)


def _identical(one: Tracks, other: Tracks) -> bool:
    return all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for name in ("ids", "xy", "visible", "occlusion", "uncertainty")
    )


def _compare_point(
    id: int, frame_ids: NDArray[np.int64], distance_px: NDArray[np.float32], alike: NDArray[np.bool_]
) -> PointComparison:
    median_px, _, worst_px = _percentiles(distance_px)
    worst = None if worst_px is None else int(frame_ids[np.nanargmax(distance_px)])
    return PointComparison(id, len(frame_ids), median_px, worst_px, worst, float(alike.mean()))


def _percentiles(distance_px: NDArray[np.float32]) -> tuple[float, float, float] | tuple[None, None, None]:
    """Median, 95th percentile and largest; None if nothing was visible."""
    known = distance_px[~np.isnan(distance_px)]
    if not len(known):
        return None, None, None
    median_px, p95_px, max_px = np.percentile(known, [50, 95, 100]).tolist()
    return median_px, p95_px, max_px


def _worst(point: PointComparison) -> str:
    return (
        f"  point {point.id}: up to {point.worst_px:.3f} px (frame {point.worst_frame_id}), median "
        f"{point.median_px:.3f}, same visibility {point.visibility_agreement:.1%}"
    )
