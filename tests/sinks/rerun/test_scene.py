"""Pictures are as many and as large as the look says, points stay where they are on them, the layout follows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rerun as rr
import rerun.blueprint as rrb
from numpy.testing import assert_allclose

from online_tapir.drawing.look import COLOR_MODES, ColorMode, Look
from online_tapir.records import Frame
from online_tapir.sinks.rerun.blueprint import CURVES, Layout, blueprint
from online_tapir.sinks.rerun.scene import Scene
from online_tapir.sinks.rerun.viewer import Moment
from online_tapir.testing import make_tracks
from tests.sinks.rerun.test_inspector import Log, inspection, values

S = 1_000_000_000


class Recording(Log):
    """As `Scene` makes one, with the blueprints that are sent."""

    def __init__(self, *_: object) -> None:
        super().__init__()
        self.blueprints: list[object] = []

    def set_time(self, *_: object, **__: object) -> None: ...
    def flush(self, **_: object) -> None: ...
    def send_blueprint(self, sent: object) -> None:
        self.blueprints.append(sent)

    def of(self, entity: str) -> list[Any]:
        return [what[0] for path, what, static in self.entries if path == entity and not static]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a scene of a look, and gives it with its recording."""

    def make(look: Look = Look()) -> tuple[Scene, Recording]:  # noqa: B008  frozen
        monkeypatch.setattr(rr, "RecordingStream", Recording)
        scene = Scene(look=look, flush_every=1, stall_seconds=1)
        return scene, scene._recording  # type: ignore[return-value]

    return make


def moment(number: int, fps: int = 30, width: int = 49, height: int = 33, **changes: Any) -> Moment:
    time_ns = number * S // fps
    rgb = np.full((height, width, 3), 90, np.uint8)
    xy = [(10 + number, 5), (20, 30)]
    tracks = make_tracks(number, xy, occlusion=0.5, uncertainty=0.5, size=(width, height), captured_ns=time_ns)
    return Moment(Frame(number, time_ns, time_ns, rgb), replace(tracks, **changes), 12.5, fps if number > 4 else None)


def size(picture: Any) -> tuple[int, int]:
    """Of what was logged, decoded as a viewer would."""
    import cv2

    data = np.frombuffer(bytes(picture.blob.as_arrow_array().to_pylist()[0]), np.uint8)
    height, width = cv2.imdecode(data, cv2.IMREAD_COLOR).shape[:2]
    return width, height


@pytest.mark.parametrize(("rate", "pictures"), [(None, 60), (60.0, 60), (30.0, 30), (10.0, 10)])
def test_pictures_and_what_lies_over_them_are_thinned_out_and_curves_are_not(
    scene: Any, rate: float | None, pictures: int
) -> None:
    drawing, recording = scene(Look(fps=rate))
    for number in range(60):
        drawing.draw(moment(number, fps=60))
    for entity in ("camera/picture", "camera/points", "camera/trails", "camera/caption"):
        assert len(recording.of(entity)) == pytest.approx(pictures, abs=1)
    for entity in ("curves/latency", "curves/visible"):
        assert len(recording.of(entity)) == 60


@pytest.mark.parametrize("longest", [None, 16, 33, 48, 1280])
@pytest.mark.parametrize(("width", "height"), [(49, 33), (33, 49), (64, 64)])
def test_a_smaller_picture_covers_the_same_pixels(scene: Any, longest: int | None, width: int, height: int) -> None:
    drawing, recording = scene(Look(longest_side=longest))
    drawing.draw(moment(0, width=width, height=height))
    picture, transform = recording.all("camera/picture")
    shown = size(picture)
    assert max(shown) == min(longest or 10_000, max(width, height))
    ((across, down, _),) = values(transform.scale)
    assert_allclose((shown[0] * across, shown[1] * down), (width, height), rtol=1e-6)
    assert_allclose(values(recording.last("camera/points").positions), [(10, 5), (20, 30)])


@pytest.mark.parametrize("mode", COLOR_MODES)
def test_points_and_their_trails_have_one_colour(scene: Any, mode: ColorMode) -> None:
    drawing, recording = scene(Look(color=mode))
    for number in range(3):
        drawing.draw(moment(number))
    points, trails = recording.last("camera/points"), recording.last("camera/trails")
    assert values(points.colors).tolist() == values(trails.colors).tolist()


