"""Templates keep what points look like; a finder finds them in another video, and nothing that is not there."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.errors import ConfigError, QueryError, TemplateError
from online_tapir.flow.tracker import FlowTracker
from online_tapir.model.checkpoint import load_model
from online_tapir.model.tapir import Tapir
from online_tapir.records import Frame, Label, Tracks
from online_tapir.testing import make_tracks, tiny_model
from online_tapir.tracking import templates
from online_tapir.tracking.finder import AGAIN, LOOKS, Finder, likeness
from online_tapir.tracking.looks import Looks
from online_tapir.tracking.picture_templates import PLAIN, VIEWS, from_picture
from online_tapir.tracking.templates import MOST_TEMPLATES, MOST_VIEWS, Template, Templates, patches_of
from online_tapir.tracking.tracker import Tracker

SIZE = 192
XY = np.array([[60, 60], [130, 70], [70, 130]], np.float32)
LABELS = [Label("left", "cup"), Label("right", "cup", 0xFF8800), Label("low")]


def scene(seed: int, turn: float = 0.0) -> NDArray[np.uint8]:
    """A picture with structure at every scale, turned about its middle by degrees."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((SIZE, SIZE, 3))
    for cells in (4, 8, 16, 32, 64):
        picture += cv2.resize(rng.random((cells, cells, 3)), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    grey = np.clip((picture / picture.max()) * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.warpAffine(grey, turning(turn), (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT), np.uint8)


def turning(degrees: float) -> NDArray[np.float64]:
    return np.asarray(cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), degrees, 1.0))


@pytest.fixture(scope="module")
def small() -> Tapir:
    return load_model("small", device="cpu")


def saved(model: Tapir, labels: list[Label] = LABELS, seed: int = 0, turn: float = 0.0) -> Templates:
    tracker = Tracker(model, max_points=4, window=2)
    picture = scene(seed, turn)
    tracker.step(picture)
    matrix = turning(turn)
    xy = np.asarray(XY @ matrix[:, :2].T + matrix[:, 2], np.float32)[: len(labels)]
    return Templates.made(model, labels, tracker.looks(xy), patches_of(picture, xy))


def test_named_points_are_found_in_another_video_and_not_before_they_are_there(small: Tapir) -> None:
    found = saved(small)
    tracker, finder = Tracker(small, max_points=8, window=2), Finder(found.templates)
    finder.begin(tracker)
    for number in range(6):
        tracks = finder.sift(tracker.step(scene(7, number)), tracker)
        assert (len(tracks.ids), tracks.searching) == (0, ("left", "low", "right"))
    for number in range(AGAIN + LOOKS):  # a view that seemed to be on the other picture is not compared for a while
        tracks = finder.sift(tracker.step(scene(0, 5 + number)), tracker)
    assert tracks.searching == ()
    assert {label.name: label.group for label in tracks.labels.values()} == {"left": "cup", "right": "cup", "low": ""}
    matrix = turning(5 + number)
    for name, place in zip(("left", "right", "low"), XY @ matrix[:, :2].T + matrix[:, 2], strict=True):
        id = tracks.id_of(name)
        assert np.linalg.norm(tracks.xy[tracks.ids == id][0] - place) < 3
        assert tracks.visible[tracks.ids == id]


def test_the_search_goes_on_beside_flow(small: Tapir) -> None:
    finder = Finder(saved(small).templates)
    with closing(FlowTracker(Tracker(small, max_points=8, window=4), waits=True)) as tracker:
        finder.begin(tracker)
        added = tracker.add([[100, 100]])
        for number in range(4):
            tracker.submit(Frame(number, number * 33_000_000, 0, scene(0, 3 + number)))
            tracks = finder.sift(tracker.collect(), tracker)
        assert tracks.searching == ()
        assert len(tracks.ids) == 4
        assert added[0] in tracks.ids


def test_a_second_view_finds_what_looks_different(small: Tapir) -> None:
    """Half a turn away; every view but one is given up then."""
    both = saved(small, LABELS[:1]).with_views(saved(small, LABELS[:1], turn=180))
    tracker, finder = Tracker(small, max_points=8, window=2), Finder(both.templates)
    finder.begin(tracker)
    assert len(tracker.ids) == 2
    for number in range(4):
        tracks = finder.sift(tracker.step(scene(0, 180 + number)), tracker)
    assert [label.name for label in tracks.labels.values()] == ["left"]
    assert len(tracker.ids) == 1


