"""Joins two sensors of the same points: flow is precise, fast and drifts; the model is coarse, late and does not drift.

Flow moves every visible point from frame to frame. When the model's answer for a past frame comes, it is compared with
where flow had each point on *that* frame. Where both agree within a gate, the position keeps flow's precision and is
pulled a little towards the model; where they do not, the model's position is carried by flow from its frame to now.
What is hidden or visible the model decides. A point that flow loses is held, and not visible, until the model answers.
"""

from collections import deque
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from online_tapir.flow.sparse import FlowFrame, Points, carry
from online_tapir.records import Frame, Tracks

Ids = NDArray[np.int32]
Bools = NDArray[np.bool_]

GATE = 2.0 / 256  # of the frame's longer side: about two pixels of the model's input
GAIN = 0.2  # of the difference that an answer inside the gate removes
REMEMBERED = 12  # frames whose pyramids are kept, that late answers can be carried through


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """Where points were on one frame, and which of them flow has carried without a break since it began."""

    flow: FlowFrame
    ids: Ids  # [N] ascending
    xy: Points  # [N, 2]
    sure: Bools  # [N] flow brought the point here, or the model did


class Fusion:
    """The points of one stream. `carry` moves them to a new frame, `correct` takes in an answer of the model."""

    def __init__(self, gate: float = GATE, gain: float = GAIN) -> None:
        self._gate = gate
        self._gain = gain
        self._past: deque[Moment] = deque(maxlen=REMEMBERED)
        self._ids: Ids = np.empty(0, np.int32)
        self._xy: Points = np.empty((0, 2), np.float32)
        self._sure: Bools = np.empty(0, np.bool_)  # [N]
        self._visible: Bools = np.empty(0, np.bool_)  # [N] as the model last said
        self._occlusion = np.empty(0, np.float32)
        self._uncertainty = np.empty(0, np.float32)
        self.model_frame_id = -1  # that the newest answer is of

    def carry(self, frame: Frame) -> None:
        """Moves the points to `frame`, the next one."""
        flow = FlowFrame.of(frame)
        if self._past:
            follows = self._visible & self._sure  # a hidden point would be carried along with what hides it
            xy, passed = carry(self._past[-1].flow, flow, self._xy[follows])
            self._xy[follows] = xy
            self._sure[follows] = passed
        self._remember(flow)

    def add(self, ids: Ids, xy: Points, frame_id: int | None) -> None:
        """New points, on the newest frame that was carried to, or on a remembered one, from where flow carries them."""
        moments = [moment for moment in self._past if frame_id is not None and moment.flow.id >= frame_id]
        xy, sure = self._through(moments, xy.astype(np.float32))
        count = len(ids)
        self._ids = np.concatenate([self._ids, ids])
        self._xy = np.concatenate([self._xy, xy])
        self._sure = np.concatenate([self._sure, sure])
        self._visible = np.concatenate([self._visible, np.ones(count, np.bool_)])
        self._occlusion = np.concatenate([self._occlusion, np.zeros(count, np.float32)])
        self._uncertainty = np.concatenate([self._uncertainty, np.zeros(count, np.float32)])
        if self._past:
            self._remember(self._past.pop().flow)

    def keep(self, ids: Ids) -> None:
        """Forgets all points but these."""
        kept = np.isin(self._ids, ids)
        if kept.all():
            return
        self._ids, self._xy, self._sure = self._ids[kept], self._xy[kept], self._sure[kept]
        self._visible, self._occlusion = self._visible[kept], self._occlusion[kept]
        self._uncertainty = self._uncertainty[kept]

    def where(self, ids: Ids, frame_id: int) -> Points | None:
        """Where points were on a remembered frame [P, 2]; None where that is not known of all of them."""
        for moment in self._past:
            if moment.flow.id == frame_id and np.isin(ids, moment.ids).all():
                return moment.xy[np.searchsorted(moment.ids, ids)]
        return None

    def correct(self, answer: Tracks) -> None:
        """Takes in the model's answer for a frame that may have passed."""
        self.model_frame_id = answer.frame_id
        rows = np.flatnonzero(np.isin(self._ids, answer.ids))
        told = np.searchsorted(answer.ids, self._ids[rows])
        moments = [moment for moment in self._past if moment.flow.id >= answer.frame_id]
        model_xy = answer.xy[told]
        if moments and moments[0].flow.id == answer.frame_id:
            difference, agrees = self._compare(moments, rows, model_xy)
            pulled = agrees & answer.visible[told]
            self._xy[rows[pulled]] += np.float32(self._gain) * difference[pulled]
            others = ~pulled
            self._xy[rows[others]], sure = self._through(moments, model_xy[others], answer.visible[told[others]])
            self._sure[rows[others]] = sure
        else:  # too old to be carried: better where it was than nowhere
            lost = ~self._sure[rows]
            self._xy[rows[lost]] = model_xy[lost]
        self._visible[rows] = answer.visible[told]
        self._occlusion[rows] = answer.occlusion[told]
        self._uncertainty[rows] = answer.uncertainty[told]
        if self._past:
            self._remember(self._past.pop().flow)

    def now(self, like: Tracks) -> Tracks:
        """The points on the newest frame, with everything else as in `like`."""
        return replace(
            like,
            ids=self._ids.copy(),
            xy=self._xy.copy(),
            visible=self._visible & self._sure,
            occlusion=self._occlusion.copy(),
            uncertainty=np.where(self._sure, self._uncertainty, np.maximum(self._uncertainty, np.float32(0.5))),
            model_frame_id=self.model_frame_id,
        )

    @property
    def ids(self) -> Ids:
        return self._ids

    def _remember(self, flow: FlowFrame) -> None:
        self._past.append(Moment(flow, self._ids.copy(), self._xy.copy(), self._sure.copy()))

    def _compare(self, moments: list[Moment], rows: NDArray[np.intp], model_xy: Points) -> tuple[Points, Bools]:
        """The model's positions minus flow's on the answer's frame [P, 2], and whether both agree to be one track [P].

        They do where flow has carried the point without a break from that frame to now, and the difference is small.
        """
        ids, then = self._ids[rows], moments[0]
        known = np.isin(ids, then.ids)
        places = np.searchsorted(then.ids, ids[known])
        difference = np.full((len(rows), 2), np.inf, np.float32)
        difference[known] = model_xy[known] - then.xy[places]
        gate = self._gate * max(then.flow.size)
        agrees = known & self._sure[rows] & (np.linalg.norm(difference, axis=1) < gate)
        for moment in moments:
            there = np.isin(ids, moment.ids)
            agrees &= there
            agrees[there] &= moment.sure[np.searchsorted(moment.ids, ids[there])]
        return difference, agrees

    def _through(self, moments: list[Moment], xy: Points, visible: Bools | None = None) -> tuple[Points, Bools]:
        """Points of the first moment's frame carried to the last one's, and which of them flow never lost.

        Points that are not visible stay where they are, and are sure: the model said so.
        """
        carried = xy.astype(np.float32, copy=True)
        sure = np.ones(len(xy), np.bool_)
        moving = np.ones(len(xy), np.bool_) if visible is None else visible.copy()
        for source, target in pairwise(moments):
            active = moving & sure
            carried[active], passed = carry(source.flow, target.flow, carried[active])
            sure[active] = passed
        return carried, sure
