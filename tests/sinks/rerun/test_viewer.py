"""The viewer sink: modes, trails and colours by hand; and whatever the viewer does, `publish` goes on."""

import queue
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import rerun as rr
from numpy.testing import assert_allclose, assert_array_equal

from online_tapir.drawing import painting
from online_tapir.drawing.look import LIVE_FPS, LIVE_SIDE, WEB_FPS, WEB_SIDE, Look
from online_tapir.errors import ConfigError, PublishError
from online_tapir.mailbox import Closed
from online_tapir.records import Frame, Queries, Tracks
from online_tapir.sinks.rerun import mode as mode_module
from online_tapir.sinks.rerun import scene as rerun_scene
from online_tapir.sinks.rerun import viewer as viewer_module
from online_tapir.sinks.rerun.blueprint import CURVES, OVERLAYS, STAGE_CURVES
from online_tapir.sinks.rerun.images import photograph
from online_tapir.sinks.rerun.mode import RerunMode, default_mode, parse_rerun_mode
from online_tapir.sinks.rerun.viewer import Backlog, Moment, RerunViewer
from online_tapir.testing import make_tracks
from tests.sinks.rerun.test_inspector import inspection

MS = 1_000_000
FRAME = Frame(0, 0, 0, np.zeros((17, 33, 3), np.uint8))


def tracks(time_ms: int, points: dict[int, tuple[float, float] | None]) -> Tracks:
    """Tracks of these points by id; None is one that is hidden."""
    places = [xy or (5, 5) for xy in points.values()]
    visible = [xy is not None for xy in points.values()]
    return make_tracks(time_ms, places, ids=list(points), visible=visible, size=(33, 17), captured_ns=time_ms * MS)


def moment(time_ms: int = 0) -> Moment:
    return Moment(FRAME, tracks(time_ms, {}), 0.0, None)


@pytest.mark.parametrize("text", ["spawn", "serve", "off", "connect=rerun+http://host:1/proxy", "save=a=b.rrd"])
def test_a_mode_prints_as_it_was_written(text: str) -> None:
    assert str(parse_rerun_mode(text)) == text


@pytest.mark.parametrize("text", ["", "Spawn", "spawn=", "serve=1", "save", "save=", "connect", "connect=", "on", "=x"])
def test_an_unknown_mode_is_refused_with_those_that_exist(text: str) -> None:
    with pytest.raises(ConfigError, match=r"none of spawn, serve, connect=URL, save=FILE\.rrd, off"):
        parse_rerun_mode(text)


def test_an_address_without_a_scheme_is_refused_with_one_that_has_it() -> None:
    with pytest.raises(ConfigError, match=r"connect=rerun\+http://127.0.0.1:9876/proxy"):
        parse_rerun_mode("connect=127.0.0.1:9876")


@pytest.mark.parametrize(
    ("environ", "platform", "way"),
    [
        ({"DISPLAY": ":0"}, "linux", "spawn"),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", "spawn"),
        ({}, "darwin", "spawn"),
        ({}, "win32", "spawn"),
        ({}, "linux", "serve"),
        ({"DISPLAY": ""}, "linux", "serve"),
    ],
)
def test_the_default_is_a_window_where_there_is_a_display(environ: dict[str, str], platform: str, way: str) -> None:
    mode, reason = default_mode(environ, platform)
    assert mode == RerunMode(way)
    assert "--rerun off" in reason


def test_the_default_is_off_where_no_viewer_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode_module, "find_viewer", lambda: None)
    mode, reason = default_mode({"DISPLAY": ":0"}, "linux")
    assert mode == RerunMode("off")
    assert "not installed" in reason


def test_a_backlog_keeps_the_order_and_counts_what_does_not_fit() -> None:
    backlog = Backlog(2)
    offered = [moment(time_ms) for time_ms in range(3)]
    for item in offered:
        backlog.offer(item)
    backlog.close()
    assert [backlog.take(), backlog.take()] == offered[:2]
    assert backlog.dropped == 1
    with pytest.raises(Closed):
        backlog.take()
    with pytest.raises(Closed):
        backlog.offer(moment())


