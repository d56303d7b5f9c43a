"""Strips of a real video, to look at: what trackers tell at its start, in its middle and at its end, one row each.

Real video has no truth; whether points hold is for the eye. The same grid of points is named on the first frame for all
trackers; every point keeps its colour, and hidden ones are rings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number
from numpy.typing import NDArray

from bench.command import BenchError, Count, JsonFile, run
from bench.report import finish
from bench.videos import read
from online_tapir.drawing.painting import Palette, paint_tracks
from online_tapir.evaluation.baselines import DenseFlow, LucasKanadeWithRecovery
from online_tapir.launch.sizes import input_size
from online_tapir.model.checkpoint import load_model
from online_tapir.points.placement import grid_inside
from online_tapir.records import Tracks
from online_tapir.tracking.tracker import Tracker

PEERS: dict[str, Callable[[], Any]] = {"DIS flow": DenseFlow, "LK, recovering": LucasKanadeWithRecovery}
MOMENTS = (0.0, 0.5, 1.0)  # of the video
WIDTH = 480  # pixels of a picture in the strip
GAP = 4
INTERVAL = "no times are measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which video, which points, and which trackers."""

    video: Annotated[Path | None, Parameter(help="A video file.")] = None
    models: Annotated[
        tuple[str, ...], Parameter(help="Presets or .safetensors files.", consume_multiple=True, negative=())
    ] = ("small",)
    input: Annotated[str, Parameter(help="Size that models match at, such as 256x256, or 384 for the longer side.")] = (
        "256x256"
    )
    points: Annotated[int, Parameter(help="Points of the grid, about.", validator=Count)] = 100
    box: Annotated[
        tuple[int, int, int, int] | None, Parameter(help="Left, top, width and height of the grid. [default: all]")
    ] = None
    first: Annotated[int, Parameter(help="Frames to leave out at the start.", validator=Number(gte=0))] = 0
    frames: Annotated[int, Parameter(help="Frames to track, at most.", validator=Count)] = 120
    peers: Annotated[bool, Parameter(help="Also OpenCV's trackers.")] = True


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    out: Annotated[Path, Parameter(help="The strip, .jpg or .png.")] = Path("strips.jpg"),
    json: JsonFile = None,
) -> None:
    """Track a grid of points through a video with every tracker and draw three moments of it."""
    if settings.video is None:
        raise BenchError("--video names no file; give one, for instance of the docs' pictures")
    frames = list(islice(read(settings.video), settings.first, settings.first + settings.frames))
    if len(frames) < len(MOMENTS):
        raise BenchError(f"{settings.video.name} has {len(frames)} frames after the first {settings.first}; name fewer")
    xy = grid(frames[0], settings.points, settings.box)
    makers = {name: model_maker(name, settings.input, frames[0], len(xy)) for name in settings.models}
    makers |= PEERS if settings.peers else {}
    shown = sorted({round(moment * (len(frames) - 1)) for moment in MOMENTS})
    rows, visible = [], {}
    for name, make in makers.items():
        told = followed(make(), frames, xy)
        visible[name] = [int(told[number].visible.sum()) for number in shown]
        rows.append(row(name, frames, told, shown))
        print(f"{name}: {' / '.join(map(str, visible[name]))} of {len(xy)} points visible on frames {shown}")
    if not cv2.imwrite(str(out), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)):
        raise BenchError(f"{out} cannot be written")
    finish("strips", settings, {"frames": shown, "points": len(xy), "visible": visible}, json, interval=INTERVAL)


def grid(rgb: NDArray[np.uint8], points: int, box: tuple[int, int, int, int] | None) -> NDArray[np.float32]:
    """About so many points xy [N, 2] on a square grid in `box`."""
    height, width = rgb.shape[:2]
    left, top, wide, high = box or (0, 0, width, height)
    inside = np.zeros((height, width), bool)
    inside[top : top + high, left : left + wide] = True
    if not inside.any():
        raise BenchError(f"the box {box} is outside of frames of {width}x{height}")
    return grid_inside(inside, max(1.0, (inside.sum() / points) ** 0.5))


def model_maker(name: str, size: str, rgb: NDArray[np.uint8], points: int) -> Callable[[], Any]:
    """Makes trackers of a model for frames like `rgb`."""
    model = load_model(name)
    matched_at = input_size(size, (rgb.shape[1], rgb.shape[0]))
    return lambda: Tracker(model, max_points=points, window=1, input_size=matched_at)


def followed(tracker: Any, frames: list[NDArray[np.uint8]], xy: NDArray[np.float32]) -> list[Tracks]:
    tracker.add(xy)
    return [tracker.step(rgb) for rgb in frames]


def row(name: str, frames: list[NDArray[np.uint8]], told: list[Tracks], shown: list[int]) -> NDArray[np.uint8]:
    """A label and the pictures of the frames `shown`, with the points on them."""
    palette, pictures = Palette("row"), []
    for number, (rgb, tracks) in enumerate(zip(frames, told, strict=True)):
        colors = palette.colors(tracks)  # on every frame: it remembers where points started
        if number in shown:
            painted = paint_tracks(rgb, tracks, colors)
            size = (WIDTH, round(WIDTH * rgb.shape[0] / rgb.shape[1]))
            pictures.append(np.asarray(cv2.resize(painted, size, interpolation=cv2.INTER_AREA)))
            pictures.append(np.zeros((size[1], GAP, 3), np.uint8))
    strip = np.concatenate(pictures[:-1], axis=1)
    label = np.zeros((24, strip.shape[1], 3), np.uint8)
    cv2.putText(label, name, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([label, strip]).astype(np.uint8)


if __name__ == "__main__":
    run(main)