def test_the_caption_tells_rate_and_colours_and_the_rate_keeps_still_for_a_second(scene: Any) -> None:
    drawing, recording = scene(Look(color="speed"))
    for number in range(60):
        drawing.draw(replace(moment(number), fps=25.0 + number / 10))
    captions = [caption.labels.as_arrow_array().to_pylist()[0] for caption in recording.of("camera/caption")]
    assert len({caption.partition(" ")[0] for caption in captions}) <= 3
    assert captions[0].startswith("25.0 fps · 2 of 2 visible · ")
    assert "half the picture a second" in captions[0]


def test_another_layout_is_sent_only_when_there_is_another_thing_to_show(scene: Any) -> None:
    drawing, recording = scene()
    seen = inspection()
    stories = [{}, {}, {"inspection": seen}, {"inspection": seen}, {}, {"inspection": inspection(id=9)}]
    sent = []
    for number, changes in enumerate(stories):
        drawing.draw(moment(number, camera="desk", model="small", **changes))
        sent.append(len(recording.blueprints))
    drawing.draw(moment(9, width=64, height=48, camera="desk", model="small"))
    assert [*sent, len(recording.blueprints)] == [1, 1, 2, 2, 2, 2, 3]


def test_the_inspector_is_drawn_when_it_was_asked_for_and_cleared_after_it(scene: Any) -> None:
    drawing, recording = scene()
    drawing.draw(moment(0))
    assert not [path for path, _, _ in recording.entries if "inspector" in path]
    drawing.draw(moment(1, inspection=inspection()))
    drawing.draw(moment(2))
    drawing.draw(moment(3))
    assert len(recording.of("inspector/correlations")) == 1
    assert recording.cleared.count("inspector") == 2
    assert isinstance(recording.last("inspector/what"), rr.TextDocument)


@pytest.mark.parametrize("planes", [0, 1, 3])
def test_every_layout_names_the_camera_and_shows_every_curve(planes: int) -> None:
    sent = blueprint(Layout("desk · small", (49, 33), planes, (63, 7)))
    names = [view.name for view in views(sent.root_container)]
    assert names[0] == "desk · small"
    assert {title for title, _ in CURVES.values()} <= set(names)
    assert len(names) == (4 if planes == 0 else 12 + planes)


def test_several_cameras_have_a_tab_each_and_one_together_under_their_own_roots() -> None:
    sent = blueprint(*(Layout(name, (49, 33), planes=1, correlations=(63, 7), root=name) for name in ("desk", "door")))
    together, *each = sent.root_container.contents
    assert [view.name for view in views(together)] == ["desk", "door"]
    assert [tab.name for tab in each] == ["desk", "door"]
    for tab in each:
        origins = {str(view.origin).strip("/").split("/")[0] for view in views(tab)}
        assert origins == {tab.name}


def test_a_scene_that_others_replace_leaves_the_layout(scene: Any) -> None:
    drawn, _ = scene()
    drawn.draw(moment(0))
    assert list(drawn._layouts) == [""]
    for _ in range(2):
        drawn.retire()
        assert not drawn._layouts


def test_scenes_beside_each_other_share_a_recording_and_keep_their_entities_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rr, "RecordingStream", Recording)
    first = Scene(look=Look(), flush_every=1, stall_seconds=1)
    desk = Scene(look=Look(), flush_every=1, stall_seconds=1, root="desk", beside=first)
    door = Scene(look=Look(), flush_every=1, stall_seconds=1, root="door", beside=first)
    desk.draw(moment(0))
    door.draw(moment(3))
    recording: Any = first._recording
    assert len(recording.of("desk/camera/points")) == len(recording.of("door/camera/points")) == 1
    assert not recording.of("camera/points")
    assert len(views(recording.blueprints[-1].root_container)) == 2 + 2 * 4


def views(container: Any) -> list[Any]:
    if isinstance(container, rrb.Container):
        return [view for part in container.contents for view in views(part)]
    return [container]
