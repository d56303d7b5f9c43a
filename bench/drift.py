"""How far half-precision tracks drift from float32, and the time saved: the same points and frames in each dtype.

Distances are in pixels of the demo's frame, over the points that both report as visible. The trackers step in turn, so
that other load on the machine affects all of them equally. CPUs may have bfloat16 instructions but have few for
float16, so their times do not predict a GPU's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from cyclopts import Parameter

from bench.command import Count, JsonFile, PlotFile, run
from bench.report import Spread, finish, print_table
from online_tapir.camera.demo import DemoScene
from online_tapir.model.checkpoint import load_model
from online_tapir.points.placement import Corners
from online_tapir.records import Tracks
from online_tapir.tracking.tracker import Tracker

WARM_UP = 5
INTERVAL = (
    "a step: from the image in memory to the positions in memory; times are ratios of the median to float32's, after "
    f"{WARM_UP} warm-up frames"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to track, and in which dtypes."""

    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"
    dtypes: Annotated[tuple[str, ...], Parameter(help="Compared with float32.", consume_multiple=True, negative=())] = (
        "bfloat16",
        "float16",
    )
    points: Annotated[int, Parameter(help="Points to track.", validator=Count)] = 64
    frames: Annotated[int, Parameter(help="Frames to track them on.", validator=Count)] = 60
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Measure how far tracks in half precision are from those in float32."""
    tracks = tracked(settings, dict.fromkeys(("float32", *settings.dtypes)))
    exact = tracks["float32"]
    spreads, facts = {}, {}
    for dtype in settings.dtypes:
        spreads[dtype] = Spread.of(distances(exact, tracks[dtype]))
        facts[f"{dtype}_visible_differs"] = visible_differs(exact, tracks[dtype])
        facts[f"{dtype}_time"] = round(step_ms(tracks[dtype]) / step_ms(exact), 3)
    print_table(
        f"{settings.model}, {settings.points} points, {settings.frames} frames; px from float32", spreads, facts
    )
    finish("drift", settings, {"px": spreads, **facts}, json, plot, interval=INTERVAL)


def tracked(settings: Settings, dtypes: Iterable[str]) -> dict[str, list[Tracks]]:
    """Tracks the demo's first frames in each of `dtypes`."""
    scene = DemoScene()
    corners = Corners(settings.points).place(scene.render(0))
    trackers: dict[str, Tracker] = {}
    for dtype in dtypes:
        model = load_model(settings.model, device=settings.device, dtype=dtype)
        trackers[dtype] = Tracker(model, max_points=settings.points, window=1)
        trackers[dtype].add(corners)
    frames = map(scene.render, range(settings.frames))
    steps = [[tracker.step(frame) for tracker in trackers.values()] for frame in frames]
    return {dtype: list(tracks) for dtype, tracks in zip(trackers, zip(*steps, strict=True), strict=True)}


def step_ms(tracks: list[Tracks]) -> float:
    """The median time of a step."""
    times = [one.times for one in tracks[WARM_UP if len(tracks) > 2 * WARM_UP else 0 :]]
    return float(np.median([t.upload + t.encode + t.match + t.refine + t.download for t in times])) / 1e6


def distances(exact: list[Tracks], found: list[Tracks]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Distances in pixels between the two, over all frames, for the points that both report as visible."""
    pairs = zip(exact, found, strict=True)
    return np.concatenate([np.linalg.norm(a.xy - b.xy, axis=1)[a.visible & b.visible] for a, b in pairs])


def visible_differs(exact: list[Tracks], found: list[Tracks]) -> float:
    """The share of points over all frames on which the two disagree about visibility."""
    return round(float(np.mean([a.visible != b.visible for a, b in zip(exact, found, strict=True)])), 4)


if __name__ == "__main__":
    run(main)
