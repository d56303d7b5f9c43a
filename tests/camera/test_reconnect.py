"""A live camera that fails, hangs or sends rubbish: what its frames are numbered, what is known of it, what is left."""

import itertools
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from online_tapir.camera import Camera, Capture, Reconnect, SyntheticCamera, can_come_back, open_camera
from online_tapir.camera import capture as capturing
from online_tapir.camera.opencv import CORRUPT_GRABS, OpenCvCamera
from online_tapir.clock import StepClock
from online_tapir.errors import CameraError, ConfigError
from tests.camera.test_camera import take_all

LONG = 30.0  # seconds; only a broken capture waits so long
SOON = Reconnect(first_wait_s=1e-3, longest_wait_s=1e-3, stall_timeout_s=LONG)
HASTY = replace(SOON, stall_timeout_s=0.1)  # for cameras that hang until they are told not to
CORRUPT = np.full((33, 49, 3), np.nan)

Picture = np.ndarray[Any, Any]


def grey(level: int = 1, width: int = 49, height: int = 33) -> Picture:
    return np.full((height, width, 3), level, np.uint8)


class Door(SyntheticCamera):
    """A live camera that says when it was closed."""

    def __init__(self, frames: Iterable[Picture]) -> None:
        super().__init__(frames, name="door", live=True)
        self.closing = threading.Event()

    def close(self) -> None:
        super().close()
        self.closing.set()


