"""How far half precision strays: the same points on the same frames of the demo, tracked in each dtype and in float32.

Distances are pixels of the frame, over the points that both call visible; the frames are tracked unpaced, by `step`
alone. A CPU has few instructions for float16, so its times there say nothing of a GPU's.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from cyclopts import Parameter

from bench.report import Count, JsonFile, PlotFile, Spread, finish, print_table, run
from online_tapir.demo import DemoScene
from online_tapir.model.checkpoint import load_model
from online_tapir.points import Corners
from online_tapir.records import Tracks
from online_tapir.tracker import Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is tracked, and in what."""

    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"
    dtypes: Annotated[tuple[str, ...], Parameter(help="Held against float32.", consume_multiple=True, negative=())] = (
        "bfloat16",
        "float16",
    )
    points: Annotated[int, Parameter(help="Points to follow.", validator=Count)] = 64
    frames: Annotated[int, Parameter(help="Frames to follow them on.", validator=Count)] = 60
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Measure how far tracks in half precision are from those in float32."""
    exact = tracked(settings, "float32")
    spreads, facts = {}, {}
    for dtype in settings.dtypes:
        found = tracked(settings, dtype)
        spreads[dtype] = Spread.of(distances(exact, found))
        facts[f"{dtype}_visible_differs"] = visible_differs(exact, found)
    print_table(
        f"{settings.model}, {settings.points} points, {settings.frames} frames; px from float32", spreads, facts
    )
    finish("drift", settings, {"px": spreads, **facts}, json, plot)


def tracked(settings: Settings, dtype: str) -> list[Tracks]:
    """The demo's first frames, tracked in `dtype`."""
    scene = DemoScene()
    model = load_model(settings.model, device=settings.device, dtype=dtype)
    tracker = Tracker(model, max_points=settings.points, window=1)
    tracker.add(Corners(settings.points).place(scene.render(0)))
    return [tracker.step(scene.render(t)) for t in range(settings.frames)]


def distances(exact: list[Tracks], found: list[Tracks]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Pixels between the two, frame by frame, for the points that both call visible."""
    pairs = zip(exact, found, strict=True)
    return np.concatenate([np.linalg.norm(a.xy - b.xy, axis=1)[a.visible & b.visible] for a, b in pairs])


def visible_differs(exact: list[Tracks], found: list[Tracks]) -> float:
    """The share of points and frames on which the two do not agree whether a point is visible."""
    return round(float(np.mean([a.visible != b.visible for a, b in zip(exact, found, strict=True)])), 4)


if __name__ == "__main__":
    run(main)