def test_a_search_goes_on_after_a_restart_and_what_was_found_is_not_searched_again(
    small: Tapir, tmp_path: Path
) -> None:
    found = saved(small)
    tracker, finder = Tracker(small, max_points=8, window=2), Finder(found.templates)
    finder.begin(tracker)
    finder.sift(tracker.step(scene(7)), tracker)
    tracker.label(int(tracker.ids[0]), LABELS[0])
    tracker.save_state(tmp_path / "points")
    again, finder = Tracker(small, max_points=8, window=2), Finder(found.templates)
    again.load_state(tmp_path / "points")
    finder.begin(again)
    assert len(again.ids) == 3
    for number in range(4):
        tracks = finder.sift(again.step(scene(0, number)), again)
    assert sorted(label.name for label in tracks.labels.values()) == ["left", "low", "right"]


class Told:
    """A tracker that answers what a test says."""

    def __init__(self, alike: bool = True) -> None:
        self.labels: dict[int, Label] = {}
        self.answer: Tracks | None = None
        self.removed: list[int] = []
        self.compared = 0
        self.max_points = 64
        self.unlabelled = 0  # points beside those with a label
        self.model = tiny_model()
        self._alike = alike

    @property
    def ids(self) -> NDArray[np.int32]:
        return np.arange(len(self.labels) + self.unlabelled, dtype=np.int32)

    def search(self, looks: Looks, labels: list[Label]) -> NDArray[np.int32]:
        assert len(self.ids) + len(labels) <= self.max_points
        ids = np.arange(len(self.labels), len(self.labels) + len(labels), dtype=np.int32)
        self.labels |= dict(zip(ids.tolist(), labels, strict=True))
        return ids

    def looks(self, xy: NDArray[np.float32], frame_id: int) -> Looks:
        self.compared += 1
        return view(1 if self._alike else -1)

    def label(self, id: int, label: Label) -> None:
        self.labels[id] = label

    def remove(self, ids: NDArray[np.int32]) -> None:
        self.removed += ids.tolist()
        self.labels = {id: label for id, label in self.labels.items() if id not in self.removed}

    def answered(self, frame_id: int, xy: list[list[float]], visible: list[bool]) -> Tracks:
        self.answer = make_tracks(frame_id, xy, visible=visible, size=(200, 100), labels=dict(self.labels))
        return self.answer


def view(sign: int = 1, count: int = 1) -> Looks:
    return Looks(np.ones((count, 2), np.float32), sign * np.ones((1, count, 4), np.float32))


def template(count: int = 1) -> Template:
    return Template(LABELS[0], view(count=count), np.zeros((count, 48, 48, 3), np.uint8))


def test_only_a_points_own_features_are_compared() -> None:
    """Its neighbours are others when it has turned."""
    match = np.ones((1, 2), np.float32)
    one = Looks(match, np.array([[[1, 0, 5, 5]]], np.float32))
    turned = Looks(match, np.array([[[1, 0, -5, -5]]], np.float32))
    assert likeness(one, turned, 2) == pytest.approx(1)
    assert likeness(one, turned, 4) < 0


def test_one_look_is_not_enough_and_the_second_must_be_near() -> None:
    tracker, finder = Told(), Finder([template()])
    finder.begin(tracker)
    places = [[50, 50], [150, 50], [152, 50], [154, 50]]
    found = [len(finder.sift(tracker.answered(n, [xy], [True]), tracker).ids) for n, xy in enumerate(places)]
    assert found == [0, 0, 1, 1]
    assert tracker.labels == {0: LABELS[0]}


def test_what_is_searched_for_without_its_template_is_given_up() -> None:
    told = Told()
    told.labels = {0: Label("tip"), 1: Label(sought="no longer given"), 2: Label(sought=LABELS[0].name)}
    Finder([template()]).begin(told)
    assert told.removed == [1], "a run that goes on without --templates cannot find it"
    assert set(told.labels) == {0, 2}


def test_a_frame_that_has_left_the_window_is_not_compared() -> None:
    class Gone(Told):
        def looks(self, xy: NDArray[np.float32], frame_id: int) -> Looks:
            raise QueryError("it has left the window of 1")

    told, finder = Gone(), Finder([template()])
    finder.begin(told)
    for frame_id in range(4):
        tracks = finder.sift(told.answered(frame_id, [[50, 50]], [True]), told)
    assert tracks.searching == (LABELS[0].name,)


def test_the_same_answer_carried_to_another_frame_is_one_look() -> None:
    tracker, finder = Told(), Finder([template()])
    finder.begin(tracker)
    answer = tracker.answered(0, [[50, 50]], [True])
    for number in range(5):
        assert not len(finder.sift(replace(answer, frame_id=number, model_frame_id=0), tracker).ids)