class Heard(list[str]):
    """What was reported, and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._more = threading.Condition()

    def __call__(self, message: str) -> None:
        with self._more:
            self.append(message)
            self._more.notify_all()

    def wait_for(self, text: str) -> None:
        with self._more:
            assert self._more.wait_for(lambda: any(text in message for message in self), LONG), list(self)


def breaks(*pictures: Picture, error: BaseException | None = None) -> Iterator[Picture]:
    yield from pictures
    raise error or CameraError("the cable is out")


def hangs(until: threading.Event, *then: Picture) -> Iterator[Picture]:
    yield grey()
    assert until.wait(LONG)
    yield from then


def openings(*cameras: Camera | CameraError) -> Callable[[], Camera]:
    """Opens one after another; for an error it fails."""
    rest = iter(cameras)

    def reopen() -> Camera:
        camera = next(rest)
        if isinstance(camera, CameraError):
            raise camera
        return camera

    return reopen


def test_waits_double_up_to_the_longest() -> None:
    reconnect = Reconnect(first_wait_s=0.5, longest_wait_s=5)
    most = list(itertools.islice(reconnect.waits(lambda: 1.0), 7))
    assert most == [0.5, 1, 2, 4, 5, 5, 5]
    assert list(itertools.islice(reconnect.waits(lambda: 0.0), 7)) == [wait / 2 for wait in most]
    drawn = list(itertools.islice(reconnect.waits(), 7))
    assert all(wait / 2 <= draw <= wait for wait, draw in zip(most, drawn, strict=True))
    assert len(set(drawn[4:])) > 1


@pytest.mark.parametrize("attempts", [0, 1, 7])
def test_there_are_as_many_waits_as_attempts(attempts: int) -> None:
    assert len(list(Reconnect(attempts=attempts).waits())) == attempts


@pytest.mark.parametrize(
    "asked",
    [
        {"attempts": -1},
        {"first_wait_s": 0},
        {"first_wait_s": float("nan")},
        {"first_wait_s": 31},
        {"longest_wait_s": float("inf")},
        {"stall_timeout_s": 0},
        {"stall_timeout_s": float("nan")},
    ],
)
def test_what_cannot_be_waited_for_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="asked for"):
        Reconnect(**asked)


def test_a_camera_that_was_lost_goes_on_under_new_numbers() -> None:
    clock, heard, doors = StepClock(), Heard(), openings(CameraError("no door"), Door([grey(2)]))

    def reopen() -> Camera:
        clock.sleep(6.0)
        return doors()

    first = Door(breaks(grey(1)))
    with Capture(first, reopen=reopen, reconnect=SOON, report=heard, clock=clock) as capture:
        frames = take_all(capture)
    assert first.closed
    assert (frames[-1].id, frames[-1].rgb[0, 0, 0]) == (2, 2)
    assert len(frames) + capture.dropped == 3
    health = capture.health
    assert (health.state, health.reconnects, health.reason) == ("streaming", 1, "")
    assert health.since_ns == frames[-1].captured_ns
    assert heard == [
        "the cable is out; it is being opened again",
        "no door; it is being opened again",
        "door gives frames again, after 12.0 s",
    ]


@settings(max_examples=30)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=7), min_size=1, max_size=5))
def test_every_number_is_taken_or_counted_as_dropped(scripts: list[list[bool]]) -> None:
    """Each script is an opening: good frames and corrupt ones, and all but the last break off."""
    pictures = [[grey() if good else CORRUPT for good in script] for script in scripts]
    pictures = [[grey(), *opening] for opening in pictures]  # a synthetic camera wants its first to be good
    cameras = [Door(breaks(*opening)) for opening in pictures[:-1]] + [Door(pictures[-1])]
    with Capture(cameras[0], reopen=openings(*cameras[1:]), reconnect=SOON, report=Heard()) as capture:
        ids = [frame.id for frame in take_all(capture)]
    assert ids == sorted(set(ids))
    assert capture.health.reconnects == len(cameras) - 1
    assert capture.health.corrupt == sum(not good for script in scripts for good in script)
    assert len(ids) + capture.dropped == sum(map(len, pictures)) + len(cameras) - 1
    assert all(camera.closed for camera in cameras)


def test_when_attempts_run_out_the_cameras_own_error_is_raised() -> None:
    errors = [CameraError(f"no door {i}") for i in range(4)]
    reconnect = replace(SOON, attempts=3)
    with Capture(Door(breaks(grey())), reopen=openings(*errors), reconnect=reconnect, report=Heard()) as capture:
        with pytest.raises(CameraError) as caught:
            take_all(capture)
        assert caught.value is errors[2]
    assert (capture.health.state, capture.health.reason) == ("lost", "no door 2")


def test_without_attempts_nothing_is_opened_again() -> None:
    with (
        Capture(Door(breaks(grey())), reopen=openings(), reconnect=replace(SOON, attempts=0)) as capture,
        pytest.raises(CameraError, match="the cable is out"),
    ):
        take_all(capture)


def test_back_off_begins_anew_after_a_steady_while_and_only_then() -> None:
    for frames, reopened in ((capturing.STEADY_FRAMES, 5), (1, 2)):
        cameras = [Door(breaks(*[grey()] * frames)) for _ in range(6)]
        reopen, reconnect = openings(*cameras[1:], CameraError("gone"), CameraError("gone")), replace(SOON, attempts=2)
        with Capture(cameras[0], reopen=reopen, reconnect=reconnect, report=Heard()) as capture:
            with pytest.raises(CameraError):
                take_all(capture)
            assert capture.health.reconnects == reopened


def test_a_recording_that_fails_is_not_opened_again() -> None:
    camera = SyntheticCamera(breaks(grey(), grey()))
    with Capture(camera, reopen=openings(), reconnect=SOON) as capture:
        assert [capture.mailbox.take(LONG).id for _ in range(2)] == [0, 1]
        with pytest.raises(CameraError, match="the cable is out"):
            capture.mailbox.take(LONG)


def test_a_mistake_of_ours_is_raised_and_not_tried_again() -> None:
    camera = Door(breaks(grey(), error=ZeroDivisionError("ours")))
    with Capture(camera, reopen=openings(), reconnect=SOON) as capture, pytest.raises(ZeroDivisionError):
        take_all(capture)


def test_one_reason_is_reported_once_however_often_it_is_met() -> None:
    heard, gone = Heard(), [CameraError("no door")] * 7
    with Capture(Door(breaks(grey())), reopen=openings(*gone, Door([grey()])), reconnect=SOON, report=heard) as capture:
        take_all(capture)
    assert heard[:2] == ["the cable is out; it is being opened again", "no door; it is being opened again"]
    assert len(heard) == 3


def test_a_camera_that_hangs_is_seen_left_behind_and_closed_when_it_comes_back() -> None:
    heard, unblock = Heard(), threading.Event()
    hung = Door(hangs(unblock, grey(99)))
    goes_on = threading.Event()
    with Capture(hung, reopen=lambda: Door(hangs(goes_on)), reconnect=HASTY, report=heard) as capture:
        heard.wait_for("door has given no frame for 0.1 s; see that it is still there; it is being opened again")
        heard.wait_for("gives frames again")
        assert not hung.closed
        unblock.set()
        assert hung.closing.wait(LONG)
        goes_on.set()
        frames = take_all(capture)
    ids = [frame.id for frame in frames]
    assert ids == sorted(set(ids))
    assert 99 not in {frame.rgb[0, 0, 0] for frame in frames}


def test_a_camera_whose_frames_come_is_not_taken_for_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    watches: list[float] = []

    def watch(self: Capture, seconds: float, reader: Any, opened: bool) -> bool:  # as long as a frame takes
        before = reader.frames
        while reader.frames == before and not reader.ended:
            time.sleep(0.001)
        watches.append(seconds)
        return bool(reader.ended or self.mailbox.closed)

    monkeypatch.setattr(Capture, "_is_over_within", watch)
    frames = itertools.takewhile(lambda _: len(watches) < 3 * capturing.WATCHES, itertools.repeat(grey()))
    with Capture(Door(frames), reopen=openings(), reconnect=HASTY) as capture:
        take_all(capture)
    assert capture.health.reconnects == 0


def test_a_stall_shows_in_the_health_until_the_frames_come_again() -> None:
    heard, unblock = Heard(), threading.Event()
    reconnect = replace(HASTY, first_wait_s=LONG, longest_wait_s=LONG)
    capture = Capture(Door(hangs(unblock)), reopen=openings(), reconnect=reconnect, report=heard)
    assert capture.health.state == "streaming"
    with capture:
        heard.wait_for("no frame")
        assert capture.health.state == "stalled"
        assert capture.health.reason.startswith("door has given no frame")
        unblock.set()


def test_a_stall_is_an_error_where_nothing_is_opened_again() -> None:
    unblock = threading.Event()
    with Capture(Door(hangs(unblock)), reopen=openings(), reconnect=replace(HASTY, attempts=0)) as capture:
        with pytest.raises(CameraError, match=r"has given no frame for 0\.1 s"):
            take_all(capture)
        unblock.set()


def test_an_opening_that_hangs_is_left_behind_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "OPEN_TIMEOUT_S", 0.1)
    heard, unblock, late = Heard(), threading.Event(), Door([grey(99)])

    def opens_late() -> Camera:
        assert unblock.wait(LONG)
        return late

    calls = iter([opens_late])
    goes_on = threading.Event()

    def reopen() -> Camera:
        return next(calls, lambda: Door(hangs(goes_on)))()

    with Capture(Door(breaks(grey())), reopen=reopen, reconnect=replace(SOON, stall_timeout_s=0.03), report=heard) as c:
        heard.wait_for("door has not opened for 0.1 s")
        heard.wait_for("gives frames again")
        unblock.set()
        assert late.closing.wait(LONG)
        goes_on.set()
        assert 99 not in {frame.rgb[0, 0, 0] for frame in take_all(c)}


def test_no_more_are_opened_while_too_many_hang() -> None:
    heard, unblock = Heard(), threading.Event()
    opened: list[Door] = []

    def reopen() -> Camera:
        opened.append(Door([grey(7)] if unblock.is_set() else hangs(unblock)))
        return opened[-1]

    with Capture(Door(hangs(unblock)), reopen=reopen, reconnect=HASTY, report=heard) as capture:
        heard.wait_for("3 attempts to read door hang")
        assert len(opened) == capturing.MOST_HUNG - 1
        unblock.set()
        assert take_all(capture)[-1].rgb[0, 0, 0] == 7
    assert all(door.closing.wait(LONG) for door in opened)


def test_corrupt_frames_of_a_live_camera_are_left_out_and_reported_once() -> None:
    heard, pictures = Heard(), [grey(), CORRUPT, grey(), CORRUPT, CORRUPT, grey(5)]
    with Capture(Door(pictures), report=heard) as capture:
        frames = take_all(capture)
    assert (frames[-1].id, frames[-1].rgb[0, 0, 0]) == (5, 5)
    assert capture.health.corrupt == 3
    assert len(frames) + capture.dropped == 6
    assert len(heard) == 1
    assert "NaN" in heard[0]


def test_many_corrupt_frames_in_a_row_are_a_failure() -> None:
    many = [grey(), *[CORRUPT] * capturing.CORRUPT_IN_A_ROW]
    heard = Heard()
    with Capture(Door(many), reopen=openings(Door([grey(5)])), reconnect=SOON, report=heard) as capture:
        assert take_all(capture)[-1].rgb[0, 0, 0] == 5
    assert capture.health.reconnects == 1
    assert capture.health.corrupt == capturing.CORRUPT_IN_A_ROW
    assert capture.dropped >= capturing.CORRUPT_IN_A_ROW


def test_corrupt_frames_between_good_ones_are_no_failure() -> None:
    pictures = [grey(), CORRUPT] * (capturing.CORRUPT_IN_A_ROW + 3)
    with Capture(Door(pictures), reopen=openings(), reconnect=SOON, report=Heard()) as capture:
        take_all(capture)
    assert capture.health.corrupt == capturing.CORRUPT_IN_A_ROW + 3


class ScriptedVideo:
    """Stands in for a VideoCapture: what each grab() returns is in the script, and then it fails for ever."""

    def __init__(self, script: str) -> None:
        self._script = iter(script)
        self._grabbed = False

    def grab(self) -> bool:
        self._grabbed = next(self._script, "-") == "+"
        return self._grabbed

    def retrieve(self) -> tuple[bool, Picture]:
        return self._grabbed, grey()

    def read(self) -> tuple[bool, Picture]:
        return True, grey()

    def get(self, _: int) -> float:
        return 25.0

    def release(self) -> None: ...


@pytest.mark.parametrize("script", ["+", "+--+", "-+", "---+-+++-+", "+" + "-" * (CORRUPT_GRABS - 1) + "+"])
def test_a_grab_that_fails_before_another_is_a_corrupt_frame_and_the_last_is_the_end(script: str) -> None:
    camera = OpenCvCamera(cast(cv2.VideoCapture, ScriptedVideo(script)), label="door", name="door", live=True)
    read = ""
    for _ in script:
        assert camera.grab()
        try:
            camera.retrieve()
            read += "+"
        except CameraError:
            read += "-"
    assert read == script
    with pytest.raises(CameraError, match="door stopped giving frames"):
        camera.grab()


def test_a_size_that_changed_while_it_was_lost_is_scaled_to_the_first() -> None:
    heard = Heard()
    big = Door([grey(5, 98, 66), grey(5, 98, 66)])
    with Capture(Door(breaks(grey())), reopen=openings(big), reconnect=SOON, report=heard) as capture:
        assert take_all(capture)[-1].rgb.shape == (33, 49, 3)
    assert heard.count("door went from 49x33 to 98x66; its frames are scaled to 49x33") == 1


@pytest.mark.parametrize("hanging", [False, True])
def test_closing_does_not_wait_for_what_the_capture_waits_for(hanging: bool) -> None:
    heard, unblock, before = Heard(), threading.Event(), set(threading.enumerate())
    camera = Door(hangs(unblock) if hanging else breaks(grey()))
    reconnect = replace(HASTY, first_wait_s=LONG, longest_wait_s=LONG)
    with Capture(camera, reopen=openings(), reconnect=reconnect, report=heard) as capture:
        heard.wait_for("opened again")
        asked_s = time.monotonic()
        capture.close()
        assert time.monotonic() - asked_s < LONG / 3
        capture._thread.join(LONG)
        assert "capture door" not in {thread.name for thread in set(threading.enumerate()) - before}
        unblock.set()
    assert camera.closing.wait(LONG)


def test_twenty_losses_leave_no_thread_behind() -> None:
    before = set(threading.enumerate())
    cameras = [Door(breaks(grey())) for _ in range(20)]
    with Capture(cameras[0], reopen=openings(*cameras[1:], Door([grey()])), reconnect=SOON, report=Heard()) as capture:
        take_all(capture)
    assert capture.health.reconnects == 20
    assert all(camera.closed for camera in cameras)
    deadline = time.monotonic() + LONG
    while not (left := set(threading.enumerate())) <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left <= before


@pytest.mark.parametrize(
    ("spec", "can"),
    [("0", True), ("/dev/video2", True), ("rtsp://a/b", True), ("demo", False), ("demo:7", False), ("a.mp4", False)],
)
def test_cameras_and_streams_can_come_back_and_nothing_else(spec: str, can: bool) -> None:
    assert can_come_back(spec) is can


class Sender:
    """ffmpeg on a port of loopback, sending a test picture to whoever connects."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        source = "-re -f lavfi -i testsrc=size=162x120:rate=25"
        sends = f"-c:v mpeg2video -g 5 -f mpegts {self.address}?listen=1"
        self._process = subprocess.Popen(f"ffmpeg -v quiet -nostdin {source} {sends}".split())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(LONG)
            self._process = None


@pytest.fixture
def sender() -> Iterator[Sender]:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg, which would send the stream, is not installed")
    sender = Sender()
    yield sender
    sender.kill()


def test_a_stream_whose_sender_is_killed_and_started_again_goes_on(sender: Sender) -> None:
    heard = Heard()
    reconnect = Reconnect(first_wait_s=0.1, longest_wait_s=0.2, stall_timeout_s=LONG)
    sender.start()  # which takes a moment, for which the capture waits as for any return
    with Capture(
        Door(breaks(grey())),
        reopen=partial(open_camera, sender.address, timeout_s=LONG),
        reconnect=reconnect,
        report=heard,
    ) as capture:
        heard.wait_for("gives frames again")
        before = [capture.mailbox.take(LONG).id for _ in range(3)]
        sender.kill()
        heard.wait_for("stopped giving frames; see that it is still there; it is being opened again")
        heard.clear()
        sender.start()
        heard.wait_for("gives frames again")
        after = [capture.mailbox.take(LONG).id for _ in range(3)]
    ids = before + after
    assert ids == sorted(set(ids))
    assert capture.health.reconnects == 2
