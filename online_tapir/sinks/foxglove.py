"""Shows a run in Foxglove, live or as an MCAP file: the picture, points as annotations on it, objects, times.

For each camera three topics: `/CAMERA/image` (foxglove.CompressedImage), `/CAMERA/points` (foxglove.ImageAnnotations)
and `/CAMERA/status` (JSON: counts and latencies). Times are those of the capture. Foxglove's coordinates on a picture
are this project's.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foxglove
import numpy as np
from foxglove import channels
from foxglove import messages as fox
from numpy.typing import NDArray

from online_tapir.drawing.look import DEFAULT_COLOR, ColorMode
from online_tapir.drawing.painting import Palette
from online_tapir.errors import ConfigError, PublishError
from online_tapir.picture import to_jpeg
from online_tapir.recording.steps import Source, TrackedFrame, leave_room
from online_tapir.records import Tracks
from online_tapir.wire.security import THIS_MACHINE, Access, is_local

DEFAULT_HOST = "127.0.0.1"
QUALITY = 85  # of the JPEGs
DOT = 6.0  # pixels, on a picture whose shorter side is 480
TEXT = 12.0
BOX = fox.Color(r=1.0, g=1.0, b=1.0, a=1.0)
STATUS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "frame_id": {"type": "integer"},
        "model_frame_id": {"type": "integer", "description": "the frame that the model last saw of these points"},
        "points": {"type": "integer"},
        "visible": {"type": "integer"},
        "dropped": {"type": "integer", "description": "frames that the source dropped so far"},
        "latency_ms": {"type": "number", "description": "from capture to here"},
    },
}


class Scene:
    """Logs tracked frames to a Foxglove context (a `Writer`, for `WriterSink`)."""

    def __init__(
        self,
        context: foxglove.Context,
        close: Callable[[], object],
        color: ColorMode = DEFAULT_COLOR,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._context = context
        self._close = close
        self._color = color
        self._monotonic_ns = monotonic_ns
        self._topics: dict[str, _Topics] = {}
        self._palettes: dict[str, Palette] = {}

    def begin(self, source: Source) -> None:
        """Opens a camera's topics."""
        self._topics_of(source.name)

    def write(self, step: TrackedFrame) -> None:
        tracks, at = step.tracks, step.tracks.captured_unix_ns
        topics = self._topics_of(tracks.camera)
        stamp = fox.Timestamp(sec=at // 1_000_000_000, nsec=at % 1_000_000_000)
        if topics.image.has_sinks():
            topics.image.log(
                fox.CompressedImage(
                    timestamp=stamp, frame_id=tracks.camera, data=to_jpeg(step.frame.rgb, QUALITY), format="jpeg"
                ),
                log_time=at,
            )
        if topics.points.has_sinks():
            colors = self._palettes[tracks.camera].colors(tracks)
            topics.points.log(annotations(tracks, colors, stamp), log_time=at)
        topics.status.log(status(tracks, self._monotonic_ns()), log_time=at)

    def close(self, end: str, unrecorded: int = 0) -> None:
        self._close()

    def _topics_of(self, camera: str) -> "_Topics":
        if camera not in self._topics:
            self._topics[camera] = _Topics(camera, self._context)
            self._palettes[camera] = Palette(self._color)
        return self._topics[camera]


class _Topics:
    def __init__(self, camera: str, context: foxglove.Context) -> None:
        self.image = channels.CompressedImageChannel(f"/{camera}/image", context=context)
        self.points = channels.ImageAnnotationsChannel(f"/{camera}/points", context=context)
        self.status = foxglove.Channel(f"/{camera}/status", schema=STATUS, context=context)


def annotations(tracks: Tracks, colors: NDArray[np.uint8], stamp: fox.Timestamp) -> fox.ImageAnnotations:
    """Points as dots, hidden ones as rings; the names of those that have one; boxes of the objects that are found."""
    scale = max(0.5, min(tracks.width, tracks.height) / 480)
    circles, texts = [], []
    for id, (x, y), seen, color in zip(tracks.ids.tolist(), tracks.xy.tolist(), tracks.visible, colors, strict=True):
        shade, label = _color(color), tracks.labels.get(id)
        known = {
            "id": str(id),
            "name": "" if label is None else label.name,
            "group": "" if label is None else label.group,
            "state": "visible" if seen else "hidden",
        }
        circles.append(
            fox.CircleAnnotation(
                timestamp=stamp,
                position=fox.Point2(x=x, y=y),
                diameter=DOT * scale,
                thickness=1.5 * scale,
                outline_color=shade,
                fill_color=shade if seen else fox.Color(r=0, g=0, b=0, a=0),
                metadata=[fox.KeyValuePair(key=key, value=value) for key, value in known.items()],
            )
        )
        if label is not None and label.name:
            place = fox.Point2(x=x + DOT * scale, y=y - DOT * scale)
            texts.append(
                fox.TextAnnotation(
                    timestamp=stamp, position=place, text=label.name, font_size=TEXT * scale, text_color=shade
                )
            )
    boxes = []
    for thing in tracks.objects:
        if thing.box is None:
            continue
        boxes.append(
            fox.PointsAnnotation(
                timestamp=stamp,
                type=fox.PointsAnnotationType.LineLoop,
                points=[fox.Point2(x=x, y=y) for x, y in thing.box.tolist()],
                outline_color=BOX,
                thickness=1.5 * scale,
                metadata=[fox.KeyValuePair(key="object", value=thing.name)],
            )
        )
    return fox.ImageAnnotations(timestamp=stamp, circles=circles, points=boxes, texts=texts)


def status(tracks: Tracks, now_ns: int) -> dict[str, int | float]:
    """Counts and latencies of one frame."""
    return {
        "frame_id": tracks.frame_id,
        "model_frame_id": tracks.model_frame_id,
        "points": len(tracks.ids),
        "visible": int(tracks.visible.sum()),
        "dropped": tracks.dropped,
        "latency_ms": round((now_ns - tracks.captured_ns) / 1e6, 3),
    }


def open_server(address: str, color: ColorMode = DEFAULT_COLOR, access: Access = THIS_MACHINE) -> tuple[Scene, str]:
    """A live server on PORT or HOST:PORT, and the address that Foxglove connects to.

    Raises ConfigError for another address, PublishError if it cannot be bound, or if other machines can reach it and
    `access` is not insecure.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or DEFAULT_HOST
    if not (port.isascii() and port.isdecimal() and int(port) < 65_536):
        raise ConfigError(f"--foxglove {address!r} is not a port; write 8765, or HOST:8765")
    if not (access.insecure or is_local(f"tcp://{host}:{port}")):
        raise PublishError(
            f"cannot serve Foxglove on {address}: other machines could watch, and it has no keys; give the port alone, "
            f"or say --insecure to let anyone watch"
        )
    context = foxglove.Context()
    try:
        server = foxglove.start_server(
            name="online-tapir", host=host, port=int(port), context=context, message_backlog_size=64
        )
    except RuntimeError as error:
        raise PublishError(f"cannot serve Foxglove on {address}: {error}") from error
    return Scene(context, server.stop, color), f"ws://{host}:{server.port}"


class McapFile(Scene):
    """Writes an MCAP file. Raises ConfigError for another kind of file, PublishError if it cannot be written."""

    def __init__(self, path: Path, color: ColorMode = DEFAULT_COLOR) -> None:
        if path.suffix.lower() != ".mcap":
            raise ConfigError(f"--mcap {path}: give a name that ends in .mcap")
        context = foxglove.Context()
        try:
            file = foxglove.open_mcap(path, allow_overwrite=True, context=context)
        except (OSError, RuntimeError) as error:
            raise PublishError(f"cannot write {path}: {error}") from error
        super().__init__(context, file.close, color)
        self._folder = path.parent

    def write(self, step: TrackedFrame) -> None:
        leave_room(self._folder, step.frame.rgb.nbytes)
        super().write(step)


def _color(rgb: NDArray[np.uint8]) -> fox.Color:
    red, green, blue = (float(value) / 255 for value in rgb)
    return fox.Color(r=red, g=green, b=blue, a=1.0)
