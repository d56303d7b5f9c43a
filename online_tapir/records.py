"""Plain data records, passed from the camera to the sinks; no computation, no I/O.

Positions are image pixels in raster coordinates: (0, 0) is the top-left corner of the first pixel, whose centre is at
(0.5, 0.5). Times are nanoseconds: `*_ns` of the capturing machine's monotonic clock, `*_unix_ns` of its wall clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import supervision as sv


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture and the moment it was grabbed."""

    id: int
    captured_ns: int
    captured_unix_ns: int
    rgb: NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Nanoseconds spent on one frame, stage by stage.

    `capture` is the age of the frame when the tracker took it; `publish` is the time that the sinks took for
    the previous frame. On a frame that flow carried, the stages between them are those of the model's newest answer.
    """

    capture: int = 0
    upload: int = 0
    encode: int = 0
    match: int = 0
    refine: int = 0
    download: int = 0
    publish: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Where one step of the model put a point: the first guess, or a refinement of it."""

    name: str  # "match", "refine 1", "refine 2"; "512x384 refine 1" where points are refined at several resolutions
    xy: NDArray[np.float32]  # [2] image pixels
    occlusion: float  # probability that the point is hidden
    uncertainty: float  # probability that the position is off
    visible: bool


@dataclass(frozen=True, slots=True, eq=False)
class Correlations:
    """Local correlations of one refinement around the stage before it: 7x7 samples of each level, fine to coarse."""

    stage: str  # the name of the stage computed from them
    xy: NDArray[np.float32]  # [2] image pixels: the middle of every patch
    query: NDArray[np.float32]  # [L, 7, 7] with the point's running features
    recent: NDArray[np.float32] | None  # [L, 7, 7] with its features when last seen; None without `recent_inputs`
    reach: NDArray[np.float32]  # [L, 2] image pixels (x, y) from the middle of a patch to its outermost samples


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """The model's intermediate results for one point on one frame. Maps cover the whole picture."""

    id: int
    cost: NDArray[np.float32]  # [K, H, W] correlation with the query (K = 1); with `recent_inputs` (K = 3) also
    # the correlation with the last sight and the nearness to the expected position
    heat: NDArray[np.float32]  # [H, W] probabilities of the position, sum 1
    stages: tuple[Stage, ...]  # the first guess, then each refinement; the last one is published
    correlations: tuple[Correlations, ...]  # one for each refinement


@dataclass(frozen=True, slots=True)
class Label:
    """What a point is called, which group it belongs to, and its colour; each may be left out."""

    name: str = ""  # of one living point only
    group: str = ""
    color: int | None = None  # 0xRRGGBB; None: by the viewer's own rule
    sought: str = ""  # the name of the template that it is searched by, until it is found


@dataclass(frozen=True, slots=True, eq=False)
class TrackedObject:
    """A group of points as a thing on one frame: how it moved since it was first seen, if enough of them agree."""

    name: str  # of the group
    # [3, 3] from image pixels when it was first seen to those now, without distortion if calibrated; None: not found
    matrix: NDArray[np.float64] | None
    box: NDArray[np.float32] | None  # [4, 2] image pixels: the box around its points then, where it is now
    seen: int  # visible points
    following: NDArray[np.int32]  # ids of those that agree
    doubtful: NDArray[np.int32]  # ids of visible ones that do not
    placed: Mapping[int, NDArray[np.float32]]  # hidden ones by id: where they should be, [2] image pixels
    pose: "Pose | None" = None  # of a flat object of known size, seen by a calibrated camera

    @property
    def found(self) -> bool:
        return self.matrix is not None


@dataclass(frozen=True, slots=True, eq=False)
class ObjectReference:
    """What an object's motion is measured against: a group of points as they were when they were first seen."""

    ids: tuple[int, ...]
    xy: NDArray[np.float32]  # [P, 2] pixels of a picture of `size`, without the distortion of the `lens`
    corners: tuple[int, ...]  # ids of the group's first points, though some may be gone
    size: tuple[int, int]  # width, height
    lens: tuple[float, ...]  # the numbers of its calibration; none: not calibrated


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """Where a flat object is, in the camera's own space: x right, y down, z forward, millimetres.

    The object's origin is its first corner, x along its width, y along its height, z away from who looks at it.
    """

    rotation: NDArray[np.float64]  # [3] axis times angle in radians, from the object's axes to the camera's
    translation_mm: NDArray[np.float64]  # [3] of the object's origin
    error_px: float  # root mean square distance of its points from where this pose puts them, image pixels
    size_mm: tuple[float, float]  # width, height


