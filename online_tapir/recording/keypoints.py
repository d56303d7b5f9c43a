"""A table of the points in the layout of DeepLabCut, so that scripts made for it run: one row a frame.

Columns are (scorer, bodyparts, coords) with coords x, y and likelihood; with groups they are (scorer, individuals,
bodyparts, coords), as for several animals. A body part is a point's name, or `point7` where it has none. x and y are
pixels with (0, 0) the centre of the first pixel, as there: half a pixel less than everywhere else in this project. The
likelihood is the probability that the point is visible and its position right; a hidden point keeps a position and has
a low one. A point that does not live on a frame has no values there.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from online_tapir.errors import ConfigError, PublishError
from online_tapir.files import replacing
from online_tapir.recording.steps import Source, TrackedFrame
from online_tapir.records import Label

if TYPE_CHECKING:
    import pandas as pd

SCORER = "online-tapir"
COORDS = ("x", "y", "likelihood")
SUFFIXES = (".csv", ".parquet")
ALONE = "single"  # the individual of points without a group, beside others that have one


class KeypointTable:
    """Writes one file at the end, replacing an existing one (a `Writer`, for `WriterSink`).

    Raises ConfigError for another kind of file and without pandas, PublishError where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"--save-csv {path}: give a name that ends in {' or '.join(SUFFIXES)}")
        try:
            import pandas  # noqa: F401
        except ModuleNotFoundError as error:
            raise ConfigError("--save-csv needs pandas; run `pip install 'online-tapir[keypoints]'`") from error
        if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            raise PublishError(f"cannot write {path}: {path.parent} is not a writable folder")
        self._path = path
        self._frames: list[int] = []
        self._rows: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []  # ids [N], values [N, 3] of each frame
        self._labels: dict[int, Label] = {}  # the newest of every point that ever had one

    def begin(self, source: Source) -> None:
        """Every source has the same table."""

    def write(self, step: TrackedFrame) -> None:
        tracks = step.tracks
        likelihood = (1 - tracks.occlusion) * (1 - tracks.uncertainty)
        self._frames.append(tracks.frame_id)
        self._rows.append((tracks.ids, np.column_stack([tracks.xy - 0.5, likelihood]).astype(np.float32)))
        self._labels |= tracks.labels

    def close(self, end: str, unrecorded: int = 0) -> None:
        if not self._frames:
            return
        table = self._table()
        with replacing(self._path) as partial:
            if self._path.suffix.lower() == ".csv":
                table.to_csv(partial, float_format="%.4f")
            else:
                table.to_parquet(partial, engine="pyarrow")

    def _table(self) -> "pd.DataFrame":
        import pandas as pd

        ids = np.unique(np.concatenate([ids for ids, _ in self._rows]))
        values = np.full((len(self._rows), len(ids), len(COORDS)), np.nan, np.float32)
        for row, (present, found) in enumerate(self._rows):
            values[row, np.searchsorted(ids, present)] = found
        columns, names = columns_of(ids.tolist(), self._labels)
        index = pd.Index(self._frames, name=None)
        return pd.DataFrame(values.reshape(len(self._rows), -1), index, pd.MultiIndex.from_tuples(columns, names=names))


def columns_of(ids: list[int], labels: Mapping[int, Label]) -> tuple[list[tuple[str, ...]], list[str]]:
    """The columns of points, three for each, and what their levels are called; every column has its own name."""
    parts: list[tuple[str, str]] = []
    for id in ids:
        label = labels.get(id, Label())
        part = (label.group or ALONE, label.name or f"point{id}")
        parts.append(part if part not in parts else (part[0], f"{part[1]}-{id}"))  # a name may be used again later
    grouped = any(group != ALONE for group, _ in parts)
    names = ["scorer", *(["individuals"] if grouped else []), "bodyparts", "coords"]
    columns = [(SCORER, *((group,) if grouped else ()), name, coord) for group, name in parts for coord in COORDS]
    return columns, names
