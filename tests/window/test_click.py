"""Clicks mean what was on the screen, keys do what the help says, and a real window under a virtual display agrees."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose

from online_tapir import Controller, Heartbeat, subscribe
from online_tapir.camera.demo import DemoScene
from online_tapir.control.protocol import ControlError, Request
from online_tapir.drawing.painting import Palette, Picture
from online_tapir.errors import PublishError
from online_tapir.records import Frame, Inspection, Stage, Tracks
from online_tapir.testing import make_tracks
from online_tapir.window import click as window_module
from online_tapir.window.click import ClickWindow, OnMouse, check_windows
from online_tapir.window.scene import HELP, KEYS, Fit, Shown, Standing, View, paint_view

LEFT, RIGHT = cv2.EVENT_LBUTTONDOWN, cv2.EVENT_RBUTTONDOWN
LONG = 60.0  # seconds; only a broken program takes so long
XY = np.array([[10, 10], [40, 30]], np.float32)
STOOD_FOR = SimpleNamespace(ids=np.arange(2), inspected=None)  # a tracker


def moment(frame_id: int = 5, width: int = 49, height: int = 33) -> Shown:
    """A frame with points 0 and 1 on it."""
    rgb = np.full((height, width, 3), 90, np.uint8)
    tracks = make_tracks(frame_id, XY, visible=[True, False], size=(width, height), captured_ns=frame_id)
    return Shown(Frame(frame_id, frame_id, frame_id, rgb), tracks, 29.9)


def view(**changes: Any) -> View:
    return replace(View(moment(), Standing(ids=frozenset((0, 1))), Fit((49, 33), (98, 66))), **changes)


class ScriptedScreen:
    """In place of a window: each time it is polled the next step of a script is done, which may give a key."""

    def __init__(self, *script: Callable[["ScriptedScreen"], Any]) -> None:
        self.room: tuple[int, int] | None = None
        self.closed = False
        self.shown: list[Picture] = []
        self.click: OnMouse = lambda event, column, row: None
        self._script = iter(script)

    def open(self, on_mouse: OnMouse) -> "ScriptedScreen":
        self.click = on_mouse
        return self

    def poll(self, ms: int) -> int:
        step = next(self._script, lambda screen: None)
        key = step(self)
        return ord(key) if isinstance(key, str) else -1

    def show(self, picture: Picture) -> None:
        self.shown.append(picture)

    def resize(self, size: tuple[int, int]) -> None:
        self.room = size

    def close(self) -> None: ...


def run(
    monkeypatch: pytest.MonkeyPatch, *script: Callable[..., Any], paused: bool = False, inspected: int | None = None
) -> list[Request]:
    """What is asked of a run while a window goes through a script; steps get the window and its screen."""
    asked: list[Request] = []
    over = threading.Event()

    def obey(stream: Any, request: Request) -> dict[str, Any]:
        asked.append(request)
        return {"ids": [7]} if request.command == "add" else {}

    monkeypatch.setattr(window_module, "obey", obey)
    clock = count(0, 10**9)  # a second passes at every look: a picture is always due
    stream: Any = SimpleNamespace(
        tracks=None,
        tracker=SimpleNamespace(ids=np.arange(2), inspected=inspected),
        state="paused" if paused else "streaming",
    )
    steps = [lambda screen, step=step: step(window, screen) for step in script]
    screen = ScriptedScreen(*steps, lambda screen: over.set())
    window = ClickWindow(open_screen=screen.open, monotonic_ns=lambda: next(clock))
    window.serve(stream)
    window.beside(lambda: (over.wait(LONG), window.serve(stream)), over)
    return asked


def publish(frame_id: int) -> Callable[[ClickWindow, ScriptedScreen], None]:
    shown = moment(frame_id)
    return lambda window, screen: window.publish(shown.frame, shown.tracks)


def move(column: int, row: int) -> Callable[[ClickWindow, ScriptedScreen], None]:
    return click(cv2.EVENT_MOUSEMOVE, column, row)


def click(event: int, column: int, row: int) -> Callable[[ClickWindow, ScriptedScreen], None]:
    return lambda window, screen: screen.click(event, column, row)


def press(key: str) -> Callable[[ClickWindow, ScriptedScreen], str]:
    return lambda window, screen: key


@pytest.mark.parametrize("frame", [(49, 33), (640, 480), (1920, 1080), (1080, 1920), (3, 7)], ids=str)
@pytest.mark.parametrize("room", [(1280, 720), (33, 700), (641, 479)], ids=str)
def test_every_pixel_of_the_window_maps_into_the_image_and_back(frame: tuple[int, int], room: tuple[int, int]) -> None:
    fit = Fit.within(frame, room)
    assert fit.shown[0] <= room[0]
    assert fit.shown[1] <= room[1]
    for column, row in [(0, 0), (fit.shown[0] - 1, fit.shown[1] - 1), (fit.shown[0] // 3, fit.shown[1] // 2)]:
        x, y = fit.to_image(column, row)
        assert 0 < x < frame[0]
        assert 0 < y < frame[1]
        assert int(x / frame[0] * fit.shown[0]) == column
        assert int(y / frame[1] * fit.shown[1]) == row


def test_at_its_own_size_a_click_falls_on_the_centre_of_a_pixel() -> None:
    assert Fit((640, 480), (640, 480)).to_image(7, 33) == (7.5, 33.5)


@pytest.mark.parametrize(
    ("frame", "shown"), [((640, 480), (640, 480)), ((3840, 2160), (1280, 720)), ((320, 240), (640, 480))]
)
def test_only_very_large_and_very_small_frames_are_scaled_at_first(
    frame: tuple[int, int], shown: tuple[int, int]
) -> None:
    assert Fit.at_first(frame).shown == shown


def test_the_nearest_point_is_a_living_one_and_may_be_one_that_waits() -> None:
    assert view().nearest(12, 12) == 0
    assert view(standing=Standing(ids=frozenset((1,)))).nearest(12, 12) == 1
    assert view(standing=Standing(ids=frozenset((0, 1, 2)), waiting={2: (13.0, 12.0)})).nearest(12.6, 12) == 2
    assert view(standing=Standing()).nearest(12, 12) is None


def test_the_picture_is_as_large_as_the_window_and_shows_what_it_should() -> None:
    plain = view(fit=Fit((49, 33), (490, 330)))
    painted = [
        paint_view(shown, shown.tracks, Palette().colors(shown.tracks), ([], np.zeros(0, np.intp)))
        for shown in (
            plain,
            replace(plain, help=True),
            replace(plain, notice="no room"),
            replace(plain, standing=Standing("paused", frozenset((0, 1)))),
            replace(plain, standing=Standing(ids=frozenset((0,)))),
            replace(plain, standing=Standing(ids=frozenset((0, 1, 2)), waiting={2: (25.0, 16.0)})),
            replace(plain, standing=Standing(ids=frozenset((0, 1)), inspected=1)),
        )
    ]
    assert {picture.shape for picture in painted} == {(330, 490, 3)}
    assert len({picture.tobytes() for picture in painted}) == len(painted)


def inspection(id: int = 1) -> Inspection:
    """Seen at the left edge, half-way down, and moved from there to where point 1 is."""
    heat = np.zeros((3, 5), np.float32)
    heat[1, 0] = 1
    stages = [Stage(name, np.array(xy, np.float32), 0.1, 0.2, True) for name, xy in (("match", (5, 16)), ("r", XY[1]))]
    return Inspection(id, heat[None], heat, tuple(stages), ())


def inspected_view(standing_id: int | None) -> View:
    shown = moment()
    tracks = replace(shown.tracks, inspection=inspection())
    standing = Standing(ids=frozenset((0, 1)), inspected=standing_id)
    return View(replace(shown, tracks=tracks), standing, Fit((49, 33), (490, 330)))


def test_an_inspected_point_is_shown_by_its_heat_and_its_stages_where_they_lie() -> None:
    plain, seen = (
        paint_view(v, v.tracks, Palette().colors(v.tracks), ([], np.zeros(0, np.intp)))
        for v in (inspected_view(None), inspected_view(1))
    )
    changed = (plain != seen).any(axis=2)
    assert changed[150:180, 10:40].all()  # the hot place, and the first guess on it
    assert changed[220:240, 225].any()  # the line from there to the last stage
    assert changed[290:310, 390:410].any()  # which has a ring round it
    assert not changed[60:140, 160:].any()
    assert not changed[270:300, 160:290].any()


@pytest.mark.parametrize("now", [None, 0])
def test_what_is_inspected_no_more_is_not_shown(now: int | None) -> None:
    assert inspected_view(1).tracks.inspection is not None
    assert inspected_view(now).tracks.inspection is None


def test_every_key_is_in_the_help() -> None:
    assert len(HELP) == len(KEYS) + 2
    assert all(any(does in line for line in HELP) for does in KEYS.values())


def test_a_click_names_the_frame_that_was_on_the_screen_when_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = run(
        monkeypatch,
        publish(5),
        lambda *_: None,  # frame 5 is painted
        publish(6),
        click(LEFT, 20, 30),  # as frame 6 is being painted
        click(LEFT, 20, 30),
    )
    x, y = Fit.at_first((49, 33)).to_image(20, 30)
    assert asked == [Request("add", {"xy": [(x, y)], "frame_id": frame_id}) for frame_id in (5, 6)]


def test_a_right_click_removes_the_nearest_point(monkeypatch: pytest.MonkeyPatch) -> None:
    column, row = (int(v * Fit.at_first((49, 33)).shown[0] / 49) for v in XY[1])
    asked = run(monkeypatch, publish(5), lambda *_: None, click(RIGHT, column - 20, row - 30))
    assert asked == [Request("remove", {"ids": [1]})]


def test_clicks_before_the_first_frame_and_other_events_ask_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, click(LEFT, 5, 5), press("g")) == []
    assert run(monkeypatch, publish(5), lambda *_: None, click(cv2.EVENT_MOUSEMOVE, 5, 5), press("x")) == []


@pytest.mark.parametrize(("paused", "asks"), [(False, "pause"), (True, "resume")])
def test_the_space_bar_pauses_and_resumes(monkeypatch: pytest.MonkeyPatch, paused: bool, asks: str) -> None:
    assert run(monkeypatch, press(" "), paused=paused) == [Request(asks, {})]


def test_a_key_clears(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, press("c")) == [Request("clear", {})]


def test_a_key_inspects_the_point_nearest_to_the_mouse_and_again_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tuple(int(v * Fit.at_first((49, 33)).shown[0] / 49) for v in xy) for xy in XY]
    look = (publish(5), lambda *_: None)
    for id, (column, row) in enumerate(places):
        at = move(column + 20, row - 20)
        assert run(monkeypatch, *look, at, press("i")) == [Request("inspect", {"id": id})]
        assert run(monkeypatch, *look, at, press("i"), inspected=1 - id) == [Request("inspect", {"id": id})]
        assert run(monkeypatch, *look, at, press("i"), inspected=id) == [Request("inspect", {})]


def test_without_a_point_near_the_mouse_there_is_nothing_to_inspect(monkeypatch: pytest.MonkeyPatch) -> None:
    look = (publish(5), lambda *_: None)
    assert run(monkeypatch, move(5, 5), press("i")) == []  # no frame yet
    assert run(monkeypatch, *look, press("i")) == []  # the mouse was never over the window
    assert run(monkeypatch, *look, press("i"), inspected=1) == [Request("inspect", {})]


def test_a_window_that_is_closed_ends_a_run_though_its_camera_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "SERVED_S", 0.01)
    stop, over = threading.Event(), []
    window = ClickWindow(open_screen=ScriptedScreen(lambda screen: press("q")(window, screen)).open)
    window.beside(lambda: over.append(stop.wait(LONG)), stop)
    assert over == [True]


@pytest.mark.parametrize("key", ["q", "\x1b"])
def test_a_key_that_quits_stops_the_run(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    assert quits(monkeypatch, press(key)) == [Request("stop", {})]


def test_closing_the_window_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def close(window: ClickWindow, screen: ScriptedScreen) -> None:
        screen.closed = True

    assert quits(monkeypatch, close) == [Request("stop", {})]


def quits(monkeypatch: pytest.MonkeyPatch, step: Callable[..., Any]) -> list[Request]:
    """What is asked of a run that only ends when it is told to."""
    asked: list[Request] = []
    stop = threading.Event()
    monkeypatch.setattr(window_module, "SERVED_S", LONG)
    monkeypatch.setattr(window_module, "obey", lambda stream, request: (asked.append(request), stop.set(), {})[-1])
    stream: Any = SimpleNamespace(tracks=None, tracker=STOOD_FOR, state="streaming")
    window = ClickWindow(open_screen=ScriptedScreen(lambda screen: step(window, screen)).open)

    def track() -> None:
        while not stop.wait(0.001):
            window.serve(stream)

    window.beside(track, stop)
    return asked


def test_what_is_refused_is_said_in_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(stream: Any, request: Request) -> dict[str, Any]:
        raise ControlError("no_room", "there is no room")

    said: list[str] = []
    monkeypatch.setattr(window_module, "paint_view", lambda view, *_: said.append(view.notice) or view.moment.frame.rgb)
    stream: Any = SimpleNamespace(tracks=None, tracker=STOOD_FOR, state="streaming")
    over = threading.Event()

    def serve(window: ClickWindow, screen: ScriptedScreen) -> None:
        monkeypatch.setattr(window_module, "obey", refuse)
        window.serve(stream)

    run(monkeypatch, publish(5), lambda *_: None, press("c"), serve, lambda *_: over.set())
    assert said[0] == ""
    assert "there is no room" in said


def test_an_error_of_the_tracker_comes_out_of_the_window() -> None:
    def fail() -> None:
        raise PublishError("the disk is full")

    with pytest.raises(PublishError, match="the disk is full"):
        ClickWindow(open_screen=ScriptedScreen().open).beside(fail, threading.Event())


def test_a_window_that_fails_ends_the_tracking() -> None:
    stop = threading.Event()

    def broken(on_mouse: OnMouse) -> ScriptedScreen:
        raise PublishError("the display is gone")

    with pytest.raises(PublishError, match="the display is gone"):
        ClickWindow(open_screen=broken).beside(lambda: stop.wait(LONG) and None, stop)
    assert stop.is_set()


def test_without_windows_in_opencv_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")
    with pytest.raises(PublishError, match="install opencv-python"):
        check_windows()


@pytest.mark.skipif(not cv2.currentUIFramework().startswith("QT"), reason="this build of OpenCV does not use Qt")
@pytest.mark.parametrize("display", [None, ":7654"])
def test_without_a_display_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch, display: str | None) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    if display is not None:
        monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(PublishError, match=r"could not connect to display.*leave --window out") as refusal:
        check_windows()
    assert "\n" not in str(refusal.value)


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A virtual display of its own."""
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("Xvfb and xdotool are not both installed here, so nobody clicks")
    if not cv2.currentUIFramework():
        pytest.skip("this build of OpenCV has no windows")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp", "-noreset"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        number = server.stdout.readline().strip()
        monkeypatch.setenv("DISPLAY", f":{number}")
        yield f":{number}"
        server.terminate()


