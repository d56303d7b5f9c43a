"""Groups of points as things: how each moved since it was first seen, from those of its points that agree.

A motion is fitted robustly (RANSAC with local optimisation, Raguram et al. 2013; OpenCV's USAC) to a group's visible
points, against where they were when the group was first seen. It says which points follow their object and where its
hidden ones should be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.points.calibration import Calibration
from online_tapir.points.pose import CORNERS, plane_of, pose
from online_tapir.records import Label, ObjectReference, Pose, TrackedObject, Tracks

Motion = Literal["similarity", "affine", "homography"]
Points = NDArray[np.float32]  # [N, 2] image pixels

LEAST: dict[Motion, int] = {"similarity": 3, "affine": 4, "homography": 5}  # points: one more than they need
REPROJECTION = 4.0 / 640  # of the picture's longer side: a point farther off does not follow its object
LEAST_AGREEING = 0.5  # share of the visible points
# An affine motion or a homography is not settled by points near a line: their spread across it must be at least
LEAST_SPREAD_PX = 2.0  # so many pixels
SPREAD_OF_ERRORS = 4.0  # and so many times their distance from where the motion puts them
DOUBT = 0.5  # least uncertainty of a point that does not follow its object
CONFIDENCE = 0.999
ITERATIONS = 500


@dataclass(slots=True)
class _Seen:
    """A group as it was when its points were first seen."""

    ids: list[int] = field(default_factory=list)
    xy: list[NDArray[np.float32]] = field(default_factory=list)  # of each point, image pixels
    corners: list[int] = field(default_factory=list)  # ids of the group's first points, though some may be gone
    pose: Pose | None = None  # the last

    @classmethod
    def of(cls, reference: ObjectReference) -> "_Seen":
        return cls(list(reference.ids), list(reference.xy), list(reference.corners))

    def box(self) -> NDArray[np.float32]:
        """The corners of the box around its points, [4, 2], clockwise from the top left."""
        places = np.array(self.xy)
        (left, top), (right, bottom) = places.min(axis=0), places.max(axis=0)
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


class Objects:
    """Follows the groups of one stream. Call `follow` with the tracks of every frame.

    With a `calibration`, motions are fitted to undistorted points, and flat groups of a known size have a pose: `sizes`
    are their width and height in millimetres, by group. A calibration for pictures of another size is not used.
    """

    def __init__(
        self,
        motion: Motion = "similarity",
        calibration: Calibration | None = None,
        sizes: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self._motion = motion
        self._calibration = calibration
        self._sizes = sizes or {}
        self._groups: dict[str, _Seen] = {}
        self._restored: dict[str, ObjectReference] = {}  # from an earlier run, before the first frame of this one
        self._picture: tuple[tuple[int, int], tuple[float, ...]] | None = None  # its size and its lens's numbers
        self.trouble = ""  # why the calibration is not used

    @property
    def references(self) -> dict[str, ObjectReference]:
        """What the motions are measured against, by group; empty before the first frame."""
        if self._picture is None:
            return dict(self._restored)
        return {
            name: ObjectReference(
                tuple(seen.ids), np.array(seen.xy, np.float32).reshape(-1, 2), tuple(seen.corners), *self._picture
            )
            for name, seen in self._groups.items()
        }

    def restore(self, references: Mapping[str, ObjectReference]) -> None:
        """Goes on from the `references` of an earlier run, before the first frame.

        Those of a picture of another size, or through another lens, are left out: such objects begin anew.
        """
        self._restored = dict(references)

    def _lens(self, tracks: Tracks) -> Calibration | None:
        """The calibration, if it is for pictures of this size."""
        lens = self._calibration
        if lens is None or lens.size == (tracks.width, tracks.height):
            return lens
        wide, high = lens.size
        self.trouble = (
            f"the calibration is for pictures of {wide}x{high}, and these have {tracks.width}x{tracks.height}: it is "
            f"not used, and objects have no pose; ask the camera for that size, or calibrate at this one"
        )
        return None

    def follow(self, tracks: Tracks, sought: Mapping[int, Label] | None = None) -> tuple[TrackedObject, ...]:
        """The groups on this frame, by name; groups of fewer points than a motion needs are left out.

        `sought` are the labels of points that are searched for and not among the tracks: they may be corners.
        An object begins on the first frame on which enough of its points are visible. A point that comes later, while
        its object is found, enters where it was on that frame.
        """
        members: dict[str, list[int]] = {}
        for id, label in tracks.labels.items():
            if label.group:
                members.setdefault(label.group, []).append(id)
        lens = self._lens(tracks)
        self._picture = (tracks.width, tracks.height), () if lens is None else lens.numbers
        known = {name: _Seen.of(one) for name, one in self._restored.items() if self._fits(one)} | self._groups
        self._groups, self._restored = {name: known.get(name) or _Seen() for name in members}, {}
        self._settle_corners(members, sought or {})
        ideal = tracks if lens is None else replace(tracks, xy=lens.undistort(tracks.xy))
        found = []
        for name in sorted(members):
            one = self._one(name, sorted(members[name]), ideal)
            if one is not None:
                found.append(one if lens is None else self._seen_by(lens, one, ideal))
        return tuple(found)

    def _fits(self, reference: ObjectReference) -> bool:
        return (reference.size, reference.lens) == self._picture

    def _settle_corners(self, members: Mapping[str, Sequence[int]], sought: Mapping[int, Label]) -> None:
        """Settles which points are the corners of each group: its first four. Later points never are.

        A group that has lost all its corners gets new ones.
        """
        for name, ids in members.items():
            seen = self._groups[name]
            awaited = [id for id, label in sought.items() if label.group == name]
            if len(seen.corners) == CORNERS and not set(seen.corners) & {*ids, *awaited}:
                seen.corners = []
            if len(seen.corners) < CORNERS:
                there = sorted({*seen.corners, *ids})
                seen.corners = [id for id in there if id < min(awaited, default=id + 1)][:CORNERS]

    def _seen_by(self, lens: Calibration, one: TrackedObject, ideal: Tracks) -> TrackedObject:
        """The object as it lies in the picture, with its pose if its size is known."""
        places = list(one.placed)
        back = lens.distort(np.array([one.placed[id] for id in places], np.float32).reshape(-1, 2))
        box = None if one.box is None else lens.distort(one.box)
        return replace(one, box=box, placed=dict(zip(places, back, strict=True)), pose=self._pose(lens, one, ideal))

    def _pose(self, lens: Calibration, one: TrackedObject, ideal: Tracks) -> Pose | None:
        size, seen = self._sizes.get(one.name), self._groups[one.name]
        corners, entered = seen.corners, dict(zip(seen.ids, seen.xy, strict=True))
        if size is None or not one.found or not all(id in entered for id in corners) or len(corners) < CORNERS:
            return None
        plane = plane_of(np.array([entered[id] for id in corners], np.float32), size)
        if plane is None:
            return None
        rows = np.searchsorted(ideal.ids, one.following)
        places = moved(plane, np.array([entered[id] for id in one.following.tolist()], np.float32))
        found = pose(places, ideal.xy[rows], lens, size, seen.pose)
        seen.pose = found or seen.pose
        return found

    def _one(self, name: str, ids: Sequence[int], tracks: Tracks) -> TrackedObject | None:
        motion: Motion = "homography" if name in self._sizes else self._motion  # what a flat thing does
        seen, there = self._groups[name], set(ids)
        gone = [i for i, id in enumerate(seen.ids) if id not in there]
        for i in reversed(gone):
            del seen.ids[i], seen.xy[i]
        rows = {int(id): row for row, id in enumerate(tracks.ids.tolist())}
        visible = {id for id in ids if id in rows and tracks.visible[rows[id]]}
        if len(seen.ids) < LEAST[motion]:  # all of them as of one frame, the first with enough
            seen = self._groups[name] = _Seen(corners=seen.corners)
            self._enter(seen, *_new(seen, visible, rows, tracks))
            if len(seen.ids) < LEAST[motion]:
                return None
        known = [(i, id) for i, id in enumerate(seen.ids) if id in visible]
        source = np.array([seen.xy[i] for i, _ in known], np.float32).reshape(-1, 2)
        target = np.array([tracks.xy[rows[id]] for _, id in known], np.float32).reshape(-1, 2)
        matrix, agrees = fit(source, target, motion, REPROJECTION * max(tracks.width, tracks.height))
        if matrix is None:
            nobody = np.empty(0, np.int32)
            return TrackedObject(name, None, None, len(known), nobody, nobody, {})
        new_ids, new_xy = _new(seen, visible, rows, tracks)
        if new_ids:
            back = np.asarray(np.linalg.inv(matrix), np.float64)
            self._enter(seen, new_ids, list(moved(back, np.array(new_xy, np.float32))))
        following = np.array([id for (_, id), agree in zip(known, agrees, strict=True) if agree], np.int32)
        doubtful = np.array([id for (_, id), agree in zip(known, agrees, strict=True) if not agree], np.int32)
        hidden = [i for i, id in enumerate(seen.ids) if id not in visible and id in rows]
        placed = {
            seen.ids[i]: xy for i, xy in zip(hidden, moved(matrix, np.array([seen.xy[i] for i in hidden])), strict=True)
        }
        box = moved(matrix, seen.box())
        return TrackedObject(name, matrix, box, len(known), following, doubtful, placed)

    def _enter(self, seen: _Seen, ids: Sequence[int], xy: Sequence[NDArray[np.float32]]) -> None:
        seen.ids.extend(ids)
        seen.xy.extend(np.array(place, np.float32) for place in xy)


def _new(
    seen: _Seen, visible: set[int], rows: dict[int, int], tracks: Tracks
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """Visible points that have not entered yet."""
    ids = sorted(visible - set(seen.ids))
    return ids, [tracks.xy[rows[id]] for id in ids]


def fit(
    source: Points, target: Points, motion: Motion, reach: float
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
    """The motion [3, 3] that takes most of source [N, 2] to within `reach` pixels of target [N, 2]; which agree [N].

    None where there are too few points, fewer than half agree, those lie along a line that does not settle the motion,
    or the motion is degenerate. Nothing is guessed.
    """
    nobody = np.zeros(len(source), np.bool_)
    if len(source) < LEAST[motion]:
        return None, nobody
    how: dict[str, Any] = {"ransacReprojThreshold": reach, "maxIters": ITERATIONS, "confidence": CONFIDENCE}
    try:
        if motion == "homography":
            matrix, inliers = cv2.findHomography(source, target, cv2.USAC_DEFAULT, **how)
        elif motion == "affine":
            matrix, inliers = cv2.estimateAffine2D(source, target, method=cv2.USAC_DEFAULT, **how)
        else:
            matrix, inliers = cv2.estimateAffinePartial2D(source, target, method=cv2.RANSAC, **how)
    except cv2.error:  # all points are in one place
        return None, nobody
    if matrix is None or inliers is None or not np.isfinite(matrix).all():
        return None, nobody
    whole = np.eye(3)
    whole[: len(matrix)] = matrix
    agrees = np.linalg.norm(moved(whole, source) - target, axis=1) < reach
    area = abs(float(np.linalg.det(whole[:2, :2])))
    if agrees.sum() < max(LEAST[motion], LEAST_AGREEING * len(source)) or not 1e-3 < area < 1e3:
        return None, nobody
    if motion != "similarity":
        off = moved(whole, source[agrees]) - target[agrees]
        least = max(LEAST_SPREAD_PX, SPREAD_OF_ERRORS * float(np.sqrt((off**2).sum(axis=1).mean())))
        if min(_spread(source[agrees]), _spread(target[agrees])) < least:
            return None, nobody
    return whole, agrees


def _spread(xy: Points) -> float:
    """The standard deviation of points xy [N, 2] in the direction in which they vary least, pixels."""
    return float(np.linalg.svd(xy - xy.mean(axis=0), compute_uv=False)[-1] / np.sqrt(len(xy)))


def with_objects(tracks: Tracks, objects: tuple[TrackedObject, ...]) -> Tracks:
    """`tracks` with their objects, which place their hidden points and make doubtful those that do not follow them."""
    if not objects:
        return tracks
    xy, uncertainty = tracks.xy.copy(), tracks.uncertainty.copy()
    rows = {id: row for row, id in enumerate(tracks.ids.tolist())}
    for one in objects:
        for id, place in one.placed.items():
            if id in rows:
                xy[rows[id]] = place
        doubtful = np.isin(tracks.ids, one.doubtful)
        uncertainty[doubtful] = np.maximum(uncertainty[doubtful], np.float32(DOUBT))
    return replace(tracks, xy=xy, uncertainty=uncertainty, objects=objects)


def moved(matrix: NDArray[np.float64], xy: NDArray[Any]) -> Points:
    """Points xy [N, 2] after a motion [3, 3]."""
    if not len(xy):
        return np.empty((0, 2), np.float32)
    ends = np.asarray(xy, np.float64).reshape(-1, 2) @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(ends[:, :2] / ends[:, 2:], np.float32)
