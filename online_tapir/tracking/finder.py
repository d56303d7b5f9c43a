"""Searches a stream for templates: each view is a hidden point until the model is sure of it and it looks the same.

A template is found when one of its views is visible on two answers of the model in a row, near where it was, and the
features there are those of the view; views of it that agree so must be in one place. The model alone takes four in ten
of the points that are not in a picture for something in it; with this comparison it took none (`python -m
bench.templates`). From then on the point is like any other, under the template's name, and its other views are given
up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from online_tapir.errors import QueryError
from online_tapir.records import Label, Tracks
from online_tapir.tracking.looks import Looks
from online_tapir.tracking.templates import Template

if TYPE_CHECKING:  # torch takes two seconds to import, and an exported model needs none
    from online_tapir.model.tapir import Tapir

SURE = 0.6  # least certainty of a view that is found: probability that it is visible and its position right
ALIKE = 0.78  # least cosine between the features of a view and those where it is found
NEAR = 0.06  # of the picture's longer side: how far a view may move between two answers of the model
TOGETHER = 0.02  # how far two views of one point may be apart
LOOKS = 2  # answers in a row
AGAIN = 6  # answers until a view that looked different is compared again


class Searching(Protocol):
    """The tracker of the stream."""

    @property
    def model(self) -> "Tapir": ...

    @property
    def max_points(self) -> int: ...

    @property
    def ids(self) -> NDArray[np.int32]: ...

    @property
    def labels(self) -> dict[int, Label]: ...

    @property
    def answer(self) -> Tracks | None: ...

    def looks(self, xy: NDArray[np.float32], frame_id: int) -> Looks: ...

    def search(self, looks: Looks, labels: Sequence[Label]) -> NDArray[np.int32]: ...

    def label(self, id: int, label: Label) -> None: ...

    def remove(self, ids: ArrayLike) -> None: ...


@dataclass(slots=True)
class _View:
    """A view that is searched for: where it was visible, and on how many answers in a row."""

    looks: Looks  # one
    xy: NDArray[np.float32] | None = None  # on the last answer
    seen: int = 0  # negative: it looked different, and is not compared for so many answers
    certainty: float = 0.0


class Finder:
    """Finds the templates of one stream. Its points are the tracker's that have a label with `sought`."""

    def __init__(self, templates: Iterable[Template] = ()) -> None:
        self._templates = {template.name: template for template in templates}
        self._views: dict[int, _View] = {}
        self._answered = -1  # the frame of the model's last answer that was looked at
        self._given_up: set[int] = set()  # views that are no points any more; a frame under way may still have them

    def begin(self, tracker: Searching) -> None:
        """Asks for all templates but those whose points live already, as after a restart.

        Points that were searched for by a template which is no longer given are removed.
        Where there is not room for all views, each template has its first ones.
        """
        labels = tracker.labels
        left = [id for id, label in labels.items() if label.sought and label.sought not in self._templates]
        if left:
            tracker.remove(np.array(left, np.int32))
            labels = {id: label for id, label in labels.items() if id not in left}
        known = {label.name for label in labels.values()} | {label.sought for label in labels.values()}
        for id, label in labels.items():  # searched for before the restart
            template = self._templates.get(label.sought)
            if template is not None:
                row = sum(other.sought == label.sought for one, other in labels.items() if one < id)
                self._views[id] = _View(template.looks.taken([row % template.looks.points]))
        missing = [template for name, template in self._templates.items() if name not in known]
        room = max(1, (tracker.max_points - len(tracker.ids)) // max(1, len(missing)))
        for template in missing:
            looks = template.looks.taken(slice(room))
            label = replace(template.label, name="", sought=template.name)
            ids = tracker.search(looks, [label] * looks.points)
            self._views |= {id: _View(looks.taken([row])) for row, id in enumerate(ids.tolist())}

    def sift(self, tracks: Tracks, tracker: Searching) -> Tracks:
        """The tracks without views that have not been found, and with the names that are searched for."""
        labels = dict(tracks.labels)
        sought = {id: label for id, label in labels.items() if label.sought}
        self._given_up &= set(tracks.ids.tolist())
        if not sought and not self._given_up:
            return tracks
        answer = tracker.answer
        if answer is not None and answer.frame_id > self._answered:
            self._answered = answer.frame_id
            self._look(answer, sought)
            named = {label.name for label in labels.values()}
            for name in sorted({label.sought for label in sought.values()}):
                views = [id for id, label in sought.items() if label.sought == name and id in self._views]
                # A point that somebody gave this name is the one: there is nothing to search for any more.
                found = None if name in named else self._found(views, answer, tracker)
                if found is None and name not in named:
                    continue
                if found is not None:
                    labels[found] = replace(sought[found], name=name, sought="")
                    tracker.label(found, labels[found])
                others = [id for id in views if id != found]
                if others:
                    tracker.remove(np.array(others, np.int32))
                self._given_up.update(others)
                for id in views:
                    del self._views[id]
                labels = {id: label for id, label in labels.items() if id not in others}
        searched = {id: label.sought for id, label in labels.items() if label.sought}
        hidden = {id for id in sought if id not in labels or id in searched} | self._given_up
        keep = ~np.isin(tracks.ids, list(hidden))
        return replace(
            tracks.taken(keep),
            labels={id: label for id, label in labels.items() if id not in searched},
            searching=tuple(sorted(set(searched.values()))),
        )

    def _look(self, answer: Tracks, sought: Iterable[int]) -> None:
        """Takes in the model's answer for every view."""
        rows = {id: row for row, id in enumerate(answer.ids.tolist())}
        reach = NEAR * max(answer.width, answer.height)
        for id in sought:
            row, view = rows.get(id), self._views.get(id)
            if row is None or view is None:
                continue
            view.certainty = float((1 - answer.occlusion[row]) * (1 - answer.uncertainty[row]))
            if view.seen < 0:
                view.seen += 1
            elif not (answer.visible[row] and view.certainty > SURE):
                view.seen, view.xy = 0, None
            else:
                near = view.xy is not None and float(np.linalg.norm(answer.xy[row] - view.xy)) < reach
                view.seen, view.xy = (view.seen + 1 if near else 1), answer.xy[row].copy()

    def _found(self, views: Sequence[int], answer: Tracks, tracker: Searching) -> int | None:
        """The view that is found, the most certain of several; None while there is none, or views disagree."""
        alike = [id for id in views if self._views[id].seen >= LOOKS and self._is_alike(id, answer, tracker)]
        if not alike:
            return None
        places = [self._views[id].xy for id in alike]
        spread = np.ptp(np.array(places, np.float32), axis=0).max()
        if spread > TOGETHER * max(answer.width, answer.height):
            return None
        return max(alike, key=lambda id: self._views[id].certainty)

    def _is_alike(self, id: int, answer: Tracks, tracker: Searching) -> bool:
        """Whether what is there looks like the view; one that does not is left out for some answers."""
        view = self._views[id]
        assert view.xy is not None
        inside = np.clip(view.xy, 0, (answer.width, answer.height)).astype(np.float32)
        channels = tracker.model.config.feature_channels
        try:
            there = tracker.looks(inside[None], answer.frame_id)
        except QueryError:  # the model has gone on, and its window is short
            return False
        if likeness(view.looks, there, channels) < ALIKE:
            view.seen, view.xy = -AGAIN, None
            return False
        return True


def likeness(one: Looks, other: Looks, channels: int) -> float:
    """The cosine of two points' own features, the first `channels`; the neighbours of one that turned are others.

    It is the mean over the levels that describe them, which are unit vectors each.
    """
    a, b = one.refine[0, 0, :channels], other.refine[0, 0, :channels]
    return float(a @ b / max(1e-12, float(np.linalg.norm(a) * np.linalg.norm(b))))
