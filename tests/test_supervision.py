"""Tracks as the library `supervision` takes them."""

import numpy as np
import pytest

from online_tapir.records import Label
from online_tapir.testing import make_tracks

sv = pytest.importorskip("supervision", reason="supervision is in the extra [dev]")

TRACKS = make_tracks(
    0, [[20.5, 12.5], [40, 30], [5, 6]], ids=[3, 5, 9], visible=[True, False, True], uncertainty=0.25, size=(64, 48),
    labels={5: Label("knee")},
)  # fmt: skip


def test_key_points_are_one_object_with_every_point() -> None:
    found = TRACKS.to_supervision()
    assert isinstance(found, sv.KeyPoints)
    assert found.xy.tolist() == [TRACKS.xy.tolist()]
    assert found.visible.tolist() == [[True, False, True]]
    assert found.keypoint_confidence.tolist() == [[0.75] * 3]
    assert found.data["point_name"].tolist() == [["3", "knee", "9"]]


def test_detections_are_boxes_around_the_visible_points_with_their_ids() -> None:
    found = TRACKS.to_supervision(side=4)
    assert found.tracker_id.tolist() == [3, 9]
    assert found.xyxy.tolist() == [[18.5, 10.5, 22.5, 14.5], [3, 4, 7, 8]]
    assert found.data["class_name"].tolist() == ["3", "9"]


def test_the_librarys_own_annotators_take_them() -> None:
    blank = np.zeros((48, 64, 3), np.uint8)
    drawn = sv.VertexAnnotator(radius=2).annotate(blank.copy(), TRACKS.to_supervision())
    assert drawn[12, 20].any()
    trace = sv.TraceAnnotator()
    for _ in range(2):
        drawn = trace.annotate(blank.copy(), TRACKS.to_supervision(side=4))
    zone = sv.PolygonZone(np.array([[0, 0], [30, 0], [30, 20], [0, 20]]))
    assert zone.trigger(TRACKS.to_supervision(side=4)).tolist() == [True, True]


def test_no_points_are_no_detections() -> None:
    assert len(make_tracks(0, []).to_supervision(side=4)) == 0
