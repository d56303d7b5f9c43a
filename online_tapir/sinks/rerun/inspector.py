"""The inspected point in the Rerun viewer: what the model saw of it, and how each stage refined it.

Maps are translucent overlays on the picture, at a lower resolution. The close-up has its own space, which is always
`CLOSE_UP_SIDE` units wide, for any number of pixels, so that its view stays still.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import rerun as rr
from numpy.typing import NDArray

from online_tapir.drawing.inspection_pictures import (
    correlations_middles,
    correlations_picture,
    cost_overlay,
    crop_around,
    heat_overlay,
    stage_colors,
    stage_hues,
)
from online_tapir.drawing.painting import RIM, RIM_WIDTH, TRAIL_FRAMES, TRAIL_NS, Picture
from online_tapir.drawing.query_patches import QueryPatch
from online_tapir.records import Correlations, Inspection, Stage, Tracks
from online_tapir.sinks.rate_limit import RateLimit
from online_tapir.sinks.rerun.blueprint import CLOSE_UP_SIDE, OVERLAYS, STAGE_CURVES, VERDICT
from online_tapir.sinks.rerun.images import WHITE, caption, size_within, smaller, stretched, translucent
from online_tapir.sinks.rerun.rooted import Logs

OVERLAY_SIDE = 160  # pixels on the longer side of a map, which has about 32 cells a side
CLOSE_UPS = (33, 65, 129, 257, 513)  # image pixels a side, odd; the smallest is used that shows the last second
CLOSE_UP_PIXELS = 129  # most pixels a side of its picture
CLOSE_UP_SHARE = 0.4  # a stage shows well within this share of the side, from the centre
STAGE_RADIUS = 3.5
AGAIN_FPS = 1.0  # rate of logging unchanged entities again, for viewers that connect late
PATH_ORDER, STAGE_ORDER = 32.0, 33.0  # above the points of all tracks
LEGEND_STEP = 6.0  # units of the close-up between the lines of its legend
AT_REST = (
    "**No point is inspected.**\n\nRun `online-tapir control inspect ID` to see here what the model sees of a point. "
    "Hover over a point to see its ID."
)


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """Where the stages of one frame put the point."""

    captured_ns: int
    xy: NDArray[np.float32]  # [S, 2] image pixels


class Inspector:
    """Draws the inspections of a stream frame by frame; remembers which point is inspected."""

    def __init__(self, recording: Logs, *, compressed: bool = True) -> None:
        self._log = recording.log
        self._compressed = compressed
        self._id: int | None = None
        self._described: list[str] = []  # the stages whose curves have been given their colours
        self._again = RateLimit(AGAIN_FPS)
        self._past: deque[Past] = deque(maxlen=TRAIL_FRAMES)  # the last second, newest last

    def draw(self, rgb: Picture, tracks: Tracks, query: QueryPatch | None) -> None:
        """Logs the inspection of `tracks`; if there is none, clears the last one and shows how to start one."""
        inspection = tracks.inspection
        shown = None if inspection is None else inspection.id
        if shown != self._id:
            self._clear()
        self._id = shown
        again = self._again.due(tracks.captured_ns)
        if inspection is None:
            if again:
                self._log("inspector/what", rr.TextDocument(AT_REST, media_type="text/markdown"))
            return
        self._remember(inspection, tracks)
        self._draw_maps(inspection, (tracks.width, tracks.height))
        self._draw_path(inspection.stages)
        self._draw_close_up(inspection.stages, rgb)
        self._draw_curves(inspection.stages)
        self._log("inspector/correlations", rr.Image(correlations_picture(inspection.correlations)))
        self._log("inspector/what", rr.TextDocument(report(inspection, query), media_type="text/markdown"))
        if again:
            self._draw_legend(inspection.stages)
            self._draw_query(query)
            self._draw_guesses(inspection.correlations)

    def _clear(self) -> None:
        self._past.clear()
        self._again = RateLimit(AGAIN_FPS)
        for entity in ("camera/inspector", "inspector"):
            self._log(entity, rr.Clear(recursive=True))

    def _remember(self, inspection: Inspection, tracks: Tracks) -> None:
        now_ns = tracks.captured_ns
        self._past.append(Past(now_ns, np.stack([stage.xy for stage in inspection.stages])))
        while not 0 <= now_ns - self._past[0].captured_ns <= TRAIL_NS:
            self._past.popleft()

    def _draw_maps(self, inspection: Inspection, frame: tuple[int, int]) -> None:
        size = size_within(frame, OVERLAY_SIDE)
        last = inspection.stages[-1]
        verdict = f"{last.name}: occluded {last.occlusion:.2f}, inaccurate {last.uncertainty:.2f}"
        self._log(VERDICT, caption(verdict, frame))
        maps = [heat_overlay(inspection.heat, size), *(cost_overlay(cost, size) for cost in inspection.cost)]
        for entity, overlay in zip(OVERLAYS, maps, strict=False):
            self._log(entity, translucent(overlay, compressed=self._compressed), stretched(size, frame))

    def _draw_path(self, stages: Sequence[Stage]) -> None:
        """Draws over the picture: the path from the first guess to the last refinement, and the trails of both."""
        first, last = self._trails()
        colors = stage_colors(stages)
        self._log(
            "camera/inspector/trails",
            rr.LineStrips2D(
                [first, last], colors=colors[[0, -1]], radii=rr.Radius.ui_points([1.0, 1.5]), draw_order=PATH_ORDER - 1
            ),
        )
        xy = self._past[-1].xy
        self._log(
            "camera/inspector/path",
            rr.LineStrips2D([xy], colors=WHITE, radii=rr.Radius.ui_points(1.0), draw_order=PATH_ORDER),
        )
        self._mark("camera/inspector/stages", xy, stages)

    def _draw_close_up(self, stages: Sequence[Stage], rgb: Picture) -> None:
        side = self._close_up_side()
        crop = crop_around(rgb, stages[-1].xy, side)
        scale = CLOSE_UP_SIDE / side
        space = (CLOSE_UP_SIDE, CLOSE_UP_SIDE)
        picture = smaller(crop.picture, CLOSE_UP_PIXELS)
        self._log("inspector/close_up/picture", rr.Image(picture), stretched(picture.shape[:2], space))
        xy = crop.inside(self._past[-1].xy) * scale
        trails = [_inside(crop.inside(trail) * scale) for trail in self._trails()]
        colors = stage_colors(stages)
        self._log(
            "inspector/close_up/trails",
            rr.LineStrips2D(trails, colors=colors[[0, -1]], radii=rr.Radius.ui_points(1.0)),
        )
        self._log(
            "inspector/close_up/path",
            rr.LineStrips2D([xy], colors=WHITE, radii=rr.Radius.ui_points(1.25), draw_order=PATH_ORDER),
        )
        self._mark("inspector/close_up/stages", xy, stages)

    def _draw_legend(self, stages: Sequence[Stage]) -> None:
        """The names of the stages in their colours, in a corner of the close-up."""
        step = min(LEGEND_STEP, (CLOSE_UP_SIDE - 2) / len(stages))
        self._log(
            "inspector/close_up/legend",
            rr.Points2D(
                [(CLOSE_UP_SIDE / 6, 1 + step * line) for line in range(len(stages))],
                colors=stage_hues(len(stages)),
                radii=rr.Radius.ui_points(0.0),
                labels=[stage.name for stage in stages],
                show_labels=True,
            ),
        )

    def _draw_curves(self, stages: Sequence[Stage]) -> None:
        names = [stage.name for stage in stages]
        occluded, inaccurate = np.array([(stage.occlusion, stage.uncertainty) for stage in stages]).T
        for entity, values in zip(STAGE_CURVES, (occluded, inaccurate, (1 - occluded) * (1 - inaccurate)), strict=True):
            if names != self._described:
                lines = rr.SeriesLines(colors=stage_hues(len(stages)), names=names, widths=[1.5] * len(stages))
                self._log(entity, lines, static=True)
            self._log(entity, rr.Scalars(values))
        self._described = names

    def _draw_query(self, query: QueryPatch | None) -> None:
        if query is None or query.crop is None:
            return
        self._log("inspector/query/picture", rr.Image(query.crop.picture))
        (x, y), arm = query.crop.inside(query.xy), 3.0
        cross = [[(x - arm, y), (x + arm, y)], [(x, y - arm), (x, y + arm)]]
        self._log("inspector/query/place", rr.LineStrips2D(cross, colors=WHITE, radii=rr.Radius.ui_points(1.0)))

    def _draw_guesses(self, correlations: Sequence[Correlations]) -> None:
        """Draws a dot at the guess in every patch, and one in the colour of its stage before every row of patches."""
        log, middles = self._log, correlations_middles(correlations)  # [R, M, 2]
        colors = stage_hues(1 + len(correlations))[1:]
        log(
            "inspector/correlations/guesses",
            rr.Points2D(middles.reshape(-1, 2), colors=WHITE, radii=rr.Radius.ui_points(1.0)),
        )
        log(
            "inspector/correlations/stages",
            rr.Points2D(
                [(-1.5, float(y)) for y in middles[:, :1, 1].ravel()],
                colors=colors,
                radii=rr.Radius.ui_points(STAGE_RADIUS),
                labels=[seen.stage for seen in correlations],
                show_labels=False,
            ),
        )

    def _mark(self, entity: str, xy: NDArray[np.float32], stages: Sequence[Stage]) -> None:
        """A disc on a dark rim for each stage."""
        radii = rr.Radius.ui_points(STAGE_RADIUS + RIM_WIDTH)
        self._log(f"{entity}/rims", rr.Points2D(xy, colors=RIM, radii=radii, draw_order=STAGE_ORDER))
        self._log(
            entity,
            rr.Points2D(
                xy,
                colors=stage_colors(stages),
                radii=rr.Radius.ui_points(STAGE_RADIUS),
                labels=[stage.name for stage in stages],
                show_labels=False,
                draw_order=STAGE_ORDER + 1,
            ),
        )

    def _trails(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Where the first and the last stage put the point during the last second, [T, 2] each."""
        return np.stack([past.xy[0] for past in self._past]), np.stack([past.xy[-1] for past in self._past])

    def _close_up_side(self) -> int:
        farthest = max(float(np.abs(past.xy - past.xy[-1]).max()) for past in self._past)
        return next((side for side in CLOSE_UPS if CLOSE_UP_SHARE * side >= farthest), CLOSE_UPS[-1])