NAMED = 4  # templates that are named where many are searched for


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """Where every live point is on one frame; row i of each array belongs to point `ids[i]`, and ids ascend."""

    frame_id: int
    captured_ns: int
    captured_unix_ns: int
    width: int  # of the frame, pixels
    height: int
    ids: NDArray[np.int32]  # [N]
    xy: NDArray[np.float32]  # [N, 2] image pixels
    visible: NDArray[np.bool_]  # [N]
    occlusion: NDArray[np.float32]  # [N] probability that the point is hidden
    uncertainty: NDArray[np.float32]  # [N] probability that the position is off
    dropped: int = 0  # frames that the source has dropped since it was opened
    camera: str = ""
    model: str = ""
    times: StageTimes = field(default_factory=StageTimes)
    published_unix_ns: int = 0
    model_frame_id: int = -1  # the frame that the model last saw of these points; -1: none, or unknown
    input: str = ""  # the size that the model matched at, as 512x288; not published
    inspection: Inspection | None = None  # of the inspected point; never published
    labels: Mapping[int, Label] = field(default_factory=dict)  # by id, of the points that have one
    objects: tuple[TrackedObject, ...] = ()  # the groups of points, by name
    searching: tuple[str, ...] = ()  # names of templates that have not been found yet
    epoch: int = 0  # in a fleet, the number of the camera's placement: it grows with every one; 0 outside of a fleet

    @property
    def search(self) -> str:
        """In words, which templates have not been found yet; "" where there are none."""
        if not self.searching:
            return ""
        more = len(self.searching) - NAMED
        return "searching for " + ", ".join(self.searching[:NAMED]) + (f" and {more} more" if more > 0 else "")

    def taken(self, rows: NDArray[Any]) -> "Tracks":
        """The tracks of some of the points: of those at `rows`, or where a mask [N] is true."""
        names = ("ids", "xy", "visible", "occlusion", "uncertainty")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def called(self, id: int) -> str:
        """The point's name, or its id where it has none."""
        label = self.labels.get(id)
        return label.name if label is not None and label.name else str(id)

    def to_supervision(self, side: float | None = None) -> "sv.KeyPoints | sv.Detections":
        """These tracks for the library `supervision`, which has the same image pixels.

        KeyPoints: one object with N key points, xy [1, N, 2], hidden ones marked as such. With a `side` in pixels:
        Detections, a box of this size around every visible point, with its id as `tracker_id`. `data` holds the points'
        ids and names. Raises ModuleNotFoundError where the library is not installed.
        """
        import supervision as sv

        confidence = np.asarray((1 - self.occlusion) * (1 - self.uncertainty), np.float32)
        names = np.array([self.called(id) for id in self.ids.tolist()], dtype=object)
        if side is None:
            return sv.KeyPoints(
                xy=self.xy[None],
                keypoint_confidence=confidence[None],
                visible=self.visible[None],
                data={"point_id": self.ids[None], "point_name": names[None]},
            )
        seen = self.visible
        corners = np.concatenate([self.xy[seen] - side / 2, self.xy[seen] + side / 2], axis=1)
        return sv.Detections(
            xyxy=corners,
            confidence=confidence[seen],
            class_id=np.zeros(len(corners), int),
            tracker_id=self.ids[seen].astype(int),
            data={"class_name": names[seen]},
        )

    def id_of(self, name: str) -> int | None:
        """The point of this name; None if there is none."""
        return next((id for id, label in self.labels.items() if label.name == name), None)


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """Points that were added on one frame: ids [P], xy [P, 2] (image pixels)."""

    ids: NDArray[np.int32]
    xy: NDArray[np.float32]
    frame_id: int
    labels: Mapping[int, Label] = field(default_factory=dict)  # by id, of those that have one
