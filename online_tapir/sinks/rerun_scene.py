"""What the Rerun viewer shows: the picture, points coloured by identity, trails of the last second, three curves.

Rerun's 2D space over a picture is ours: (0, 0) is the corner of the first pixel, y points down (looked at in viewer
0.41). It draws no translucent points or lines, so what is hidden is dimmed towards black, and smaller.
"""

import inspect
from functools import cache
from typing import Any

import cv2
import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from online_tapir.records import Frame, Tracks
from online_tapir.sinks.painting import Trails, identity_colors
from online_tapir.sinks.rerun import Moment

JPEG_QUALITY = 85
PLOT_SECONDS = 20
PLOT_FRAMES = 600

POINT_RADII = {True: 4.5, False: 3.0}  # by visible; screen pixels, whatever the zoom
RIM_WIDTH = 1.5  # a dark rim keeps points legible on any picture

CURVES = {  # entity: (title, colour)
    "curves/frame_rate": ("Frame rate (frames/s)", (90, 200, 250)),
    "curves/latency": ("Latency, capture to publish (ms)", (255, 179, 64)),
    "curves/visible": ("Visible points", (112, 219, 130)),
}


class Scene:
    """One recording and what it must remember between frames.

    With `flush_every` 1 `draw` returns when the viewer has the frame, so that none pile up on the way. Methods raise
    RuntimeError when the viewer or the disk is gone.
    """

    def __init__(self, *, flush_every: int, stall_seconds: float) -> None:
        self._recording = rr.RecordingStream("online-tapir")
        self._flush_every = flush_every
        self._stall_seconds = stall_seconds
        self._trails = Trails()
        self._drawn = 0

    def save(self, path: str) -> None:
        self._recording.save(path, default_blueprint=blueprint())

    def connect(self, url: str) -> None:
        self._recording.connect_grpc(url, default_blueprint=blueprint())

    def draw(self, moment: Moment) -> None:
        """Log one frame at its number and its moment of capture."""
        recording, tracks = self._recording, moment.tracks
        if not self._drawn:
            self._describe_curves()
        recording.set_time("frame", sequence=tracks.frame_id)
        recording.set_time("captured", timestamp=np.datetime64(tracks.captured_unix_ns, "ns"))
        recording.log("camera/picture", picture(moment.frame))
        self._draw_points(tracks)
        if moment.fps is not None:
            recording.log("curves/frame_rate", rr.Scalars(moment.fps))
        recording.log("curves/latency", rr.Scalars(moment.latency_ms))
        recording.log("curves/visible", rr.Scalars(int(tracks.visible.sum())))
        self._drawn += 1
        if self._drawn % self._flush_every == 0:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._recording.disconnect()

    def abandon(self) -> None:
        """Give up what is on its way: rerun would keep the program from ending while the viewer hangs."""
        rr.unregister_shutdown()

    def _draw_points(self, tracks: Tracks) -> None:
        colors = identity_colors(tracks.ids, tracks.visible)  # [N, 3]
        strips, owners = self._trails.follow(tracks)
        radii = np.where(tracks.visible, POINT_RADII[True], POINT_RADII[False])  # [N]
        log = self._recording.log
        log("camera/trails", rr.LineStrips2D(strips, colors=colors[owners], radii=rr.Radius.ui_points(1.25)))
        log(
            "camera/points/rim",
            rr.Points2D(tracks.xy, colors=(12, 12, 16), radii=rr.Radius.ui_points(radii + RIM_WIDTH)),
        )
        log(
            "camera/points",
            rr.Points2D(
                tracks.xy,
                colors=colors,
                radii=rr.Radius.ui_points(radii),
                labels=[str(id_) for id_ in tracks.ids],
                show_labels=False,
                draw_order=31.0,  # above the rims, at rerun's 30
            ),
        )

    def _describe_curves(self) -> None:
        for entity, (title, color) in CURVES.items():
            self._recording.log(entity, rr.SeriesLines(colors=color, names=title, widths=1.5), static=True)

    def _flush(self) -> None:
        if "timeout_sec" in _parameters(rr.RecordingStream.flush):
            self._recording.flush(timeout_sec=self._stall_seconds)
        else:  # rerun before 0.26
            self._recording.flush()


def picture(frame: Frame) -> rr.EncodedImage:
    """The frame as JPEG: a fifteenth of the bytes on the way and in the viewer's memory."""
    bgr = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return rr.EncodedImage(contents=jpeg.tobytes(), media_type="image/jpeg")


def blueprint() -> rrb.Blueprint:
    """The picture large, the curves of the last seconds beneath it, every panel out of the way."""
    boundary = rrb.TimeRangeBoundary
    now = boundary.cursor_relative()
    window = [
        rrb.VisibleTimeRange("frame", start=boundary.cursor_relative(seq=-PLOT_FRAMES), end=now),
        rrb.VisibleTimeRange("captured", start=boundary.cursor_relative(seconds=-PLOT_SECONDS), end=now),
    ]
    curves = [
        rrb.TimeSeriesView(origin=entity, name=title, time_ranges=window, plot_legend=_NO_LEGEND)
        for entity, (title, _) in CURVES.items()
    ]
    return rrb.Blueprint(
        rrb.Vertical(
            rrb.Spatial2DView(origin="camera", name="Points", background=(16, 16, 20)),
            rrb.Horizontal(*curves),
            row_shares=[4, 1],
        ),
        rrb.BlueprintPanel(state="hidden"),
        rrb.SelectionPanel(state="hidden"),
        _time_panel(),
    )


_NO_LEGEND = rrb.PlotLegend(visible=False)


def _time_panel() -> rrb.TimePanel:
    wanted: dict[str, Any] = {"timeline": "frame", "play_state": "following"}  # rerun 0.24 knows neither
    known = {key: value for key, value in wanted.items() if key in _parameters(rrb.TimePanel.__init__)}
    return rrb.TimePanel(state="collapsed", **known)


@cache
def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