def xdotool(*words: object) -> str:
    done = subprocess.run(["xdotool", *map(str, words)], capture_output=True, text=True, timeout=LONG, check=True)
    return done.stdout


def test_a_real_window_is_clicked_in_and_a_subscriber_sees_what_was_named(display: str, tmp_path: Path) -> None:
    width, height, scale = 320, 240, 2  # shown at twice its size
    words = ["--camera", "demo", "--size", f"{width}x{height}", "--fps", "10", "--points", "grid:2", "--window"]
    words += ["--rerun", "off", "--threads", "1", "--heartbeat", "0.2", "--control", f"ipc://{tmp_path}/control"]
    words += ["--publish", f"ipc://{tmp_path}/tracks"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "online_tapir", *words]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        stream = subscribe(f"ipc://{tmp_path}/tracks", heartbeats=True, timeout_ms=round(1000 * LONG))
        first = next(stream)
        window = xdotool("search", "--sync", "--onlyvisible", "--name", "^online-tapir$").split()[-1]

        def key(name: str) -> None:
            xdotool("key", "--window", window, name)

        def click_at(button: int, column: int, row: int) -> None:
            xdotool("mousemove", "--window", window, column, row, "click", button)

        def until(fact: Callable[[Any], bool]) -> Any:
            return next(message for message in stream if fact(message))

        assert isinstance(first, Tracks)
        until(lambda message: isinstance(message, Tracks) and message.frame_id > first.frame_id + 10)
        key("space")
        still = [until(lambda message: isinstance(message, Heartbeat) and message.state == "paused") for _ in range(4)]
        paused_on = still[-1].frame_id  # and on the screen since a while
        column, row = 330, 250
        click_at(1, column, row)
        key("space")
        tracks = until(lambda message: isinstance(message, Tracks) and 4 in message.ids)
        place = [(column + 0.5) / scale, (row + 0.5) / scale]
        truth, _ = DemoScene(width, height).truth([place], paused_on, tracks.frame_id)
        assert_allclose(tracks.xy[tracks.ids == 4], truth, atol=4)

        with Controller(f"ipc://{tmp_path}/control", timeout_ms=round(1000 * LONG)) as controller:
            for inspected in (4, -1):
                key("i")
                until(lambda message, wanted=inspected: controller.status()["inspected"] == wanted)

        x, y = tracks.xy[tracks.ids == 4][0]
        click_at(3, round(x * scale), round(y * scale))
        assert until(lambda message: 4 not in message.ids).ids.tolist() == [0, 1, 2, 3]
        key("g")
        assert len(until(lambda message: len(message.ids) != 4).ids) == 4 + 48
        key("c")
        until(lambda message: len(message.ids) == 0)
        key("q")
        assert process.stderr is not None
        last_words = process.stderr.read()
        assert process.wait(LONG) == 0
    assert re.search(r"^\d+ frames in \d", last_words, re.MULTILINE)
    assert "Qt" not in last_words
