"""Which point is in which row of a track state, and which points still wait for a frame."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from online_tapir.errors import QueryError
from online_tapir.limits import LONGEST_NAME
from online_tapir.model.config import Size
from online_tapir.points.placement import check_inside
from online_tapir.records import Label
from online_tapir.tracking.looks import Looks

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """Points that wait for the next step: their ids [P], xy [P, 2] (image pixels), and the frame they are on."""

    ids: Ids
    xy: NDArray[np.float32]
    frame_id: int | None  # None: the next frame
    looks: Looks | None = None  # what they are searched for by; None: they look as they do at xy on that frame
    size: Size | None = None  # height, width of the picture that xy are pixels of; None: of the frame they are on

    def without(self, ids: Ids) -> "Query":
        keep = ~np.isin(self.ids, ids)
        return Query(
            self.ids[keep],
            self.xy[keep],
            self.frame_id,
            None if self.looks is None else self.looks.taken(keep),
            self.size,
        )

    def on(self, width: int, height: int) -> "Query":
        """The same points on a picture of this size, of which theirs is a larger or smaller copy."""
        if self.size is None:
            return self
        scale = width / self.size[1], height / self.size[0]
        xy = (self.xy * scale).clip(0, (width, height)).astype(np.float32)
        return replace(self, xy=xy, size=None)


def points_of(xy: ArrayLike) -> NDArray[np.float32]:
    """Points as they are added: float32 [P, 2]. QueryError for any other shape."""
    points = np.asarray(xy, np.float32)
    if points.ndim != 2 or points.shape[1] != 2:
        raise QueryError(f"points come as [P, 2], x before y; these are {list(points.shape)}")
    return points


def check_label(label: Label, taken: Collection[str]) -> None:
    """Raises QueryError for a name that another point has, and for text that cannot be shown."""
    for text in (label.name, label.group):
        if len(text) > LONGEST_NAME or not text.isprintable():
            raise QueryError(f"{text[:40]!r} cannot be a name: printable characters, at most {LONGEST_NAME}")
    if label.name and label.name in taken:
        raise QueryError(f"there is a point called {label.name!r} already; names are given once")
    if label.color is not None and not 0 <= label.color <= 0xFFFFFF:
        raise QueryError(f"{label.color} is no colour; give one from 0 to 0xFFFFFF")


def labels_of(names: Sequence[str], group: str, points: int) -> list[Label]:
    """The labels of new points: their names, or none, and a group they share."""
    return [Label(name, group) for name in names or [""] * points] if names or group else []


class Ledger:
    """The ids of the live rows, in the order of the rows, and the queries that wait; ids are never reused."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: Ids = np.empty(0, np.int32)  # the id in each live row
        self.queries: list[Query] = []
        self.next_id = 0
        self._labels: dict[int, Label] = {}  # by id; some may be of points that are gone

    @property
    def ids(self) -> Ids:
        """The points that are tracked or wait for the next step, ascending."""
        return np.sort(np.concatenate([self.rows, *(query.ids for query in self.queries)]))

    @property
    def queued(self) -> Query:
        """The points that wait for the next frame, as one query. No point may wait on a past frame.

        Without those that wait to be searched for: they have no position.
        """
        assert all(query.frame_id is None for query in self.queries), "track the late queries first"
        placed = [query for query in self.queries if query.looks is None]
        ids = np.concatenate([np.empty(0, np.int32), *(query.ids for query in placed)])
        xy = np.concatenate([np.empty((0, 2), np.float32), *(query.xy for query in placed)])
        return Query(ids, xy, None)

    @property
    def live(self) -> int:
        """How many rows are in use; they are the first ones."""
        return len(self.rows)

    def row_of(self, id: int) -> int:
        return int(np.flatnonzero(self.rows == id)[0])

    def add(
        self,
        xy: NDArray[np.float32],
        frame_id: int | None,
        labels: Sequence[Label] = (),
        looks: Looks | None = None,
    ) -> Ids:
        """Queues points xy [P, 2], with a label each if there are any; returns their ids [P].

        QueryError where there is no room, and for a name that is taken or cannot be one.
        """
        if labels and len(labels) != len(xy):
            raise QueryError(f"{len(labels)} names for {len(xy)} points; give one for each")
        taken = {label.name for label in self.labels.values()}
        for label in labels:
            check_label(label, taken)
            taken.add(label.name)
        ids = np.arange(self.next_id, self.next_id + len(xy), dtype=np.int32)
        self.adopt(ids, xy, frame_id, looks)
        self._labels |= {id: label for id, label in zip(ids.tolist(), labels, strict=False) if label != Label()}
        return ids

    @property
    def labels(self) -> dict[int, Label]:
        """The labels of the living points that have one, by id."""
        if self._labels:
            living = set(self.ids.tolist())
            self._labels = {id: label for id, label in self._labels.items() if id in living}
        return dict(self._labels)

    def label(self, id: int, label: Label) -> None:
        """Gives a point another label. QueryError where there is no such point, or the name is taken."""
        self.check(np.array([id], np.int64))
        check_label(label, {other.name for one, other in self.labels.items() if one != id})
        if label == Label():
            self._labels.pop(id, None)
        else:
            self._labels[id] = label

    def adopt(self, ids: Ids, xy: NDArray[np.float32], frame_id: int | None, looks: Looks | None = None) -> None:
        """Queues points under ids [P], ascending and above all earlier ids. Raises QueryError if there is no room."""
        there = len(self.ids)
        if there + len(xy) > self.capacity:
            raise QueryError(
                f"{len(xy)} points asked for beside the {there} there are, but there is room for {self.capacity}; "
                f"remove some or raise --max-points"
            )
        if len(ids):
            assert ids[0] >= self.next_id, "ids are never reused"
            self.next_id = int(ids[-1]) + 1
        self.queries.append(Query(ids, xy.copy(), frame_id, looks))

    def refuse_outside(self, width: int, height: int) -> None:
        """Raises QueryError if a query for the next frame, of this size, lies outside it, and drops that query.

        Points of a run before, whose pictures may have had another size, are where they were in proportion.
        """
        self.queries = [query.on(width, height) for query in self.queries]
        for query in self.queries:
            if query.frame_id is None and query.looks is None:
                try:
                    check_inside(query.xy, width, height)
                except QueryError:
                    self.queries.remove(query)
                    raise

    def check(self, ids: NDArray[np.integer[Any]]) -> None:
        """QueryError where one of these points does not exist."""
        unknown = np.setdiff1d(ids, self.ids)
        if len(unknown):
            raise QueryError(f"there is no point {unknown[0]}; it was removed before, or never added")

    def remove(self, ids: Ids) -> list[tuple[int, int]]:
        """Removes points; returns the moves (source, target) of rows that keep the live rows together, in order."""
        self.check(ids)
        self.queries = [query.without(ids) for query in self.queries]
        moves = []
        for row in sorted(np.flatnonzero(np.isin(self.rows, ids)).tolist(), reverse=True):
            last = self.live - 1
            if row != last:
                moves.append((last, row))
                self.rows[row] = self.rows[last]
            self.rows = self.rows[:last]
        return moves

    def clear(self) -> None:
        self.rows = self.rows[:0]
        self.queries.clear()

    def renew(self) -> None:
        """Forgets every point and id."""
        self.clear()
        self.next_id = 0
        self._labels.clear()

    def restore(self, rows: Ids, next_id: int, waiting: Query, labels: Mapping[int, Label]) -> None:
        """Takes over the points of another ledger."""
        self.rows, self.next_id, self._labels = rows.copy(), next_id, dict(labels)
        if len(waiting.ids):
            self.queries.append(waiting)

    def late(self) -> list[tuple[int, list[Query]]]:
        """Takes out the queries on past frames and returns them by frame, oldest first."""
        frame_ids = sorted({query.frame_id for query in self.queries if query.frame_id is not None})
        found = [(frame_id, [query for query in self.queries if query.frame_id == frame_id]) for frame_id in frame_ids]
        self.queries = [query for query in self.queries if query.frame_id is None]
        return found

    def waiting(self) -> list[Query]:
        """Takes out the queries for the next frame and returns them."""
        waiting, self.queries = self.queries, []
        return waiting

    def seat(self, queries: Sequence[Query]) -> None:
        """Gives points the rows after the live ones."""
        self.rows = np.concatenate([self.rows, *(query.ids for query in queries)])


class Labelled:
    """A tracker whose points, in a ledger, have labels."""

    _points: Ledger

    @property
    def labels(self) -> dict[int, Label]:
        """The names, groups and colours of the points that have any, by id."""
        return self._points.labels

    def label(self, id: int, label: Label) -> None:
        """Gives a point a name, a group and a colour, in place of those it had.

        Raises QueryError if there is no such point, or another one has that name.
        """
        self._points.label(id, label)
