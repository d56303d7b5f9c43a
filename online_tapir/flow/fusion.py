"""Fuses two estimates of the points: flow is fast and precise but drifts; the model is late and coarse but does not.

Flow moves every visible point from frame to frame. The model's answer for a past frame is compared with where flow had
each point on *that* frame. If both agree within a gate, flow's position is pulled a little towards the model's; if not,
flow carries the model's position from its frame to now. The model decides what is visible; where flow agrees with its
position, less certainty is enough. A point that flow loses keeps its position and is reported as not visible until the
model answers.
"""

from collections import deque
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from online_tapir.flow.sparse import FlowFrame, Points, anchored, carry
from online_tapir.records import Frame, Tracks

Ids = NDArray[np.int32]
Bools = NDArray[np.bool_]
Table = NDArray[np.void]  # of POINT

GATE = 2.0 / 256  # of the frame's longer side: about two pixels of the model's input
GAIN = 0.6  # share of the difference that an answer within the gate corrects, if the model is certain of its position
AGREED = 0.1  # the model's certainty from which a point counts as visible if flow agrees with its position
MOST_ANCHORS = 4  # frames on which points were named that they are compared with; the oldest is given up for more
REMEMBERED = 12  # frames kept, through which late answers can be carried

POINT = np.dtype(
    [
        ("id", np.int32),
        ("xy", np.float32, 2),
        ("sure", np.bool_),  # False: flow lost the point, and the model has not answered since
        ("visible", np.bool_),  # as of the model's last answer
        ("occlusion", np.float32),  # of the same answer
        ("uncertainty", np.float32),
        ("anchor", np.int64),  # the frame on which it was named, whose look it is compared with; -1: given up
        ("anchor_xy", np.float32, 2),  # where it was there
        ("anchored", np.bool_),  # it was found again in that look on the newest frame
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """The points on one frame, and which of their positions can be relied on."""

    flow: FlowFrame
    ids: Ids  # [N] ascending
    xy: Points  # [N, 2]
    sure: Bools  # [N] False: flow lost the point, and the model has not answered since


class Fusion:
    """The points of one stream. `carry` moves them to a new frame, `correct` applies an answer of the model."""

    def __init__(
        self, gate: float = GATE, gain: float = GAIN, remembered: int = REMEMBERED, anchors: bool = True
    ) -> None:
        """Without `anchors`, positions drift with flow between the model's answers."""
        self._anchoring = anchors
        self._gate = gate
        self._gain = gain
        self._past: deque[Moment] = deque(maxlen=remembered)
        self._points = np.empty(0, POINT)  # in the order of their ids
        self._anchors: dict[int, FlowFrame] = {}  # by id, oldest first
        self.model_frame_id = -1  # of the newest answer

    def carry(self, frame: Frame) -> None:
        """Moves the points to `frame`, the next one."""
        flow, points = FlowFrame.of(frame), self._points
        if self._past:
            follows = points["visible"] & points["sure"]  # flow would carry a hidden point along with its occluder
            xy, passed = carry(self._past[-1].flow, flow, points["xy"][follows])
            points["xy"][follows] = xy
            points["sure"][follows] = passed
        if self._anchoring:
            self._anchor(flow)
        self._remember(flow)

    def add(self, ids: Ids, xy: Points, frame_id: int | None, named: bool = True) -> None:
        """Adds points on the newest frame (None) or on a remembered one, from which flow carries them to the newest.

        `named` points were placed by people: they are where they should be, so later looks are compared with theirs.
        """
        new = np.zeros(len(ids), POINT)
        new["id"], new["visible"] = ids, True
        new["xy"], new["sure"] = self._brought(xy, frame_id)
        new["anchor"] = -1
        there = self._past[-1].flow if self._past and frame_id is None else self._flow(frame_id)
        if there is not None and named and self._anchoring:
            self._anchors[there.id] = there
            new["anchor"], new["anchor_xy"] = there.id, xy
        both = np.concatenate([self._points, new])
        self._points = both[np.argsort(both["id"])]  # restored points come after newer ones
        if self._past:
            self._remember(self._past.pop().flow)

    def keep(self, ids: Ids) -> None:
        """Forgets all points but these."""
        self._points = self._points[np.isin(self._points["id"], ids)]

    def where(self, ids: Ids, frame_id: int) -> tuple[Points, Bools] | None:
        """The positions of points on a remembered frame [P, 2], and of which flow is sure [P]; None if one is new."""
        for moment in self._past:
            if moment.flow.id == frame_id and np.isin(ids, moment.ids).all():
                rows = np.searchsorted(moment.ids, ids)
                return moment.xy[rows], moment.sure[rows]
        return None

    def carried(self, xy: Points, source: int, target: int) -> tuple[Points, Bools] | None:
        """Where flow takes points xy [P, 2] from one remembered frame to another, later or earlier one [P, 2].

        Also which of them it did not lose on the way [P]. None where a frame is not remembered.
        """
        first, last = sorted((source, target))
        moments = [moment for moment in self._past if first <= moment.flow.id <= last]
        if not moments or (moments[0].flow.id, moments[-1].flow.id) != (first, last):
            return None
        found, sure = self._through(_in_steps(moments if source == first else moments[::-1]), xy)
        return found.clip(0, moments[-1 if source == first else 0].flow.size).astype(np.float32), sure

    def _flow(self, frame_id: int | None) -> FlowFrame | None:
        return next((moment.flow for moment in self._past if moment.flow.id == frame_id), None)

    def correct(self, answer: Tracks) -> None:
        """Applies the model's answer, which may be for a past frame."""
        self.model_frame_id = answer.frame_id
        rows = np.flatnonzero(np.isin(self._points["id"], answer.ids))
        points = self._points[rows]
        told = np.searchsorted(answer.ids, points["id"])
        model_xy, visible = answer.xy[told], answer.visible[told]
        points["occlusion"], points["uncertainty"] = answer.occlusion[told], answer.uncertainty[told]
        moments = [moment for moment in self._past if moment.flow.id >= answer.frame_id]
        if moments and moments[0].flow.id == answer.frame_id:
            difference, agrees = self._compare(moments, points, model_xy)
            right = 1 - points["uncertainty"]
            # Two sensors that agree are worth more than either: the model alone is too shy.
            visible = visible | (agrees & ((1 - points["occlusion"]) * right > AGREED))
            pulled = agrees & visible
            free = pulled & ~points["anchored"]  # an anchored position is more precise than the model's
            points["xy"][free] += (self._gain * right[free, None]).astype(np.float32) * difference[free]
            others = ~pulled
            chain = _in_steps(moments)
            points["xy"][others], points["sure"][others] = self._through(chain, model_xy[others], visible[others])
        else:  # too old: points that flow has not followed since are carried from the oldest frame that is remembered
            others = ~(points["sure"] & points["visible"])
            chain = _in_steps(list(self._past))
            points["xy"][others], points["sure"][others] = self._through(chain, model_xy[others], visible[others])
        points["visible"] = visible
        self._points[rows] = points
        if self._past:
            self._remember(self._past.pop().flow)

    def now(self, like: Tracks) -> Tracks:
        """The points on the newest frame, with everything else as in `like`."""
        points = self._points.copy()
        return replace(
            like,
            ids=np.ascontiguousarray(points["id"]),
            xy=np.ascontiguousarray(points["xy"]),
            visible=points["visible"] & points["sure"],
            occlusion=np.ascontiguousarray(points["occlusion"]),
            uncertainty=np.where(
                points["sure"], points["uncertainty"], np.maximum(points["uncertainty"], np.float32(0.5))
            ),
            model_frame_id=self.model_frame_id,
        )

    @property
    def ids(self) -> Ids:
        return np.ascontiguousarray(self._points["id"])

    def brought(self, xy: Points, frame_id: int | None) -> Points:
        """Where points xy [P, 2] of a remembered frame, None the newest, are on the newest frame."""
        return self._brought(xy, frame_id)[0]

    def _brought(self, xy: Points, frame_id: int | None) -> tuple[Points, Bools]:
        moments = [moment for moment in self._past if frame_id is not None and moment.flow.id >= frame_id]
        return self._through(moments, xy.astype(np.float32))

    def _anchor(self, flow: FlowFrame) -> None:
        """Corrects what flow has drifted for points that still look as they did where they were named.

        Looks are not renewed: a new one would start from a position that is less exact than the first.
        """
        points = self._points
        tracked = points["visible"] & points["sure"]
        points["anchored"] = False
        for id, look in self._anchors.items():
            rows = np.flatnonzero(tracked & (points["anchor"] == id))
            if len(rows):
                xy, found = anchored(look, flow, points["anchor_xy"][rows], points["xy"][rows])
                points["xy"][rows], points["anchored"][rows] = xy, found
        kept = [id for id in self._anchors if (points["anchor"] == id).any()][-MOST_ANCHORS:]
        points["anchor"][~np.isin(points["anchor"], kept)] = -1
        self._anchors = {id: self._anchors[id] for id in kept}

    def _remember(self, flow: FlowFrame) -> None:
        points = self._points.copy()
        self._past.append(Moment(flow, points["id"], points["xy"], points["sure"] & points["visible"]))

    def _compare(self, moments: list[Moment], points: Table, model_xy: Points) -> tuple[Points, Bools]:
        """The model's positions minus flow's on the answer's frame [P, 2], and whether both follow the same point [P].

        They do if the difference is within the gate and flow has not lost the point between that frame and now.
        """
        ids, then = points["id"], moments[0]
        known = np.isin(ids, then.ids)
        places = np.searchsorted(then.ids, ids[known])
        difference = np.full((len(points), 2), np.inf, np.float32)
        difference[known] = model_xy[known] - then.xy[places]
        gate = self._gate * max(then.flow.size)
        agrees = known & points["sure"] & (np.linalg.norm(difference, axis=1) < gate)
        for moment in moments:
            there = np.isin(ids, moment.ids)
            agrees &= there
            agrees[there] &= moment.sure[np.searchsorted(moment.ids, ids[there])]
        return difference, agrees

    def _through(self, moments: list[Moment], xy: Points, visible: Bools | None = None) -> tuple[Points, Bools]:
        """Carries points from the first moment's frame to the last one's; also returns which of them flow never lost.

        Hidden points keep their positions and count as not lost: these positions are the model's.
        """
        carried = xy.astype(np.float32, copy=True)
        sure = np.ones(len(xy), np.bool_)
        moving = np.ones(len(xy), np.bool_) if visible is None else visible.copy()
        for source, target in pairwise(moments):
            active = moving & sure
            carried[active], passed = carry(source.flow, target.flow, carried[active])
            sure[active] = passed
        return carried, sure


def _in_steps(moments: list[Moment]) -> list[Moment]:
    """Some of the moments, with the first and the last: a very late answer is carried in longer steps."""
    every = max(1, -(-len(moments) // REMEMBERED))
    return [*moments[:-1:every], *moments[-1:]]
