"""Every living point has a piece of the frame it was named on, late ones too while that frame is at hand."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from online_tapir.drawing import query_patches
from online_tapir.drawing.query_patches import SIDE, QueryPatches
from online_tapir.points.replenish import NOTHING
from online_tapir.records import Frame, Queries, Tracks
from online_tapir.testing import make_tracks

HEIGHT, WIDTH = 33, 49
FRAME_BYTES = HEIGHT * WIDTH * 3


def frame(number: int) -> Frame:
    return Frame(number, number, number, np.full((HEIGHT, WIDTH, 3), number, np.uint8))


def tracks(number: int, *ids: int) -> Tracks:
    return make_tracks(
        number, np.ones((len(ids), 2)), ids=ids, occlusion=1, uncertainty=1, size=(WIDTH, HEIGHT), captured_ns=number
    )


def named(number: int, *ids: int) -> Queries:
    return Queries(np.array(ids, np.int32), np.full((len(ids), 2), 12.5, np.float32), number)


def middle(patches: QueryPatches, id: int) -> int:
    patch = patches.get(id)
    assert patch is not None
    assert patch.crop is not None
    return int(patch.crop.picture[SIDE // 2, SIDE // 2, 0])


def test_a_point_has_what_was_there_on_the_frame_it_was_named_on() -> None:
    patches = QueryPatches()
    for number in range(7):
        patches.named([named(number, number), NOTHING])
        patches.follow(frame(number), tracks(number, *range(number + 1)))
    assert [middle(patches, id) for id in range(7)] == list(range(7))
    patch = patches.get(3)
    assert patch is not None
    assert patch.frame_id == 3
    assert_array_equal(patch.xy, [12.5, 12.5])


def test_a_point_that_names_a_past_frame_has_what_was_there_then() -> None:
    patches = QueryPatches()
    for number in range(7):
        patches.follow(frame(number), tracks(number))
    patches.named([named(2, 5)])
    patches.follow(frame(7), tracks(7, 5))
    assert middle(patches, 5) == 2


@pytest.mark.parametrize("room", [1, 3])
def test_of_a_frame_that_is_gone_nothing_is_invented(room: int) -> None:
    patches = QueryPatches(room * FRAME_BYTES)
    for number in range(7):
        patches.follow(frame(number), tracks(number))
    patches.named([named(7 - room, 0), named(8 - room, 1)])
    patches.follow(frame(7), tracks(7, 0, 1))
    patch = patches.get(0)
    assert patch is not None
    assert (patch.frame_id, patch.crop) == (7 - room, None)
    assert middle(patches, 1) == 8 - room


def test_a_frame_larger_than_the_room_is_there_for_the_points_it_brings() -> None:
    patches = QueryPatches(1)
    patches.named([named(0, 0)])
    patches.follow(frame(0), tracks(0, 0))
    assert middle(patches, 0) == 0


def test_a_piece_goes_with_its_point() -> None:
    patches = QueryPatches()
    patches.named([named(0, 1, 2, 3)])
    patches.follow(frame(0), tracks(0, 1, 2, 3))
    patches.follow(frame(1), tracks(1, 2))
    assert [id for id in range(4) if patches.get(id) is not None] == [2]


def test_pieces_are_bounded_and_the_point_is_known_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_patches, "MOST_PATCHES", 2)
    patches = QueryPatches()
    patches.named([named(0, 1, 2, 3)])
    patches.follow(frame(0), tracks(0, 1, 2, 3))
    crops = [patch.crop for id in (1, 2, 3) if (patch := patches.get(id)) is not None]
    assert [crop is None for crop in crops] == [False, False, True]
