"""The files in a recording's folder: one manifest, one video, four tables. Nothing here tracks or decodes.

    manifest.json    what was recorded and how (version 1); `end` says how it ended, null if it was cut off
    video.avi        one picture per row of `frames`, in the same order (see `video`)
    frames.arrows    one row per frame
    tracks.arrows    one row per point and frame; one record batch per row of `frames`
    queries.arrows   one row per named point
    labels.arrows    one row whenever a point gets another name, group or colour; not in recordings of older programs

The tables are Arrow IPC streams. Unlike a Parquet file they need no footer, so a truncated one is readable up to the
cut. `pyarrow.ipc.open_stream`, pandas, polars and DuckDB read them; `read_table` here reads truncated ones, too.

x and y are image pixels, (0, 0) the corner of the first pixel. `captured_ns` is on the capturing machine's monotonic
clock, `captured_unix_ns` on its wall clock.
"""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from online_tapir.errors import ConfigError
from online_tapir.files import replacing
from online_tapir.recording.steps import Source

FORMAT, VERSION = "online-tapir/recording", 1
MANIFEST = "manifest.json"
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # the last bytes of an Arrow IPC stream that was closed

_MOMENT = [("frame_id", pa.int64()), ("captured_ns", pa.int64()), ("captured_unix_ns", pa.int64())]

TABLES = {
    "frames": pa.schema(
        [
            *_MOMENT,
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("dropped", pa.int64()),  # by the source, so far in total
            ("unrecorded", pa.int64()),  # tracked but not recorded because writing was too slow, so far in total
            ("crc32", pa.uint32()),  # of the RGB bytes as tracked
            ("model_frame_id", pa.int64()),  # the frame that the model last saw; null in recordings from before flow
        ]
    ),
    "tracks": pa.schema(
        [
            *_MOMENT,
            ("id", pa.int32()),
            ("x", pa.float32()),
            ("y", pa.float32()),
            ("visible", pa.bool_()),
            ("occlusion", pa.float32()),  # probability that the point is hidden
            ("uncertainty", pa.float32()),  # probability that its position is off
        ]
    ),
    "queries": pa.schema(
        [
            ("id", pa.int32()),
            ("x", pa.float32()),
            ("y", pa.float32()),
            ("frame_id", pa.int64()),  # of the frame it was named on
            ("answered_frame_id", pa.int64()),  # of the first frame with its track
            ("name", pa.string()),  # "" for none; null, like the group, in recordings from before names
            ("group", pa.string()),
        ]
    ),
    "labels": pa.schema(
        [
            ("frame_id", pa.int64()),  # from which on it holds
            ("id", pa.int32()),
            ("name", pa.string()),  # "" for none
            ("group", pa.string()),
            ("color", pa.int32()),  # 0xRRGGBB; null: chosen by the program that draws
        ]
    ),
}
# Of the first version; later ones add columns behind them.
LEAST_COLUMNS = {"frames": 8, "tracks": 9, "queries": 5, "labels": 5}
ADDED_LATER = {"labels"}  # tables that older recordings lack


CALIBRATED = "calibrated"  # `Settings.objects` where groups were followed through a lens, by --calibration