def test_an_empty_backlog_times_out() -> None:
    with pytest.raises(TimeoutError):
        Backlog(1).take(timeout=0.001)


def test_a_trail_holds_the_last_second() -> None:
    trails = painting.Trails()
    for time_ms in range(0, 3_000, 100):
        strips, owners = trails.follow(tracks(time_ms, {7: (time_ms, 1.0)}))
    assert_array_equal(owners, [0])
    assert_allclose(strips[0], [(time_ms, 1.0) for time_ms in range(1_900, 3_000, 100)])


def test_a_trail_breaks_where_its_point_was_hidden() -> None:
    trails = painting.Trails()
    for time_ms, x in enumerate([0, 1, None, 3, None, 5, 6, 7]):
        strips, owners = trails.follow(tracks(time_ms, {0: None if x is None else (x, 0)}))
    assert [strip[:, 0].tolist() for strip in strips] == [[0, 1], [5, 6, 7]]
    assert_array_equal(owners, [0, 0])


def test_a_trail_goes_with_its_point_and_others_keep_theirs() -> None:
    trails = painting.Trails()
    trails.follow(tracks(0, {1: (1, 0), 2: (2, 0), 5: (5, 0)}))
    trails.follow(tracks(1, {1: (1, 1), 2: (2, 1), 5: (5, 1)}))
    strips, owners = trails.follow(tracks(2, {2: (2, 2), 5: (5, 2), 6: (6, 2)}))
    assert_array_equal(owners, [0, 1])
    assert_allclose(strips, [[(2, 0), (2, 1), (2, 2)], [(5, 0), (5, 1), (5, 2)]])
    trails.follow(tracks(3, {}))
    assert trails.follow(tracks(4, {2: (0, 0)}))[0] == []


def test_trails_begin_anew_when_time_goes_back() -> None:
    trails = painting.Trails()
    trails.follow(tracks(500, {0: (0, 0)}))
    assert trails.follow(tracks(0, {0: (9, 9)}))[0] == []


def test_trails_are_bounded_at_any_frame_rate() -> None:
    trails = painting.Trails()
    for time_ms in range(500):
        strips, _ = trails.follow(tracks(time_ms, {0: (time_ms, 0)}))
    assert len(strips[0]) == painting.TRAIL_FRAMES


def record(path: Path, frames: int, **options: Any) -> list[str]:
    """Record some frames with points that come, hide and go, one inspected; returns what was reported."""
    said: list[str] = []
    viewer = RerunViewer(RerunMode("save", str(path)), report=said.append, **options)
    for time_ms in range(frames):
        points: dict[int, tuple[float, float] | None] = {time_ms // 4: (1, 2), 100: None if time_ms % 3 else (3, 4)}
        seen = inspection(id=100) if 3 < time_ms < 7 else None
        viewer.publish(FRAME, replace(tracks(time_ms, points if time_ms else {}), inspection=seen))
    viewer.close()
    viewer.close()
    return said


def test_a_recording_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.rrd"
    assert record(path, frames=9) == []
    assert path.read_bytes()[:4] in (b"RRF2", b"RRF1", b"RRF0")
    entities = ["camera/picture", "camera/points", "camera/trails", *CURVES, *OVERLAYS, *STAGE_CURVES]
    for entity in map(str.encode, entities):
        assert entity in path.read_bytes()


def test_a_file_that_cannot_be_made_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"cannot record to .*missing"):
        record(tmp_path / "missing" / "out.rrd", frames=0)


class Obstacle:
    """A scene that does in `draw` what the test says."""

    def __init__(self, draw: Callable[[Moment], None]) -> None:
        self.draw = draw
        self.abandoned = False

    def save(self, path: str) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None:
        self.abandoned = True


def test_a_live_viewer_gets_less_than_a_file_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Look] = []

    def scene(look: Look, **_: object) -> Obstacle:
        looks.append(look)
        return Obstacle(lambda moment: None)

    monkeypatch.setattr(rerun_scene, "Scene", scene)
    live, file = RerunMode("connect", "rerun+http://127.0.0.1:1/proxy"), RerunMode("save", "x.rrd")
    for mode in (live, file):
        RerunViewer(mode).close()
        RerunViewer(mode, fps=5, longest_side=320, color="speed").close()
    asked = Look("speed", 5, 320)
    assert looks == [Look(fps=LIVE_FPS, longest_side=LIVE_SIDE), asked, Look(fps=None, longest_side=None), asked]


