"""Runs `online-tapir eval`: models and OpenCV's trackers on the same videos, and the tables that compare them."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from online_tapir.engines.choose import choose_for, make
from online_tapir.errors import ConfigError
from online_tapir.evaluation.baselines import DenseFlow, LucasKanade, LucasKanadeWithRecovery
from online_tapir.evaluation.compare import Report, as_dict, compare, equal_time_table, report_table
from online_tapir.evaluation.config import Scoring
from online_tapir.evaluation.following import MakeTracker
from online_tapir.evaluation.tapvid import query_first_videos, strided_videos
from online_tapir.evaluation.videos import Video, hard_videos, still_videos, validation_videos
from online_tapir.launch.sizes import input_size
from online_tapir.launch.threads import set_threads
from online_tapir.model.checkpoint import load_model
from online_tapir.model.config import Size
from online_tapir.tracking.tracker import Tracker

STILL_CLIPS = 2
REPORT_COLUMNS = 160  # of a table printed to a file or pipe
POINTS_AT_ONCE = 256
SQUARE = (1, 1)  # what scenes are, and data sets after TAP-Vid's protocol
CLASSICAL: dict[str, MakeTracker] = {
    "LK": LucasKanade,
    "LK, recovering": LucasKanadeWithRecovery,
    "DIS flow": DenseFlow,
}


def score(models: Sequence[str], settings: Scoring) -> list[dict[str, Any]]:
    """Scores models and OpenCV's trackers; prints the scores as tables and returns them as plain values.

    `models` are presets or .safetensors files. They are scored on validation scenes: textured with `photos` (if given),
    procedural, hard ones (half as many, twice as long, that turn, grow and hide more), and still. With `dataset`, they
    are scored on that TAP-Vid file instead, query-first or `strided`. With several `inputs`, it also says what each
    model is worth in the same time. Raises ConfigError for `strided` without `dataset` and for what no model, engine,
    size or file is.
    """
    if settings.strided and settings.dataset is None:
        raise ConfigError("strided queries need a data set; name a TAP-Vid file with --dataset")
    sizes = [input_size(text, SQUARE, "--inputs") for text in settings.inputs]
    families = [_family(name, sizes, settings) for name in models]
    families += [_Family(name, "OpenCV", {name: maker}) for name, maker in CLASSICAL.items()]
    trackers = {name: maker for family in families for name, maker in family.trackers.items()}
    engine_of = {name: family.engine for family in families for name in family.trackers}
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=REPORT_COLUMNS)
    for family in families[: len(models)]:
        console.print(f"{family.name} is computed by {family.engine}", markup=False)
    reports: list[Report] = []
    for name, videos, fps in _data(settings):
        with console.status(f"scoring on {name}"):
            found = compare(trackers, videos, name, POINTS_AT_ONCE, fps)
        console.print(report_table(found))
        if len(sizes) > 1:
            of = {report.tracker: report for report in found}
            console.print(equal_time_table({family.name: [of[one] for one in family.trackers] for family in families}))
        reports += found
    return [as_dict(report) | {"engine": engine_of[report.tracker]} for report in reports]


@dataclass(frozen=True, slots=True)
class _Family:
    """What is compared as one: a model at every input size, or one of OpenCV's trackers."""

    name: str
    engine: str  # what computes it, and in what precision
    trackers: dict[str, MakeTracker]  # by what tells them apart


def _family(name: str, sizes: Sequence[Size], settings: Scoring) -> _Family:
    model = load_model(name, device=settings.device)
    choice = choose_for(model, settings.engine)
    engine = make(choice, set_threads(None))

    def maker(size: Size | None) -> MakeTracker:
        return lambda: Tracker(model, max_points=POINTS_AT_ONCE, window=1, input_size=size, engine=engine)

    trackers = {f"{name} {width}x{height}": maker((height, width)) for height, width in sizes} or {name: maker(None)}
    return _Family(name, f"{choice.name} in {choice.precision}", trackers)


def _data(settings: Scoring) -> Iterator[tuple[str, Iterator[Video], float | None]]:
    """The sets of videos, by name, and the rate that each is played at, if it is."""
    photos, clips, frames, fps = settings.photos, settings.clips, settings.frames, settings.fps or None
    if settings.dataset is not None:
        protocol, read = ("strided", strided_videos) if settings.strided else ("query-first", query_first_videos)
        yield f"{settings.dataset.stem}, {protocol}", read(settings.dataset), fps
        return
    if photos is not None:
        yield f"photographs, {clips} x {frames} frames", validation_videos(photos, clips, frames), fps
    yield f"procedural, {clips} x {frames} frames", validation_videos(None, clips, frames), fps
    hard = (max(1, clips // 2), 2 * frames)
    kind = "procedural" if photos is None else "photographs"
    yield f"hard {kind}, {hard[0]} x {hard[1]} frames", hard_videos(photos, *hard), fps
    yield f"still, {STILL_CLIPS} x 200 frames", still_videos(photos, STILL_CLIPS), None
