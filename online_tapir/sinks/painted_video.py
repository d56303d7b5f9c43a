"""A video for sharing: each frame with its points, trails and rings painted on (see `painting`), as H.264 in .mp4.

The video of a live source plays in real time: it repeats the last frame where frames were dropped, and leaves out
frames that come too soon for its rate.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from online_tapir.drawing.look import DEFAULT_COLOR, ColorMode
from online_tapir.drawing.painting import Palette, Trails, paint_tracks
from online_tapir.errors import ConfigError, PublishError
from online_tapir.recording.mp4 import Mp4Writer
from online_tapir.recording.steps import NOMINAL_FPS, Source, TrackedFrame, leave_room
from online_tapir.recording.video import Picture
from online_tapir.records import Tracks

LONGEST_STILL_S = 5.0  # longer gaps are shortened to this


class PaintedVideo:
    """Writes one file, replacing an existing one (a `Writer`, for `WriterSink`). Raises ConfigError or PublishError."""

    def __init__(self, path: Path, color: ColorMode = DEFAULT_COLOR) -> None:
        if path.suffix.lower() != ".mp4":
            raise ConfigError(f"--save-video {path}: the painted video is an MP4 file; give a name that ends in .mp4")
        if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            raise PublishError(f"cannot write {path}: {path.parent} is not a writable folder")
        self._path = path
        self._source = Source()
        self._trails = Trails()
        self._palette = Palette(color)
        self._video: Mp4Writer | None = None
        self._last: Picture = np.zeros((0, 0, 3), np.uint8)
        self._due_ns = 0  # when the video's next picture is due, on the clock that stamps frames

    def begin(self, source: Source) -> None:
        self._source = source

    def write(self, step: TrackedFrame) -> None:
        leave_room(self._path.parent, step.frame.rgb.nbytes)
        tracks = self._timed(step.tracks)
        painted = paint_tracks(step.frame.rgb, tracks, self._palette.colors(tracks), self._trails.follow(tracks))
        video = self._video or self._open(step)
        late = self._late(step.frame.captured_ns) if self._source.live else 0
        if late < 0:
            return
        for _ in range(min(late, round(LONGEST_STILL_S * self._fps))):
            video.write(self._last)
        video.write(painted)
        self._last = painted
        self._due_ns += round((late + 1) * 1e9 / self._fps)

    def close(self, end: str, unrecorded: int = 0) -> None:
        if self._video is not None:
            self._video.close()

    def _open(self, step: TrackedFrame) -> Mp4Writer:
        height, width = step.frame.rgb.shape[:2]
        self._video = Mp4Writer(self._path, self._fps, width, height)
        self._due_ns = step.frame.captured_ns
        return self._video

    @property
    def _fps(self) -> float:
        return self._source.fps or NOMINAL_FPS

    def _timed(self, tracks: Tracks) -> Tracks:
        """Replaces the capture time of a file by video time, so that trails last a second in the video, too."""
        if self._source.live:
            return tracks
        return replace(tracks, captured_ns=round(tracks.frame_id * 1e9 / self._fps))

    def _late(self, captured_ns: int) -> int:
        """How many pictures of the video a frame is late; negative if early."""
        return round((captured_ns - self._due_ns) * self._fps / 1e9)