@pytest.mark.parametrize("memory", ["", "2", "GB", "-1GB", "2 XB", "many", "1e3MB"])
def test_what_is_no_amount_of_memory_is_refused(memory: str) -> None:
    with pytest.raises(ConfigError, match="is not an amount of memory; write 2GB"):
        RerunViewer(RerunMode("save", "x.rrd"), memory=memory)


@pytest.mark.parametrize("way", ["window", "serving"])
def test_a_viewer_that_is_started_has_the_limit_that_was_asked_for(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(viewer_module, "find_viewer", lambda: Path("rerun"))
    monkeypatch.setattr(viewer_module, "listens", lambda *_: False)
    monkeypatch.setattr(viewer_module.subprocess, "Popen", lambda words, **_: started.append(words))
    getattr(viewer_module.Viewer, way)("123MB")
    (words,) = started
    limits = [words[index + 1] for index, word in enumerate(words) if word.endswith("memory-limit")]
    assert limits == ["123MB"] * (2 if way == "window" else 1)


def test_the_inspected_point_comes_with_its_query(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Moment] = []
    monkeypatch.setattr(rerun_scene, "Scene", lambda **_: Obstacle(drawn.append))
    viewer = RerunViewer(RerunMode("save", "x.rrd"))
    viewer.named(tracks(0, {}).camera, [Queries(np.array([3], np.int32), np.array([[5.5, 6.5]], np.float32), 0)])
    viewer.publish(FRAME, tracks(0, {3: (5, 5)}))
    viewer.publish(replace(FRAME, id=1), replace(tracks(1, {3: (5, 5)}), inspection=inspection(id=3)))
    viewer.close()
    assert drawn[0].query is None
    assert drawn[1].query is not None
    assert (drawn[1].query.frame_id, drawn[1].query.xy.tolist()) == (0, [5.5, 6.5])


def test_a_viewer_that_has_ended_holds_no_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = viewer_with(monkeypatch, Obstacle(lambda moment: None), [])
    frame = replace(FRAME, rgb=FRAME.rgb.copy())
    held = weakref.ref(frame.rgb)
    viewer.publish(frame, tracks(0, {}))
    del frame
    viewer.close()
    viewer.publish(FRAME, tracks(1, {}))
    assert held() is None


def viewer_with(monkeypatch: pytest.MonkeyPatch, scene: Obstacle, said: list[str]) -> RerunViewer:
    monkeypatch.setattr(rerun_scene, "Scene", lambda **_: scene)
    return RerunViewer(RerunMode("save", "x.rrd"), report=said.append, monotonic_ns=lambda: 0)


def test_a_viewer_that_fails_ends_with_one_line_and_publishing_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(moment: Moment) -> None:
        raise RuntimeError("No space left\non device")

    said: list[str] = []
    viewer = viewer_with(monkeypatch, Obstacle(fail), said)
    viewer.publish(FRAME, tracks(0, {}))
    viewer._thread.join()
    viewer.publish(FRAME, tracks(1, {}))
    viewer.close()
    assert said == ["Rerun (save=x.rrd) ended: No space left on device; tracking goes on without it"]


def test_a_viewer_that_hangs_holds_up_neither_publish_nor_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer_module, "FILE_CLOSE_SECONDS", 0.01)
    go_on = threading.Event()
    said: list[str] = []
    scene = Obstacle(lambda moment: bool(go_on.wait()) and None)
    viewer = viewer_with(monkeypatch, scene, said)
    for time_ms in range(viewer_module.BACKLOG_FRAMES + 20):
        viewer.publish(FRAME, tracks(time_ms, {}))
    viewer.close()
    assert 19 <= viewer.dropped <= 20
    assert scene.abandoned
    assert [line.split(" ")[0] for line in said] == ["Rerun", "x.rrd"]
    go_on.set()
    viewer._thread.join()


