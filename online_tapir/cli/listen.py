"""`online-tapir listen`: shows a stream of tracks as a live table, JSON lines or CSV.

Each output function takes any iterable of `Tracks`, stops after `count` of them if given, and returns how many it saw.
The writers end quietly when their reader closes the pipe (`| head`).
"""

import csv
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeVar

from cyclopts import Parameter
from cyclopts.validators import Number
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from online_tapir.errors import ConfigError, OnlineTapirError
from online_tapir.live.status import Rolling
from online_tapir.records import Label, Tracks
from online_tapir.wire.messages import DEFAULT_ADDRESS, Heartbeat

if TYPE_CHECKING:
    from online_tapir.wire.fleet import FleetSubscription
    from online_tapir.wire.subscriber import Subscription

Message = TypeVar("Message", bound=Tracks | Heartbeat)

POINT_COLUMNS = ("id", "x", "y", "visible", "occlusion", "uncertainty")
CSV_COLUMNS = ("camera", "frame_id", "captured_unix_ns", *POINT_COLUMNS)
REFRESH_NS = 100_000_000
HINT_MS = 3000  # of silence at the start before the reason is diagnosed
XY_DECIMALS, PROBABILITY_DECIMALS = 3, 4


def live_table(
    stream: Iterable[Tracks | Heartbeat],
    console: Console,
    *,
    count: int | None = None,
    unix_ns: Callable[[], int] = time.time_ns,
) -> int:
    """Shows a table of each camera's newest points. Latency is capture to receipt: both hosts' clocks must agree.

    A heartbeat says why a camera is silent; it is not counted.
    """
    heard: dict[str, Heard] = {}
    seen, shown_ns = 0, 0
    with Live(console=console, auto_refresh=False) as live:
        for message in stream if count != 0 else ():
            now_ns = unix_ns()
            one = heard.setdefault(message.camera, Heard(message.camera))
            if isinstance(message, Heartbeat):
                one.beat(message)
            else:
                one.add(now_ns, message)
                seen += 1
            if now_ns - shown_ns >= REFRESH_NS or seen == count:
                shown_ns = now_ns
                rows = max((console.height - 6 * len(heard)) // len(heard), 1)
                live.update(Group(*(one.show(rows) for one in heard.values())), refresh=True)
            if seen == count:
                break
    return seen


def patient(
    stream: "Subscription[Message] | FleetSubscription[Message]",
    *,
    timeout_s: float | None,
    why: Callable[[], str],
    report: Callable[[str], object],
    again: bool = False,
) -> Iterator[Message]:
    """The messages of `stream`; reports once why the first does not come, and with `again` why no further one does.

    `again` is for a stream with heartbeats; a silence is reported when it lasts twice as long as the longest before.
    Raises OnlineTapirError, with the reason, when none has come for `timeout_s`.
    """
    allowed_ms = None if timeout_s is None else max(int(timeout_s * 1000), 1)
    silent_ms, hinted, longest_ms = 0, False, 0
    while True:
        patience_ms = max(HINT_MS, 2 * longest_ms)
        stream.timeout_ms = patience_ms if allowed_ms is None else min(patience_ms, allowed_ms - silent_ms)
        try:
            message = next(stream)
        except StopIteration:
            return
        except TimeoutError as error:
            silent_ms += stream.timeout_ms
            if silent_ms == allowed_ms:
                raise OnlineTapirError(f"nothing from {stream.address} in {timeout_s:g} s: {why()}") from error
            if not hinted:
                report(why())
            hinted = True
        else:
            longest_ms = max(longest_ms, silent_ms) if again else 0
            silent_ms, hinted = 0, not again
            yield message


def write_jsonl(stream: Iterable[Tracks], out: TextIO, *, count: int | None = None) -> int:
    """Writes one JSON object per frame, with a list of points; x and y are image pixels, non-finite values are null.

    A point has `name` and `group` where it was given one.
    """
    seen = 0
    with _quiet_when_reader_leaves(out):
        for tracks in islice(stream, count):
            out.write(json.dumps(_as_json(tracks), ensure_ascii=False, allow_nan=False) + "\n")
            out.flush()
            seen += 1
    return seen


def write_csv(stream: Iterable[Tracks], out: TextIO, *, count: int | None = None) -> int:
    """Writes a header, then one row per point of each frame; x and y are image pixels, visible is 0 or 1."""
    seen = 0
    with _quiet_when_reader_leaves(out):
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for tracks in islice(stream, count):
            header = (tracks.camera, tracks.frame_id, tracks.captured_unix_ns)
            writer.writerows((*header, *row[:3], int(row[3]), *row[4:]) for row in _rows(tracks))
            out.flush()
            seen += 1
    return seen


class Heard:
    """What has been received from one camera."""

    def __init__(self, camera: str) -> None:
        self._camera = camera or "camera"
        self._latency_ms = Rolling()
        self._missing = 0
        self._last: Tracks | None = None
        self._silence: Heartbeat | None = None  # since the last tracks

    def add(self, now_ns: int, tracks: Tracks) -> None:
        if self._last is not None and tracks.frame_id > self._last.frame_id:  # otherwise the source restarted
            self._missing += tracks.frame_id - self._last.frame_id - 1
        self._latency_ms.add(now_ns, (now_ns - tracks.captured_unix_ns) / 1e6)
        self._last, self._silence = tracks, None

    def beat(self, heartbeat: Heartbeat) -> None:
        if self._last is None or heartbeat.published_unix_ns >= self._last.published_unix_ns:  # or else outdated
            self._silence = heartbeat

    def show(self, most_rows: int) -> Group:
        """A line about the stream above a table of its points."""
        tracks = self._last
        if tracks is None:
            return Group(Text(f"{self._camera}: no tracks yet{self._state()}", style="bold yellow"))
        table = Table(box=box.SIMPLE_HEAD)
        for column in POINT_COLUMNS:
            table.add_column(column, justify="right")
        for id_, x, y, visible, occlusion, uncertainty in islice(_rows(tracks), most_rows):
            shown, style = ("yes", "") if visible else ("no", "dim")
            chances = (f"{occlusion:.2f}", f"{uncertainty:.2f}")
            table.add_row(Text(tracks.called(id_)), f"{x:.1f}", f"{y:.1f}", shown, *chances, style=style)
        if len(tracks.ids) > most_rows:
            table.caption = f"and {len(tracks.ids) - most_rows} more"
        style = "bold cyan" if self._silence is None else "bold yellow"
        return Group(Text(self._headline(tracks), style=style, no_wrap=True, overflow="ellipsis"), table)

    def _state(self) -> str:
        return "" if self._silence is None else f" · {self._silence.state} for {self._silence.seconds:.0f} s"

    def _headline(self, tracks: Tracks) -> str:
        return (
            f"{self._camera} #{tracks.frame_id}{self._state()} {tracks.width}x{tracks.height} · "
            f"{self._latency_ms.rate():.1f} fps · latency {self._latency_ms.percentile(50):.1f} ms · "
            f"{int(tracks.visible.sum())}/{len(tracks.ids)} visible · "
            f"{self._missing} missing · {tracks.dropped} dropped by the source"
            + (f" · {tracks.search}" if tracks.searching else "")
        )


def _rows(tracks: Tracks) -> Iterator[tuple[int, float, float, bool, float, float]]:
    """Each point's `POINT_COLUMNS`."""
    xy = tracks.xy.astype(float).round(XY_DECIMALS)
    columns = (
        tracks.ids,
        xy[:, 0],
        xy[:, 1],
        tracks.visible,
        tracks.occlusion.astype(float).round(PROBABILITY_DECIMALS),
        tracks.uncertainty.astype(float).round(PROBABILITY_DECIMALS),
    )
    return zip(*(column.tolist() for column in columns), strict=True)


def _as_json(tracks: Tracks) -> dict[str, Any]:
    points: list[dict[str, Any]] = [
        {key: value if math.isfinite(value) else None for key, value in zip(POINT_COLUMNS, row, strict=True)}
        for row in _rows(tracks)
    ]
    for point in points:
        label = tracks.labels.get(point["id"], Label())
        point |= {key: text for key, text in (("name", label.name), ("group", label.group)) if text}
    return {
        "camera": tracks.camera,
        "frame_id": tracks.frame_id,
        "captured_ns": tracks.captured_ns,
        "captured_unix_ns": tracks.captured_unix_ns,
        "published_unix_ns": tracks.published_unix_ns,
        "width": tracks.width,
        "height": tracks.height,
        "dropped": tracks.dropped,
        "model": tracks.model,
        "model_frame_id": tracks.model_frame_id,
        "points": points,
    }


@contextmanager
def _quiet_when_reader_leaves(out: TextIO) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        with open(os.devnull, "w") as nowhere:  # or the interpreter complains when it flushes at exit
            os.dup2(nowhere.fileno(), out.fileno())


def listen(
    address: str = DEFAULT_ADDRESS,
    *,
    fleet: Annotated[
        str | None, Parameter(help="Instead of one tracker: the cameras of the fleet whose directory is at HOST:PORT.")
    ] = None,
    camera: Annotated[str | None, Parameter(help="Only this camera's tracks.", show_env_var=False)] = None,
    newest: Annotated[bool, Parameter(help="Skip all but the newest message.", negative=())] = False,
    jsonl: Annotated[
        bool, Parameter(help="JSON lines on the standard output instead of the table.", negative=())
    ] = False,
    csv: Annotated[bool, Parameter(help="CSV on the standard output instead of the table.", negative=())] = False,
    count: Annotated[int | None, Parameter(help="Stop after this many messages.", validator=Number(gte=1))] = None,
    timeout: Annotated[float | None, Parameter(help="Give up after this many seconds without a message.")] = None,
    keys: Annotated[
        Path | None, Parameter(help="Key folder (see `online-tapir keys`), if the tracker requires keys.")
    ] = None,
) -> None:
    """Show what a running tracker publishes, as a live table, JSON lines or CSV."""
    from online_tapir.wire.diagnosis import why_fleet_silent, why_silent
    from online_tapir.wire.subscriber import subscribe

    if jsonl and csv:
        raise ConfigError("--jsonl and --csv exclude each other; give one of them")
    if fleet is None:
        tracks: Callable[..., Any] = partial(subscribe, address, camera, newest=newest, keys=keys)
    else:
        cameras = None if camera is None else [camera]
        tracks = partial(subscribe, fleet=fleet, cameras=cameras, newest=newest, keys=keys)

    def why() -> str:
        return why_silent(address, camera, keys) if fleet is None else why_fleet_silent(fleet, camera, keys)

    with suppress(KeyboardInterrupt):
        table = not (jsonl or csv)
        console = Console(stderr=not table)
        report = partial(console.print, markup=False, highlight=False, soft_wrap=True)
        with closing(tracks(heartbeats=table)) as stream:
            messages = patient(stream, timeout_s=timeout, why=why, report=report, again=table)
            if table:
                live_table(messages, console, count=count)
            else:
                (write_jsonl if jsonl else write_csv)(messages, sys.stdout, count=count)
