"""The layout of the Rerun viewer: a large picture, curves below it, and the inspector next to it once it is used.

Only arranges entities; draws nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import rerun as rr
import rerun.blueprint as rrb

from online_tapir.drawing.query_patches import SIDE

PLOT_SECONDS = 20
PLOT_FRAMES = 600

CURVES = {  # entity: (title, colour)
    "curves/frame_rate": ("Frames a second", (90, 200, 250)),
    "curves/latency": ("Latency, ms", (255, 179, 64)),
    "curves/visible": ("Visible points", (112, 219, 130)),
}
STAGE_CURVES = {  # probabilities, one line per stage; entity: title
    "inspector/occluded": "Occluded",
    "inspector/inaccurate": "Inaccurate",
    "inspector/visible": "Visible",
}
OVERLAYS = {  # entity: title; translucent maps over the picture: the heat map and the maps it is computed from
    "camera/inspector/heat": "Heat map",
    "camera/inspector/cost": "Cost: query",
    "camera/inspector/last_sight": "Cost: last sight",
    "camera/inspector/expected": "Expected place",
}
VERDICT = "camera/inspector/verdict"  # the probabilities of the last stage, as text
CLOSE_UP_SIDE = 65  # width of the close-up in units of its own space, for any number of pixels
BACKGROUND = (16, 16, 20)
DIMMED = 0.4  # brightness of the picture under a map
SMALL_MARK = 1.5  # radius of a stage on a map, screen pixels; small, so as not to hide the map
MARGIN = 3  # pixels around the correlations
SEVERAL = 15  # pixels of their height from which there are two or more rows of patches

_NO_LEGEND = rrb.PlotLegend(visible=False)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the views depend on; a change sends a new blueprint."""

    title: str = ""  # camera and model
    size: tuple[int, int] = (1, 1)  # width and height of the frames
    planes: int = 0  # input maps of the inspected point's first guess; 0: no point was inspected yet
    correlations: tuple[int, int] = (1, 1)  # width and height of the correlations picture
    compressed: bool = True  # see `Look`
    root: str = ""  # entity that this camera's entities lie under; empty for the only camera

    def at(self, entity: str) -> str:
        """The path of one of this camera's entities."""
        return f"{self.root}/{entity}" if self.root else entity


def blueprint(*layouts: Layout) -> rrb.Blueprint:
    """The views for the layouts of one camera or more, with all panels hidden or collapsed.

    Of several cameras there is a tab with all pictures, and one tab each.
    """
    wholes = [_whole(layout) for layout in layouts]
    content = wholes[0]
    if len(wholes) > 1:
        pictures = rrb.Grid(*(_camera(layout) for layout in layouts), name="all cameras")
        content = rrb.Tabs(pictures, *wholes, active_tab=0)
    return rrb.Blueprint(content, rrb.BlueprintPanel(state="hidden"), rrb.SelectionPanel(state="hidden"), _time_panel())


def _whole(layout: Layout) -> rrb.Container:
    """Everything of one camera."""
    curves = [
        rrb.TimeSeriesView(origin=layout.at(entity), name=title, time_ranges=_window(), plot_legend=_NO_LEGEND)
        for entity, (title, _) in CURVES.items()
    ]
    if not layout.planes:
        return rrb.Vertical(_camera(layout), rrb.Horizontal(*curves), row_shares=[4, 1], name=layout.title)
    stages = [_stage_curves(layout.at(entity), title) for entity, title in STAGE_CURVES.items()]
    return rrb.Vertical(
        rrb.Horizontal(_camera(layout), _inspector(layout), column_shares=[11, 9]),
        rrb.Horizontal(*curves, *stages),
        row_shares=[4, 1],
        name=layout.title,
    )


def _camera(layout: Layout) -> rrb.Spatial2DView:
    hidden = [layout.at(entity) for entity in (*OVERLAYS, VERDICT) if entity != "camera/inspector/heat"]
    return _picture(
        layout.at("camera"),
        layout.title,
        layout.size,
        overrides={entity: rrb.EntityBehavior(visible=False) for entity in hidden},
    )


def _inspector(layout: Layout) -> rrb.Container:
    (heat, heat_title), *maps = OVERLAYS.items()
    costs = [_map(entity, title, layout) for entity, title in maps[: layout.planes]]
    compared = "query | last sight" if layout.planes > 1 else "query"
    correlations = f"Local correlations, fine to coarse: {compared}"
    return rrb.Vertical(
        rrb.Horizontal(
            _picture(layout.at("inspector/close_up"), "Close-up", (CLOSE_UP_SIDE, CLOSE_UP_SIDE)),
            rrb.Vertical(
                rrb.TextDocumentView(origin=layout.at("inspector/what"), name="Inspected"),
                _picture(layout.at("inspector/query"), "Query", (SIDE, SIDE)),
                row_shares=[3, 2],
            ),
        ),
        rrb.Horizontal(
            _map(heat, heat_title, layout, VERDICT), rrb.Tabs(*costs, active_tab=0) if len(costs) > 1 else costs[0]
        ),
        _picture(layout.at("inspector/correlations"), correlations, layout.correlations, MARGIN),
        row_shares=[9, 5, 4 if layout.correlations[1] < SEVERAL else 6],
    )


def _map(entity: str, title: str, layout: Layout, *above: str) -> rrb.Spatial2DView:
    """One map over the dimmed picture, with the entities `above` on top."""
    contents = ["camera/picture", entity, "camera/inspector/path", "camera/inspector/stages", *above]
    overrides = {
        "camera/picture": (rr.EncodedImage if layout.compressed else rr.Image).from_fields(opacity=DIMMED),
        "camera/inspector/stages": rr.Points2D.from_fields(radii=rr.Radius.ui_points(SMALL_MARK)),
    }
    return _picture(
        layout.at("camera"),
        title,
        layout.size,
        contents=[layout.at(entity) for entity in contents],
        overrides={layout.at(entity): override for entity, override in overrides.items()},
    )


def _picture(
    origin: str,
    name: str,
    size: tuple[int, int],
    margin: int = 0,
    contents: str | Sequence[str] = "$origin/**",
    overrides: Any = None,
) -> rrb.Spatial2DView:
    """A 2D view that shows a whole picture of `size` (width, height) and a margin around it."""
    # Without bounds a view grows to fit everything it has ever shown, such as labels and maps of other cameras.
    across, down = ([-margin, side + margin] for side in size)
    return rrb.Spatial2DView(
        origin=origin,
        name=name,
        contents=contents,
        overrides=overrides,
        background=BACKGROUND,
        visual_bounds=rrb.VisualBounds2D(x_range=across, y_range=down),
    )


def _stage_curves(entity: str, title: str) -> rrb.TimeSeriesView:
    return rrb.TimeSeriesView(
        origin=entity,
        name=title,
        time_ranges=_window(),
        axis_y=rrb.ScalarAxis(range=(-0.02, 1.02)),
        plot_legend=_NO_LEGEND,
    )


def _window() -> list[rrb.VisibleTimeRange]:
    """The last seconds, on either timeline."""
    boundary = rrb.TimeRangeBoundary
    now = boundary.cursor_relative()
    return [
        rrb.VisibleTimeRange("frame", start=boundary.cursor_relative(seq=-PLOT_FRAMES), end=now),
        rrb.VisibleTimeRange("captured", start=boundary.cursor_relative(seconds=-PLOT_SECONDS), end=now),
    ]


def _time_panel() -> rrb.TimePanel:
    return rrb.TimePanel(state="collapsed", timeline="frame", play_state="following")
