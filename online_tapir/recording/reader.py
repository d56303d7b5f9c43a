"""Reads a recording step by step, up to where it was cut off."""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from online_tapir.errors import ConfigError
from online_tapir.recording.steps import TrackedFrame
from online_tapir.recording.tables import TABLES, Manifest, batches, is_there, is_whole, read_table, table_path
from online_tapir.recording.video import LOSSLESS, VIDEO, read_video
from online_tapir.records import Frame, Label, Queries, Tracks


@dataclass(frozen=True, slots=True, eq=False)
class RecordedStep(TrackedFrame):
    """A recorded step; `exact` if its picture is bit-identical to the tracked one."""

    exact: bool = True


class Recording:
    """The recording in `folder`. Raises ConfigError if it is not a recording, or one of another version."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.read(self.folder)

    def __len__(self) -> int:
        """Frames with a row; the last ones of a recording that was cut off may have no picture."""
        return sum(batch.num_rows for batch in batches(self.folder, "frames"))

    def cut_tables(self) -> list[str]:
        """The file names of tables that are cut although the manifest says that the recording was finished."""
        if self.manifest.end is None:
            return []
        there = [name for name in TABLES if is_there(self.folder, name)]
        return [table_path(self.folder, name).name for name in there if not is_whole(self.folder, name)]

    def steps(self) -> Iterator[RecordedStep]:
        """Yields every frame that has a picture, a row and tracks. Raises CameraError if there is no video."""
        manifest = self.manifest
        named, called = self._queries_by_answer(), self._labels_by_frame()
        labels: dict[int, Label] = {}
        tables = zip(batches(self.folder, "frames"), batches(self.folder, "tracks"), strict=False)  # one is cut earlier
        with closing(read_video(self.folder / VIDEO, manifest.width, manifest.height)) as pictures:
            for (moment, points), rgb in zip(tables, pictures, strict=False):
                row = moment.to_pylist()[0]
                frame = Frame(row["frame_id"], row["captured_ns"], row["captured_unix_ns"], rgb)
                exact = row["crc32"] == zlib.crc32(rgb.data)
                if not exact and manifest.end is None and manifest.codec in LOSSLESS:
                    return  # the picture in which it was cut off
                if (points["frame_id"].to_numpy() != frame.id).any():
                    raise ConfigError(f"{self.folder} is a damaged recording: its tables disagree at frame {frame.id}")
                for queries in named.get(frame.id, ()):
                    labels |= queries.labels
                labels |= called.get(frame.id, {})
                tracks = _tracks(frame, points, row, manifest, labels)
                yield RecordedStep(frame, tracks, named.get(frame.id, ()), row["unrecorded"], exact)

    def _queries_by_answer(self) -> dict[int, list[Queries]]:
        """The named points, keyed by the first frame with their tracks, in the order of their ids."""
        table = read_table(self.folder, "queries")
        ids, answered, named = (table[name].to_numpy() for name in ("id", "answered_frame_id", "frame_id"))
        texts = zip(table["name"].to_pylist(), table["group"].to_pylist(), strict=True)
        labels = [Label(name or "", group or "") for name, group in texts]
        xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)  # [P, 2]
        changes = np.flatnonzero((np.diff(answered) != 0) | (np.diff(named) != 0)) + 1
        queries: dict[int, list[Queries]] = {}
        for rows in np.split(np.arange(len(ids)), changes):
            if len(rows):
                first = rows[0]
                told = {int(ids[row]): labels[row] for row in rows if labels[row] != Label()}
                found = Queries(ids[rows], xy[rows], int(named[first]), told)
                queries.setdefault(int(answered[first]), []).append(found)
        return queries

    def _labels_by_frame(self) -> dict[int, dict[int, Label]]:
        """What points are called from a frame on, keyed by it and by their ids."""
        found: dict[int, dict[int, Label]] = {}
        if is_there(self.folder, "labels"):
            for row in read_table(self.folder, "labels").to_pylist():
                label = Label(row["name"], row["group"], row["color"])
                found.setdefault(row["frame_id"], {})[row["id"]] = label
        return found


def _tracks(
    frame: Frame, points: pa.RecordBatch, row: dict[str, Any], manifest: Manifest, labels: Mapping[int, Label]
) -> Tracks:
    def column(name: str) -> NDArray[Any]:
        values: NDArray[Any] = points[name].to_numpy(zero_copy_only=False)
        return values

    called = {id: labels[id] for id in column("id").tolist() if labels.get(id, Label()) != Label()}
    return Tracks(
        frame_id=frame.id,
        captured_ns=frame.captured_ns,
        captured_unix_ns=frame.captured_unix_ns,
        width=manifest.width,
        height=manifest.height,
        ids=column("id"),
        xy=np.stack([column("x"), column("y")], axis=1),
        visible=column("visible"),
        occlusion=column("occlusion"),
        uncertainty=column("uncertainty"),
        dropped=row["dropped"],
        model_frame_id=frame.id if row["model_frame_id"] is None else row["model_frame_id"],
        camera=manifest.camera.name,
        model=manifest.model,
        labels=called,
    )
