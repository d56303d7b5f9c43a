"""Fuses two estimates of the points: flow is fast and precise but drifts; the model is late and coarse but does not.

Flow moves every visible point from frame to frame. The model's answer for a past frame is compared with where flow had
each point on *that* frame. If both agree within a gate, flow's position is pulled a little towards the model's; if not,
flow carries the model's position from its frame to now. Only the model decides what is visible. A point that flow loses
keeps its position and is reported as not visible until the model answers.
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
GAIN = 0.2  # share of the difference that an answer within the gate corrects
REMEMBERED = 12  # frames kept, through which late answers can be carried


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """The points on one frame, and which of their positions can be relied on."""

    flow: FlowFrame
    ids: Ids  # [N] ascending
    xy: Points  # [N, 2]
    sure: Bools  # [N] False: flow lost the point, and the model has not answered since


class Fusion:
    """The points of one stream. `carry` moves them to a new frame, `correct` applies an answer of the model."""

    def __init__(self, gate: float = GATE, gain: float = GAIN, remembered: int = REMEMBERED) -> None:
        self._gate = gate
        self._gain = gain
        self._past: deque[Moment] = deque(maxlen=remembered)
        self._ids: Ids = np.empty(0, np.int32)
        self._xy: Points = np.empty((0, 2), np.float32)
        self._sure: Bools = np.empty(0, np.bool_)  # [N]
        self._visible: Bools = np.empty(0, np.bool_)  # [N] as of the model's last answer
        self._occlusion = np.empty(0, np.float32)
        self._uncertainty = np.empty(0, np.float32)
        self.model_frame_id = -1  # of the newest answer

    def carry(self, frame: Frame) -> None:
        """Moves the points to `frame`, the next one."""
        flow = FlowFrame.of(frame)
        if self._past:
            follows = self._visible & self._sure  # flow would carry a hidden point along with its occluder
            xy, passed = carry(self._past[-1].flow, flow, self._xy[follows])
            self._xy[follows] = xy
            self._sure[follows] = passed
        self._remember(flow)

    def add(self, ids: Ids, xy: Points, frame_id: int | None) -> None:
        """Adds points on the newest frame (None) or on a remembered one, from which flow carries them to the newest."""
        xy, sure = self._brought(xy, frame_id)
        count = len(ids)
        self._ids = np.concatenate([self._ids, ids])
        self._xy = np.concatenate([self._xy, xy])
        self._sure = np.concatenate([self._sure, sure])
        self._visible = np.concatenate([self._visible, np.ones(count, np.bool_)])
        self._occlusion = np.concatenate([self._occlusion, np.zeros(count, np.float32)])
        self._uncertainty = np.concatenate([self._uncertainty, np.zeros(count, np.float32)])
        order = np.argsort(self._ids)  # restored points come after newer ones
        self._ids, self._xy, self._sure = self._ids[order], self._xy[order], self._sure[order]
        self._visible, self._occlusion = self._visible[order], self._occlusion[order]
        self._uncertainty = self._uncertainty[order]
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
        """The positions of points on a remembered frame [P, 2]; None unless all are known."""
        for moment in self._past:
            if moment.flow.id == frame_id and np.isin(ids, moment.ids).all():
                return moment.xy[np.searchsorted(moment.ids, ids)]
        return None

    def correct(self, answer: Tracks) -> None:
        """Applies the model's answer, which may be for a past frame."""
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
            every = -(-len(moments) // REMEMBERED)  # a very late answer is carried in longer steps
            chain = [*moments[:-1:every], moments[-1]]
            self._xy[rows[others]], sure = self._through(chain, model_xy[others], answer.visible[told[others]])
            self._sure[rows[others]] = sure
        else:  # too old to be carried: only lost points take the model's position
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

    def brought(self, xy: Points, frame_id: int | None) -> Points:
        """Where points xy [P, 2] of a remembered frame, None the newest, are on the newest frame."""
        return self._brought(xy, frame_id)[0]

    def _brought(self, xy: Points, frame_id: int | None) -> tuple[Points, Bools]:
        moments = [moment for moment in self._past if frame_id is not None and moment.flow.id >= frame_id]
        return self._through(moments, xy.astype(np.float32))

    def _remember(self, flow: FlowFrame) -> None:
        self._past.append(Moment(flow, self._ids.copy(), self._xy.copy(), self._sure & self._visible))

    def _compare(self, moments: list[Moment], rows: NDArray[np.intp], model_xy: Points) -> tuple[Points, Bools]:
        """The model's positions minus flow's on the answer's frame [P, 2], and whether both follow the same point [P].

        They do if the difference is within the gate and flow has not lost the point between that frame and now.
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
