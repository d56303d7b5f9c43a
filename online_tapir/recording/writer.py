"""Records a run, one step of the tracker after another; slow, so it runs behind a `WriterSink`."""

import zlib
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from online_tapir.errors import PublishError
from online_tapir.recording.codecs import DEFAULT_CODEC, CodecName
from online_tapir.recording.steps import NOMINAL_FPS, Source, TrackedFrame, free_bytes, leave_room
from online_tapir.recording.tables import TABLES, Manifest, Settings, TableWriter, table_path
from online_tapir.recording.video import VIDEO, VideoWriter
from online_tapir.records import Label, Queries, Tracks


class RecordingWriter:
    """Writes a recording (see `tables`) into `folder`, which must be new or empty.

    A frame is recorded once its row is in `frames`, which is written last. If no frame comes, the folder is removed.
    `free_bytes` returns the free disk space. Raises PublishError if the folder cannot be created or is not empty, or
    if the disk is full.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        codec: CodecName = DEFAULT_CODEC,
        *,
        free_bytes: Callable[[Path], int] = free_bytes,
    ) -> None:
        self.folder = folder
        self._free_bytes = free_bytes
        self._video: VideoWriter | None = None
        self._called: dict[int, Label] = {}  # by id, as it was written last
        self._manifest = Manifest(program=_program(), settings=settings, codec=codec)
        with ExitStack() as opened:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                if any(folder.iterdir()):
                    raise PublishError(f"cannot record into {folder}: it is not empty; name a new folder")
                self._check_room()
                self._frames, self._tracks, self._queries, self._labels = (
                    opened.enter_context(closing(TableWriter(folder, name)))
                    for name in ("frames", "tracks", "queries", "labels")
                )
            except OSError as error:
                raise PublishError(f"cannot record into {folder}: {error.strerror or error}") from error
            self._opened = opened.pop_all()

    def _check_room(self) -> None:
        try:
            leave_room(self.folder, 0, self._free_bytes)
        except PublishError as error:
            self.folder.rmdir()
            raise PublishError(f"cannot record into {self.folder}: {error}") from error

    def begin(self, source: Source) -> None:
        self._manifest = replace(self._manifest, camera=source)

    def write(self, step: TrackedFrame) -> None:
        leave_room(self.folder, 2 * step.frame.rgb.nbytes, self._free_bytes)
        video = self._video or self._open(step)
        frame, tracks = step.frame, step.tracks
        video.write(frame.rgb)
        count = len(tracks.ids)
        self._tracks.append(
            np.full(count, frame.id),
            np.full(count, frame.captured_ns),
            np.full(count, frame.captured_unix_ns),
            tracks.ids,
            tracks.xy[:, 0],
            tracks.xy[:, 1],
            tracks.visible,
            tracks.occlusion,
            tracks.uncertainty,
        )
        for queries in step.named:
            self._write_queries(queries, tracks)
        self._write_labels(tracks)
        self._frames.append(
            [frame.id],
            [frame.captured_ns],
            [frame.captured_unix_ns],
            [tracks.width],
            [tracks.height],
            [tracks.dropped],
            [step.unrecorded],
            [zlib.crc32(np.ascontiguousarray(frame.rgb).data)],
            [tracks.model_frame_id],
        )

    def close(self, end: str, unrecorded: int = 0) -> None:
        with self._opened:
            if self._video is not None:
                replace(self._manifest, end=end, unrecorded=unrecorded).write(self.folder)
        if self._video is None:
            for name in TABLES:
                table_path(self.folder, name).unlink()
            self.folder.rmdir()

    def _open(self, step: TrackedFrame) -> VideoWriter:
        height, width = step.frame.rgb.shape[:2]
        fps = self._manifest.camera.fps or NOMINAL_FPS
        self._video = VideoWriter(self.folder / VIDEO, self._manifest.codec, fps, width, height)
        self._opened.callback(self._video.close)
        self._manifest = replace(self._manifest, model=step.tracks.model, width=width, height=height)
        settings = replace(self._manifest.settings, input=step.tracks.input or None)
        self._manifest = replace(self._manifest, settings=settings)
        self._manifest.write(self.folder)
        return self._video

    def _write_queries(self, queries: Queries, tracks: Tracks) -> None:
        """Leaves out points that were removed before they had a track."""
        answered = np.isin(queries.ids, tracks.ids)
        if not answered.any():
            return
        count = int(answered.sum())
        labels = [queries.labels.get(id, Label()) for id in queries.ids[answered].tolist()]
        self._queries.append(
            queries.ids[answered],
            queries.xy[answered, 0],
            queries.xy[answered, 1],
            np.full(count, queries.frame_id),
            np.full(count, tracks.frame_id),
            [label.name for label in labels],
            [label.group for label in labels],
        )

    def _write_labels(self, tracks: Tracks) -> None:
        """Writes what points are called from this frame on, where that has changed."""
        now = {id: tracks.labels.get(id, Label()) for id in tracks.ids.tolist()}
        changed = {id: label for id, label in now.items() if label != self._called.get(id, Label())}
        self._called = {id: label for id, label in now.items() if label != Label()}
        if changed:
            self._labels.append(
                [tracks.frame_id] * len(changed),
                list(changed),
                [label.name for label in changed.values()],
                [label.group for label in changed.values()],
                [label.color for label in changed.values()],
            )


def _program() -> str:
    try:
        return version("online-tapir")
    except PackageNotFoundError:  # run from a checkout
        return ""