def test_views_that_disagree_find_nothing() -> None:
    tracker, finder = Told(), Finder([template(2)])
    finder.begin(tracker)
    for number in range(4):
        assert not len(finder.sift(tracker.answered(number, [[50, 50], [150, 50]], [True, True]), tracker).ids)
    for number in range(4, 6):
        tracks = finder.sift(tracker.answered(number, [[50, 50], [150, 50]], [True, False]), tracker)
    assert tracks.ids.tolist() == [0]
    assert tracker.removed == [1]


def test_views_that_look_different_do_not_stop_one_that_is_alike() -> None:
    class Choosy(Told):
        def looks(self, xy: NDArray[np.float32], frame_id: int) -> Looks:
            return view(1 if xy[0, 0] < 100 else -1)

    tracker, finder = Choosy(), Finder([template(2)])
    finder.begin(tracker)
    for number in range(2):
        tracks = finder.sift(tracker.answered(number, [[50, 50], [150, 50]], [True, True]), tracker)
    assert tracks.ids.tolist() == [0]


def test_a_template_whose_name_is_given_meanwhile_is_searched_for_no_longer() -> None:
    tracker, finder = Told(), Finder([template(2)])
    finder.begin(tracker)
    tracker.labels[2] = Label("left")  # somebody clicked the point and named it
    places, seen = [[50, 50], [50, 51], [90, 20]], [True, True, True]
    for number in range(3):
        tracks = finder.sift(tracker.answered(number, places, seen), tracker)
    assert tracks.ids.tolist() == [2]
    assert tracks.searching == ()
    assert tracker.removed == [0, 1]
    assert tracker.labels[2] == Label("left")


def test_views_that_are_given_up_are_not_shown_on_a_frame_that_was_under_way() -> None:
    tracker, finder = Told(), Finder([template(2)])
    finder.begin(tracker)
    places = [[50, 50], [50, 51]]
    for number in range(2):
        tracks = finder.sift(tracker.answered(number, places, [True, True]), tracker)
    assert tracks.ids.tolist() == [0]
    under_way = finder.sift(tracker.answered(2, places, [True, True]), tracker)
    assert under_way.ids.tolist() == [0]


@pytest.mark.parametrize("unlabelled", [0, 3])
def test_where_there_is_not_room_for_all_views_the_first_are_searched_for(unlabelled: int) -> None:
    tracker = Told()
    tracker.unlabelled, tracker.max_points = unlabelled, 5 + unlabelled
    others = [replace(template(3), label=Label(name)) for name in ("right", "top")]
    Finder([template(3), *others]).begin(tracker)
    assert [label.sought for label in tracker.labels.values()] == ["left", "right", "top"]


def test_a_picture_gives_views_as_if_it_were_turned_and_scaled(small: Tapir) -> None:
    rgb, xy = scene(0), np.array([[60, 60], [2.5, 2.5]], np.float32)
    found = from_picture(small, rgb, xy, [Label("middle"), Label("corner")])
    views = {each.name: each.looks.points for each in found.templates}
    assert views["middle"] == len(VIEWS)
    assert 1 <= views["corner"] < len(VIEWS)  # where a turn takes it out of the picture there is no view
    plain = from_picture(small, rgb, xy, [Label("middle"), Label("corner")], PLAIN)
    for one, other in zip(found.templates, plain.templates, strict=True):
        np.testing.assert_array_equal(one.looks.refine[:, :1], other.looks.refine)


def test_what_looks_different_is_not_found_and_not_compared_on_every_answer() -> None:
    tracker, finder = Told(alike=False), Finder([template()])
    finder.begin(tracker)
    answers = 4 * (AGAIN + 2)
    for number in range(answers):
        assert finder.sift(tracker.answered(number, [[50, 50]], [True]), tracker).searching == ("left",)
    assert tracker.compared == 4


def test_a_file_gives_back_what_was_written(small: Tapir, tmp_path: Path) -> None:
    written = saved(small)
    templates.write(tmp_path / "cup.templates", written)
    read = templates.read(tmp_path / "cup.templates")
    read.check(small)
    assert (read.model, read.weights) == (written.model, written.weights)
    for one, other in zip(read.templates, written.templates, strict=True):
        assert one.label == other.label
        np.testing.assert_array_equal(one.looks.match, other.looks.match)
        np.testing.assert_array_equal(one.looks.refine, other.looks.refine)
        np.testing.assert_array_equal(one.patches, other.patches)