def report(inspection: Inspection, query: QueryPatch | None) -> str:
    """The numbers of an inspection, as markdown."""
    before, last = inspection.stages[0], inspection.stages[-1]
    state = "visible" if last.visible else "hidden"
    lines = [
        f"**Point {inspection.id}**, {state} at {last.xy[0]:.1f}, {last.xy[1]:.1f}\n",
        _origin(query),
        "| | occluded | inaccurate | moved |",
        "|---|---|---|---|",
    ]
    for stage in inspection.stages:
        moved = "" if stage is before else f"{np.linalg.norm(stage.xy - before.xy):.1f} px"
        lines.append(f"| {stage.name} | {stage.occlusion:.2f} | {stage.uncertainty:.2f} | {moved} |")
        before = stage
    return "\n".join(lines)


def _origin(query: QueryPatch | None) -> str:
    if query is None:
        return "named before this viewer began\n"
    gone = "" if query.crop is not None else "; that frame is gone, so there is no picture of it"
    return f"named at {query.xy[0]:.1f}, {query.xy[1]:.1f} on frame {query.frame_id}{gone}\n"


def _inside(trail: NDArray[np.float32]) -> NDArray[np.float32]:
    """The newest stretch of a trail [T, 2] that lies within the close-up."""
    outside = np.flatnonzero(((trail < 0) | (trail > CLOSE_UP_SIDE)).any(axis=1))
    return trail[outside[-1] + 1 :] if len(outside) else trail
