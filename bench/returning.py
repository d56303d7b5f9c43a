"""What it is worth to believe a point that comes back only when two answers agree (points/returning.py).

On rendered clips with long absences: re-detection and Average Jaccard with and without, and how many of the positions
that are claimed right after a return are absurd, more than 16 pixels off at 256x256 or truly hidden.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from bench.command import Count, JsonFile, run
from bench.report import finish
from online_tapir.evaluation import scores as metrics
from online_tapir.evaluation.following import follow
from online_tapir.evaluation.videos import Video, validation_videos
from online_tapir.model.checkpoint import load_model
from online_tapir.points.returning import HIDDEN, Returns
from online_tapir.testing import make_tracks
from online_tapir.tracking.tracker import Tracker

AFTER = 6  # frames after a return that are looked at
ABSURD_PX = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is tracked."""

    photographs: Annotated[Path | None, Parameter(help="Folder of photographs; none: procedural textures.")] = None
    clips: Annotated[int, Parameter(help="Clips.", validator=Count)] = 16
    frames: Annotated[int, Parameter(help="Frames of each.", validator=Count)] = 64
    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"


def measure(*, settings: Annotated[Settings, Parameter(name="*")] = Settings(), json: JsonFile = None) -> None:
    """Compare every return at once with two answers in a row."""
    model = load_model(settings.model)
    told: dict[str, list[dict[str, Any]]] = {"at once": [], "two in a row": []}
    for video in validation_videos(settings.photographs, settings.clips, settings.frames):
        walked = follow(lambda: Tracker(model, 256), video)
        for how, shown in (("at once", walked.visible), ("two in a row", sifted(video, walked.xy, walked.visible))):
            told[how].append(scored(video, walked.xy, walked.visible, shown))
    results = {how: summary(some) for how, some in told.items()}
    for how, found in results.items():
        print(f"{how}: {', '.join(f'{name} {value}' for name, value in found.items())}")
    finish("returning", settings, results, json, interval="none")


def sifted(video: Video, xy: NDArray[np.float32], visible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Visibility [N, T] as a run would publish it; every frame is an answer."""
    height, width = video.frames.shape[1:3]
    returns, shown = Returns(), visible.copy()
    for frame in range(visible.shape[1]):
        named = np.flatnonzero(video.query_frame <= frame)
        tracks = make_tracks(
            frame,
            xy[named, frame],
            ids=named,
            visible=visible[named, frame],
            size=(width, height),
            model_frame_id=frame,
        )
        shown[named, frame] = returns.sift(tracks).visible
    return shown


def scored(video: Video, xy: NDArray[np.float32], raw: NDArray[np.bool_], shown: NDArray[np.bool_]) -> dict[str, Any]:
    frames, height, width = video.frames.shape[:3]
    told, truth = metrics.scale_to_256(xy, width, height), metrics.scale_to_256(video.xy, width, height)
    after = metrics.frames_after_return(video.visible, video.query_frame)
    whole = metrics.score(told, shown, truth, video.visible, metrics.frames_after_query(video.query_frame, frames))
    wrong = ~video.visible | (np.linalg.norm(told - truth, axis=-1) > ABSURD_PX)
    back = returned(raw, video.query_frame)
    return {
        "aj": whole.average_jaccard,
        "aj_rd": metrics.score(told, shown, truth, video.visible, after).average_jaccard,
        "found": metrics.redetection(told, shown, truth, video.visible, video.query_frame),
        "claims": int((back & shown).sum()),
        "absurd": int((back & shown & wrong).sum()),
    }


def returned(visible: NDArray[np.bool_], query_frame: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The frames [N, T] right after the model says that a point is back."""
    marked = np.zeros_like(visible)
    for n, frame in returns_of(visible, query_frame):
        marked[n, frame : frame + AFTER] = True
    return marked


def returns_of(visible: NDArray[np.bool_], query_frame: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    for n, first in enumerate(query_frame):
        hidden = 0
        for frame in range(int(first) + 1, visible.shape[1]):
            if visible[n, frame] and hidden >= HIDDEN:
                yield n, frame
            hidden = 0 if visible[n, frame] else hidden + 1


def summary(some: list[dict[str, Any]]) -> dict[str, Any]:
    found = sum((one["found"] for one in some), metrics.Redetection(0, 0))
    claims, absurd = (sum(one[key] for one in some) for key in ("claims", "absurd"))
    return {
        "average_jaccard": round(100 * float(np.mean([one["aj"] for one in some])), 1),
        "aj_rd": round(100 * float(np.nanmean([one["aj_rd"] for one in some])), 1),
        "found_again": f"{found.found} of {found.returned}",
        "absurd": f"{absurd} of {claims} claims",
    }


if __name__ == "__main__":
    run(measure)
