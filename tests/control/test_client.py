"""A controller's calls are answered, refused by name or given up in time, and its socket does not outlive it."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from online_tapir import ControlError, Controller
from online_tapir.control import client
from online_tapir.control.server import ControlServer
from online_tapir.errors import ConfigError
from online_tapir.live.saves import Outcome
from online_tapir.live.stream import Stream
from online_tapir.wire.security import Access, load_keys, new_keys, trust

Served = Callable[[ControlServer, Stream], AbstractContextManager[None]]


@pytest.fixture
def controller(server: ControlServer, stream: Stream, served: Served) -> Iterator[Controller]:
    with served(server, stream), Controller(server.address) as controller:
        yield controller


def test_every_call_reaches_the_run(controller: Controller, stream: Stream) -> None:
    ids = controller.add(np.array([[1, 2], [3.5, 4]]), frame_id=4)
    assert_array_equal(ids, [0, 1])
    assert controller.add([[0.5, 0.5]], normalised=True).dtype == np.int32
    controller.remove(ids[:1])
    controller.remove(2)
    assert stream.tracker.ids.tolist() == [1]
    controller.replenish(points=3)
    assert controller.status()["replenish_points"] == 3
    controller.replenish(False)
    assert controller.set(heartbeat_s=0.5)["heartbeat_s"] == stream.heartbeat_s == 0.5
    controller.inspect(1)
    assert controller.status()["inspected"] == stream.tracker.inspected == 1
    controller.inspect(None)
    assert controller.status()["inspected"] == -1
    controller.pause()
    assert controller.status()["state"] == "paused"
    controller.resume()
    assert controller.clear() == 1
    controller.stop()
    assert stream.stop.is_set()


def test_a_list_is_arrays_of_the_right_shapes_even_when_it_is_empty(controller: Controller) -> None:
    points = controller.list()
    assert (points.frame_id, points.ids.shape, points.xy.shape, points.visible.shape) == (5, (0,), (0, 2), (0,))
    controller.add([[1, 2]])
    assert_array_equal(controller.list().waiting, [0])


def test_a_snapshot_is_a_picture_and_the_frame_to_name_points_on(controller: Controller) -> None:
    snapshot = controller.snapshot("png")
    assert snapshot.image.startswith(b"\x89PNG")
    controller.add([[1, 2]], frame_id=snapshot.frame_id)


def test_a_refusal_is_raised_with_its_name(controller: Controller) -> None:
    for call, name in [
        (lambda: controller.add([[1, 2]], frame_id=1), "frame_left_window"),
        (lambda: controller.add([1, 2]), "bad_request"),
        (lambda: controller.remove([99]), "unknown_point"),
        (lambda: controller.inspect(99), "unknown_point"),
        (lambda: controller.snapshot("tiff"), "bad_request"),
    ]:
        with pytest.raises(ControlError) as refusal:
            call()
        assert refusal.value.name == name


def test_points_are_saved_once_they_are_on_the_disk_or_else_it_is_said(
    controller: Controller, keeps: Callable[[str], None]
) -> None:
    with pytest.raises(ControlError, match="started without --save-state"):
        controller.save_state()
    keeps("")
    saved = controller.save_state()
    assert (saved.frame_id, saved.points) == (5, 7)
    keeps("the disk is full")
    with pytest.raises(ControlError, match="not_saved: the disk is full"):
        controller.save_state()


def test_a_save_that_takes_too_long_is_given_up(
    server: ControlServer,
    stream: Stream,
    served: Served,
    keeps: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keeps("")
    keeper: Any = stream.keeper
    keeper._outcomes = repeat(Outcome())
    slept = [0.0]

    def sleep(seconds: float) -> None:
        slept[0] += 10

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + slept[0], sleep=sleep)
    monkeypatch.setattr(client, "time", clock)
    with (
        served(server, stream),
        Controller(server.address, timeout_ms=30_000) as controller,
        pytest.raises(ControlError, match=r"not_saved: the points were not written within 30 s"),
    ):
        controller.save_state()


def test_nobody_there_is_said_in_time_with_the_address() -> None:
    said = r"no reply from tcp://127\.0\.0\.1:1 to `pause` in 0.05 s"
    with Controller("tcp://127.0.0.1:1", timeout_ms=50) as nobody, pytest.raises(ControlError, match=said) as silence:
        nobody.pause()
    assert silence.value.name == "no_answer"


def test_a_request_that_nobody_took_is_not_done_by_whoever_comes_later(stream: Stream, served: Served) -> None:
    first = ControlServer("tcp://127.0.0.1:0")
    with Controller(first.address, timeout_ms=30_000) as controller:
        with served(first, stream):
            controller.status()
        controller.timeout_ms = 200
        first.close()
        with pytest.raises(ControlError, match="no_answer"):
            controller.stop()
        second = ControlServer(first.address)
        with served(second, stream):
            answered = False
            while not answered:  # until it has connected anew
                try:
                    answered = bool(controller.status())
                except ControlError as silence:
                    assert silence.name == "no_answer"  # noqa: PT017
        second.close()
    assert not stream.stop.is_set()


def test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice(
    server: ControlServer, stream: Stream, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange, lost = Controller._exchange, list[Any]()

    def lossy(self: Controller, packed: bytes, id: int, deadline: float) -> Any:
        reply = exchange(self, packed, id, deadline)
        if not lost:
            lost.append(reply)
            return None
        return reply

    monkeypatch.setattr(client.Controller, "_exchange", lossy)
    with served(server, stream), Controller(server.address) as controller:
        assert controller.add([[1, 2]]).tolist() == [0]
    assert lost[0]["result"]["ids"] == [0]
    assert stream.tracker.ids.tolist() == [0]


@pytest.mark.parametrize("address", ["5556", "nowhere://x", ""])
def test_an_address_that_is_none_is_refused_at_the_call(address: str) -> None:
    with pytest.raises(ConfigError, match="cannot control"):
        Controller(address)


def test_a_controller_that_nobody_holds_closes_its_socket() -> None:
    controller = Controller("tcp://127.0.0.1:1")
    context = controller._context
    controller.close()
    del controller
    assert context.closed


def test_with_keys_an_allowed_one_controls_and_no_other(stream: Stream, served: Served, tmp_path: Path) -> None:
    for name in ("robot", "laptop", "thief"):
        new_keys(tmp_path / name)
        trust(tmp_path / name, tmp_path / "robot" / "robot.key")
    (tmp_path / "robot" / "peers" / "robot.key").unlink()
    trust(tmp_path / "robot", tmp_path / "laptop" / "laptop.key")
    refusals: list[str] = []
    server = ControlServer("tcp://127.0.0.1:0", access=Access(load_keys(tmp_path / "robot"), report=refusals.append))
    with served(server, stream):
        with Controller(server.address, keys=tmp_path / "laptop") as controller:
            assert controller.status()["state"] == "streaming"
        for keys in (tmp_path / "thief", None):
            with Controller(server.address, keys=keys, timeout_ms=300) as other, pytest.raises(ControlError) as silence:
                other.stop()
            assert silence.value.name == "no_answer"
        deadline = time.monotonic() + 30
        while not refusals and time.monotonic() < deadline:
            time.sleep(0.01)
    server.close()
    assert not stream.stop.is_set()
    assert len(refusals) == 1