@dataclass(frozen=True, slots=True)
class Settings:
    """The tracker's settings, named like the flags; None means the default of the flag."""

    model: str = "small"
    weights: str | None = None
    dtype: str = "float32"
    iterations: int | None = None
    visible_above: float | None = None
    resolution: str | None = None
    input: str | None = None  # width x height that was chosen; None: the model's own
    engine: str = "torch"
    precision: str = "auto"
    max_points: int = 256
    window: int = 32
    threads: int | None = None
    objects: str = "off"  # the motion by which groups of points were followed as things, or CALIBRATED

    def changed(self, **given: Any) -> "Settings":
        """A copy with the given values that are not None; a given model resets weights and iterations."""
        own = self if given.get("model") is None else replace(self, weights=None, iterations=None)
        return replace(own, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was recorded, and how."""

    settings: Settings
    codec: str
    program: str = ""  # version of online-tapir
    camera: Source = field(default_factory=Source)
    model: str = ""  # the model's own name
    width: int = 0
    height: int = 0
    end: str | None = None  # None: it was cut off
    unrecorded: int = 0

    def write(self, folder: Path) -> None:
        """Writes the manifest atomically. Raises OSError."""
        text = json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1, ensure_ascii=False)
        with replacing(folder / MANIFEST) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads a manifest. Raises ConfigError for a folder that is not a recording, or one of another version."""
        path = folder / MANIFEST
        try:
            body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{folder} is not a recording: {path.name} cannot be read ({error})") from error
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            raise ConfigError(f"{folder} is not a recording: {path.name} is not of the format {FORMAT}")
        if body.get("version") != VERSION:
            raise ConfigError(f"{folder} is a recording of version {body.get('version')}, this program reads {VERSION}")
        try:
            body["camera"] = _record(Source, body["camera"])
            body["settings"] = _record(Settings, body["settings"])
            manifest: Manifest = _record(cls, body)
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{folder} is a damaged recording: {path.name} is incomplete ({error})") from error
        return manifest


class TableWriter:
    """Appends to one of `TABLES`; written rows stay readable even if this process dies. Raises OSError."""

    def __init__(self, folder: Path, name: str) -> None:
        self.schema = TABLES[name]
        self._file = pa.OSFile(os.fspath(table_path(folder, name)), "wb")  # unbuffered
        try:
            self._stream = pa.ipc.new_stream(self._file, self.schema)
        except BaseException:
            self._file.close()
            raise

    def append(self, *columns: Any) -> None:
        """Appends one record batch; columns are arrays or sequences of equal length, in the order of the schema."""
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)]
        self._stream.write_batch(pa.record_batch(arrays, schema=self.schema))

    def close(self) -> None:
        with closing(self._file):
            self._stream.close()


def table_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.arrows"


def is_whole(folder: Path, name: str) -> bool:
    """Whether the table `name` was closed: one that was cut has lost its end-of-stream marker."""
    try:
        with table_path(folder, name).open("rb") as file:
            file.seek(-len(END_OF_STREAM), os.SEEK_END)
            return file.read() == END_OF_STREAM
    except OSError:  # it is missing, or shorter than the marker
        return False


def is_there(folder: Path, name: str) -> bool:
    """Whether the table `name` is there, as it must be unless it was added to later versions."""
    return name not in ADDED_LATER or table_path(folder, name).exists()


def read_table(folder: Path, name: str) -> pa.Table:
    """The table `name` of a recording, up to where it was cut off. Raises ConfigError if there is no such table."""
    return pa.Table.from_batches(batches(folder, name), TABLES[name])


def batches(folder: Path, name: str) -> Iterator[pa.RecordBatch]:
    """Yields the record batches of a table as they were written, up to where it was cut off. Raises ConfigError."""
    path = table_path(folder, name)
    try:
        file = pa.OSFile(os.fspath(path), "rb")
    except OSError as error:
        raise ConfigError(f"{folder} is a damaged recording: there is no {path.name} ({error})") from error
    with file:
        try:
            stream = pa.ipc.open_stream(file)
        except (pa.ArrowInvalid, OSError):  # cut before its first row
            return
        written, wanted = stream.schema, TABLES[name]
        if not written.equals(pa.schema(list(wanted)[: max(len(written), LEAST_COLUMNS[name])])):
            raise ConfigError(f"{path} has other columns than version {VERSION} of a recording")
        while True:
            try:
                batch = stream.read_next_batch()
            except (StopIteration, pa.ArrowInvalid, OSError):  # the end, or the cut
                return
            missing = [pa.nulls(batch.num_rows, field.type) for field in list(wanted)[len(written) :]]
            yield pa.record_batch([*batch.columns, *missing], schema=wanted) if missing else batch


def _record(kind: type[Any], body: dict[str, Any]) -> Any:
    """Builds a `kind` from the known keys of `body`; a later version may have written more."""
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in body.items() if name in known})