def test_a_served_viewer_is_on_loopback_alone_and_its_death_is_one_line() -> None:
    said: queue.Queue[str] = queue.Queue()
    viewer = RerunViewer(RerunMode("serve"), report=said.put)
    address = urlsplit(parse_qs(urlsplit(said.get(timeout=20).removeprefix("Rerun: open ")).query)["url"][0])
    assert address.port is not None
    assert viewer_module.listens("127.0.0.1", address.port)
    if sys.platform == "linux":  # where all of 127/8 is this machine
        assert not viewer_module.listens("127.0.0.2", address.port)
    assert viewer._server is not None
    viewer._server.stop()
    for time_ms in count():
        viewer.publish(FRAME, tracks(time_ms, {0: (1, 1)}))
        viewer._thread.join(0.01)
        if not viewer._thread.is_alive():
            break
    viewer.close()
    assert "tracking goes on without it" in said.get_nowait()
    assert said.empty()


def test_a_viewer_that_never_comes_is_given_up_on_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer_module, "CLOSE_SECONDS", 20.0)  # it needs a fraction of a second
    said: list[str] = []
    viewer = RerunViewer(parse_rerun_mode("connect=rerun+http://127.0.0.1:1/proxy"), report=said.append)
    viewer.publish(FRAME, tracks(0, {}))
    viewer.close()
    assert not viewer._thread.is_alive()
    assert all("no viewer listens" in line for line in said)


def test_latency_and_frame_rate_are_those_of_publishing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Moment] = []
    now_ns = iter(range(100 * MS, 2_000 * MS, 20 * MS))
    monkeypatch.setattr(rerun_scene, "Scene", lambda **_: Obstacle(drawn.append))
    viewer = RerunViewer(RerunMode("save", "x.rrd"), monotonic_ns=lambda: next(now_ns))
    for _ in range(8):
        viewer.publish(FRAME, tracks(90, {}))
    viewer.close()
    assert drawn[0].latency_ms == 10
    assert [moment.fps for moment in drawn] == [None] * 4 + [pytest.approx(50)] * 4


def test_a_browser_gets_raw_pictures_and_fewer_and_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Look] = []

    def scene(look: Look, **_: object) -> Obstacle:
        looks.append(look)
        return Obstacle(lambda moment: None)

    nobody = viewer_module.Viewer("rerun+http://127.0.0.1:1/proxy")
    monkeypatch.setattr(rerun_scene, "Scene", scene)
    monkeypatch.setattr(viewer_module.Viewer, "serving", lambda memory: nobody)
    RerunViewer(RerunMode("serve"), report=lambda text: None).close()
    RerunViewer(RerunMode("serve"), fps=5, longest_side=320, report=lambda text: None).close()
    assert looks == [
        Look(fps=WEB_FPS, longest_side=WEB_SIDE, compressed=False),
        Look(fps=5, longest_side=320, compressed=False),
    ]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 49), (64, 97)])
def test_a_raw_picture_has_even_sides_and_half_the_bytes(height: int, width: int) -> None:
    picture = photograph(np.zeros((height, width, 3), np.uint8), 85, compressed=False)
    assert isinstance(picture, rr.Image)
    assert picture.format is not None
    assert picture.buffer is not None
    (format_,) = picture.format.as_arrow_array().to_pylist()
    even = (width + width % 2, height + height % 2)
    assert (format_["width"], format_["height"]) == even
    assert len(picture.buffer.as_arrow_array()[0]) == even[0] * even[1] * 3 // 2


def test_a_viewer_that_is_not_there_is_told_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer_module, "CLOSE_SECONDS", 20.0)
    said: queue.Queue[str] = queue.Queue()
    viewer = RerunViewer(parse_rerun_mode("connect=rerun+http://127.0.0.1:1/proxy"), report=said.put)
    assert "no viewer listens at 127.0.0.1:1 yet" in said.get(timeout=30)
    viewer.publish(FRAME, tracks(0, {}))
    assert viewer.shows_inspection
    viewer.close()
    assert not viewer.shows_inspection
    assert said.empty()