def test_views_are_added_up_to_a_number(small: Tapir) -> None:
    one = saved(small, LABELS[:2])
    more = one
    for seed in range(MOST_VIEWS + 3):
        more = more.with_views(saved(small, [LABELS[1], Label("new")], seed))
    assert {each.name: each.looks.points for each in more.templates} == {
        "left": 1, "right": MOST_VIEWS, "new": MOST_VIEWS,
    }  # fmt: skip
    np.testing.assert_array_equal(
        more.templates[1].patches[-1], saved(small, [LABELS[1]], seed).templates[0].patches[0]
    )


def test_another_model_is_refused_by_name(small: Tapir, make_model: Callable[..., Tapir], tmp_path: Path) -> None:
    found = saved(small)
    with pytest.raises(TemplateError, match="of model 'small', not of 'tiny'"):
        found.check(make_model())
    with pytest.raises(TemplateError, match="other weights of model 'small'"):
        replace(found, weights="0" * 64).check(small)
    with pytest.raises(QueryError, match="are not those of model tiny"):
        Tracker(make_model()).search(found.templates[0].looks)


def test_names_are_there_and_differ(small: Tapir) -> None:
    with pytest.raises(TemplateError, match="two templates are called 'left'"):
        saved(small, [LABELS[0], LABELS[0]])
    with pytest.raises(TemplateError, match="has no name"):
        saved(small, [Label()])


def test_more_than_a_file_holds_are_refused_when_they_are_made() -> None:
    each = [replace(template(), label=Label(f"point {number}")) for number in range(MOST_TEMPLATES + 1)]
    with pytest.raises(TemplateError, match="1025 templates are too many"):
        Templates("model", "weights", tuple(each))
    assert len(Templates("model", "weights", tuple(each[1:])).templates) == MOST_TEMPLATES


def test_a_plain_surrounding_is_told() -> None:
    flat = np.full((100, 100, 3), 90, np.uint8)
    flat[:, 60:] = 20
    patches = patches_of(flat, np.array([[20, 50], [60, 50], [99.5, 0.5]], np.float32))
    plain = [Template(LABELS[0], view(), patch[None]).plain for patch in patches]
    assert plain == [True, False, True]


@cache
def _content() -> bytes:
    return saved(load_model("small", device="cpu")).content()


@pytest.mark.parametrize(
    "broken",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole.replace(b'"match"', b'"mitch"'),
        lambda whole: whole.replace(b"[[", b"[{", 1),
        lambda whole: b"\xff" * 64,
    ],
)
def test_a_damaged_file_is_refused(broken: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "cup.templates"
    path.write_bytes(broken(_content()))
    with pytest.raises(TemplateError, match=r"damaged|holds no templates"):
        templates.read(path)


def test_files_that_are_none_of_ours_are_refused(tmp_path: Path, small: Tapir) -> None:
    with pytest.raises(TemplateError, match="there are no templates"):
        templates.read(tmp_path / "nothing")
    tracker = Tracker(small, max_points=4)
    tracker.step(scene(0))
    tracker.save_state(tmp_path / "state")
    with pytest.raises(TemplateError, match="holds no templates"):
        templates.read(tmp_path / "state")
    path = tmp_path / "newer"
    path.write_bytes(_content().replace(b'"version":"1"', b'"version":"2"'))
    with pytest.raises(TemplateError, match="format version 2"):
        templates.read(path)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cup.png"
    cv2.imwrite(str(path), cv2.cvtColor(scene(0), cv2.COLOR_RGB2BGR))
    return path


def test_the_command_line_saves_shows_and_adds(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from online_tapir.cli.templates import save, show

    (tmp_path / "points.csv").write_text("name,group,x,y\nleft,cup,60,60\nright,cup,130,70\n")
    file = tmp_path / "cup.templates"
    save(file, image=picture, points=str(tmp_path / "points.csv"), turned=False)
    assert capsys.readouterr().out == "left: 1 view\nright: 1 view\n"
    with pytest.raises(ConfigError, match="exists; give --add"):
        save(file, image=picture, points="60,60", group="cup")
    save(file, image=picture, points="60,60", group="cup", add=True, turned=False)
    show(file, picture=tmp_path / "sheet.png")
    assert "left (cup): 1 view\nright (cup): 1 view\ncup 1 (cup): 1 view\n" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (144, 48, 3)
    with pytest.raises(ConfigError, match="have no names"):
        save(tmp_path / "other.templates", image=picture, points="60,60")
    with pytest.raises(ConfigError, match="from a run or from a picture"):
        save(tmp_path / "other.templates")
