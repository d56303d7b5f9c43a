"""The table, the JSON lines and the CSV say what was received, and end when they should."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from online_tapir.cli.listen import CSV_COLUMNS, HINT_MS, live_table, patient, write_csv, write_jsonl
from online_tapir.errors import OnlineTapirError
from online_tapir.records import Label, Tracks
from online_tapir.testing import make_tracks
from online_tapir.wire.messages import Heartbeat

MS = 1_000_000


def tracks(frame_id: int, points: int = 2, camera: str = "desk") -> Tracks:
    numbers = np.arange(points, dtype=np.float32)
    return make_tracks(
        frame_id,
        np.stack([numbers + 0.1, numbers * 2], axis=1),
        ids=np.arange(points) + 10,
        visible=numbers < 1,
        occlusion=numbers / 10,
        uncertainty=numbers / 100,
        size=(640, 480),
        captured_ns=frame_id,
        captured_unix_ns=frame_id * 100 * MS,
        dropped=4,
        camera=camera,
        model="small",
        published_unix_ns=frame_id * 100 * MS + 1,
        model_frame_id=frame_id - 1,
    )


def stream(frames: int) -> Iterator[Tracks]:
    return (tracks(frame_id) for frame_id in range(frames))


def printed(frames: Sequence[Tracks | Heartbeat], width: int = 140, height: int = 30) -> str:
    out = io.StringIO()
    clock = iter(range(130 * MS, 10**12, 100 * MS))  # each message long enough after the last to be shown
    console = Console(file=out, width=width, height=height, force_terminal=True, no_color=True, _environ={})
    shown = [message for message in frames if isinstance(message, Tracks)]
    assert live_table(frames, console, unix_ns=lambda: next(clock)) == len(shown)
    return out.getvalue()


def test_json_lines_hold_every_frame_and_point() -> None:
    out = io.StringIO()
    assert write_jsonl(stream(3), out) == 3
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["frame_id"] for line in lines] == [0, 1, 2]
    assert [line["model_frame_id"] for line in lines] == [-1, 0, 1]
    assert lines[0]["camera"] == "desk"
    assert lines[2]["points"] == [
        {"id": 10, "x": 0.1, "y": 0.0, "visible": True, "occlusion": 0.0, "uncertainty": 0.0},
        {"id": 11, "x": 1.1, "y": 2.0, "visible": False, "occlusion": 0.1, "uncertainty": 0.01},
    ]


def test_what_is_not_finite_is_null_in_json() -> None:
    lost = tracks(0)
    lost.xy[0] = np.nan, np.inf
    out = io.StringIO()
    write_jsonl([lost], out)
    assert [json.loads(out.getvalue())["points"][0][key] for key in "xy"] == [None, None]


def test_csv_has_a_row_for_each_point_of_each_frame() -> None:
    out = io.StringIO()
    assert write_csv(stream(2), out) == 2
    rows = list(csv.reader(io.StringIO(out.getvalue())))
    assert rows[0] == list(CSV_COLUMNS)
    assert rows[1] == ["desk", "0", "0", "10", "0.1", "0.0", "1", "0.0", "0.0"]
    assert rows[4] == ["desk", "1", "100000000", "11", "1.1", "2.0", "0", "0.1", "0.01"]
    assert len(rows) == 5


@pytest.mark.parametrize("write", [write_jsonl, write_csv])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_writing_stops_after_count_and_takes_no_more(write: Callable[..., int], count: int) -> None:
    frames = stream(33)
    assert write(frames, io.StringIO(), count=count) == count
    assert next(frames).frame_id == count


def test_json_lines_have_the_names_of_points() -> None:
    out = io.StringIO()
    write_jsonl([replace(tracks(0), labels={10: Label("tip", "cup")})], out)
    called = [
        {key: point.get(key) for key in ("id", "name", "group")} for point in json.loads(out.getvalue())["points"]
    ]
    assert called == [{"id": 10, "name": "tip", "group": "cup"}, {"id": 11, "name": None, "group": None}]


@pytest.mark.parametrize("write", [write_jsonl, write_csv])
def test_a_reader_that_leaves_ends_it_quietly(write: Callable[..., int]) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as out:
        os.close(read_end)
        assert write(stream(3), out) == 0
        out.write("and what is still flushed goes nowhere")


def test_the_table_shows_points_and_the_state_of_the_stream() -> None:
    text = printed([tracks(0), tracks(1), tracks(4)])
    assert "desk #4 640x480 · 10.0 fps" in text
    assert "1/2 visible · 2 missing · 4 dropped by the source" in text
    assert "0.10" in text


def test_a_name_that_looks_like_markup_is_shown_as_it_is() -> None:
    text = printed([replace(tracks(0), labels={10: Label("[/]"), 11: Label("[left] knee")})])
    assert "[/]" in text
    assert "[left] knee" in text


def test_the_table_names_what_is_searched_for() -> None:
    text = printed([replace(tracks(0), searching=tuple(f"point {i}" for i in range(6)))], width=240)
    assert "searching for point 0, point 1, point 2, point 3 and 2 more" in text


def test_the_table_fits_the_terminal_and_says_how_many_more() -> None:
    text = printed([tracks(0, points=33)], height=16)
    assert "and 23 more" in text


def test_cameras_have_a_table_each() -> None:
    text = printed([tracks(0, camera="left"), tracks(0, camera="right"), tracks(1, camera="left")])
    assert "left #1" in text
    assert "right #0" in text


def test_a_source_that_begins_anew_is_no_gap() -> None:
    assert " 0 missing" in printed([tracks(frame_id) for frame_id in (5, 6, 0, 1)])


def test_no_points_are_an_empty_table() -> None:
    assert "0/0 visible" in printed([tracks(0, points=0)])


def lost(published_unix_ns: int) -> Heartbeat:
    since_unix_ns = published_unix_ns - 3_000 * MS
    return Heartbeat("desk", "lost", 0, since_unix_ns, points=2, published_unix_ns=published_unix_ns)


def test_a_heartbeat_says_what_is_wrong_and_the_next_tracks_that_it_is_over() -> None:
    assert "desk #0 · lost for 3 s" in printed([tracks(0), lost(published_unix_ns=5_000 * MS)])
    assert "desk #60 640x480" in printed([tracks(0), lost(5_000 * MS), tracks(60)])


def test_a_heartbeat_before_the_first_tracks_is_shown() -> None:
    assert "desk: no tracks yet · lost for 3 s" in printed([lost(5_000 * MS)])


def test_a_heartbeat_that_tracks_have_overtaken_is_not_shown() -> None:
    assert "lost" not in printed([tracks(60), lost(published_unix_ns=5_000 * MS)])


def test_heartbeats_do_not_count() -> None:
    out = io.StringIO()
    messages: Iterator[Tracks | Heartbeat] = iter([lost(1), tracks(0), lost(2), tracks(1), tracks(2)])
    assert live_table(messages, Console(file=out), count=2) == 2
    assert next(messages).frame_id == 2


class Silences:
    """In place of a subscription: each None is a time-out."""

    address = "tcp://robot:5555"

    def __init__(self, *messages: int | None) -> None:
        self.timeout_ms: int | None = None
        self.waited_ms = 0
        self._messages = iter(messages)

    def __next__(self) -> int:
        message = next(self._messages)
        if message is None:
            assert self.timeout_ms is not None
            self.waited_ms += self.timeout_ms
            raise TimeoutError
        return message


def hear(
    *messages: int | None, timeout_s: float | None = None, again: bool = False
) -> tuple[list[int], list[str], int]:
    """What is heard, what is said, and how long was waited in vain."""
    stream: Any = Silences(*messages)
    heard: list[int] = []
    said: list[str] = []
    try:
        told = patient(stream, timeout_s=timeout_s, why=lambda: "nobody is there", report=said.append, again=again)
        for message in told:
            heard.append(message)
    except OnlineTapirError as error:
        said.append(str(error))
    return heard, said, stream.waited_ms


def test_a_silence_at_the_start_is_explained_once_and_waited_for() -> None:
    assert hear(None, None, None, 1, None, None, 2) == ([1, 2], ["nobody is there"], 5 * HINT_MS)


def test_a_silence_after_the_first_message_is_left_to_the_heartbeats() -> None:
    assert hear(1, None, None, 2) == ([1, 2], [], 2 * HINT_MS)


def test_who_hears_heartbeats_is_told_of_every_silence() -> None:
    one = "nobody is there"
    assert hear(1, None, 2, None, 3, again=True) == ([1, 2, 3], [one, one], HINT_MS + 2 * HINT_MS), "longer than before"


def test_a_listener_gives_up_after_its_time_and_says_why() -> None:
    given_up = "nothing from tcp://robot:5555 in {} s: nobody is there"
    assert hear(None, None, None, timeout_s=7) == ([], ["nobody is there", given_up.format(7)], 7000)
    assert hear(1, None, timeout_s=0.1) == ([1], [given_up.format(0.1)], 100)
