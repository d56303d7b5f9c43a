"""What the Rerun viewer shows: the picture, points with trails of the last second, curves, and the inspected point.

Rerun's 2D space over a picture is ours: (0, 0) is the corner of the first pixel, y points down (looked at in viewer
0.41). It draws no translucent points or lines, so what is hidden is dimmed towards black, and smaller. What a viewer
that comes late must know is logged again and again: its server forgets the oldest first.
"""

from dataclasses import replace

import numpy as np
import rerun as rr

from online_tapir.drawing.inspection_pictures import correlations_size
from online_tapir.drawing.look import Look
from online_tapir.drawing.painting import COLOR_KEYS, RIM, RIM_WIDTH, Palette, Trails
from online_tapir.records import Tracks
from online_tapir.sinks.pace import Pace
from online_tapir.sinks.rerun.blueprint import CURVES, Layout, blueprint
from online_tapir.sinks.rerun.images import caption, jpeg, smaller, stretched
from online_tapir.sinks.rerun.inspector import Inspector
from online_tapir.sinks.rerun.versions import known
from online_tapir.sinks.rerun.viewer import Moment

JPEG_QUALITY = 85
POINT_RADII = {True: 4.5, False: 3.0}  # by visible; screen pixels, whatever the zoom
CAPTION_FPS = 1.0  # a frame rate that changed more often could not be read


class Scene:
    """One recording and what it must remember between frames.

    With `flush_every` 1 `draw` returns when the viewer has the frame, so that none pile up on the way. Methods raise
    RuntimeError when the viewer or the disk is gone.
    """

    def __init__(self, *, look: Look, flush_every: int, stall_seconds: float) -> None:
        self._recording = rr.RecordingStream("online-tapir")
        self._look = look
        self._flush_every = flush_every
        self._stall_seconds = stall_seconds
        self._pictures, self._captions = Pace(look.fps), Pace(CAPTION_FPS)
        self._trails = Trails()
        self._palette = Palette(look.color)
        self._inspector = Inspector(self._recording)
        self._layout: Layout | None = None
        self._rate = ""  # of frames, as the caption says it
        self._drawn = 0

    def save(self, path: str) -> None:
        self._recording.save(path)

    def connect(self, url: str) -> None:
        self._recording.connect_grpc(url)

    def draw(self, moment: Moment) -> None:
        """Log one frame at its number and its moment of capture: its curves, and what lies over its picture with it.

        Pictures that come faster than the `look` allows are left out with all that lies over them.
        """
        recording, tracks = self._recording, moment.tracks
        if not self._drawn:
            self._describe_curves()
        self._lay_out(moment)
        recording.set_time("frame", sequence=tracks.frame_id)
        recording.set_time("captured", timestamp=np.datetime64(tracks.captured_unix_ns, "ns"))
        self._draw_curves(moment)
        if self._pictures.due(tracks.captured_ns):
            self._draw_picture(moment)
            self._draw_points(tracks)
            self._draw_caption(moment)
            if self._layout is not None and self._layout.planes:
                self._inspector.draw(moment.frame.rgb, tracks, moment.query)
        self._drawn += 1
        if self._drawn % self._flush_every == 0:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._recording.disconnect()

    def abandon(self) -> None:
        """Give up what is on its way: rerun would keep the program from ending while the viewer hangs."""
        rr.unregister_shutdown()

    def _lay_out(self, moment: Moment) -> None:
        """Sends another blueprint when the picture's size changes or a point is inspected for the first time."""
        tracks, before = moment.tracks, self._layout
        title = " · ".join(name for name in (tracks.camera, tracks.model) if name) or "camera"
        layout = replace(before or Layout(), title=title, size=(tracks.width, tracks.height))
        if (seen := tracks.inspection) is not None:
            layout = replace(layout, planes=len(seen.cost), correlations=correlations_size(seen.correlations))
        if layout != before:
            self._recording.send_blueprint(blueprint(layout))
        self._layout = layout

    def _draw_curves(self, moment: Moment) -> None:
        log = self._recording.log
        if moment.fps is not None:
            log("curves/frame_rate", rr.Scalars(moment.fps))
        log("curves/latency", rr.Scalars(moment.latency_ms))
        log("curves/visible", rr.Scalars(int(moment.tracks.visible.sum())))

    def _draw_picture(self, moment: Moment) -> None:
        picture = smaller(moment.frame.rgb, self._look.longest_side)
        tracks = moment.tracks
        over = stretched((picture.shape[1], picture.shape[0]), (tracks.width, tracks.height))
        self._recording.log("camera/picture", jpeg(picture, JPEG_QUALITY), over)

    def _draw_caption(self, moment: Moment) -> None:
        tracks = moment.tracks
        if moment.fps is not None and self._captions.due(tracks.captured_ns):
            self._rate = f"{moment.fps:.1f} fps"
        parts = [
            self._rate,
            f"{int(tracks.visible.sum())} of {len(tracks.ids)} visible",
            COLOR_KEYS[self._look.color],
        ]
        text = " · ".join(filter(None, parts))
        self._recording.log("camera/caption", caption(text, (tracks.width, tracks.height)))

    def _draw_points(self, tracks: Tracks) -> None:
        colors = self._palette.colors(tracks)  # [N, 3]
        strips, owners = self._trails.follow(tracks)
        radii = np.where(tracks.visible, POINT_RADII[True], POINT_RADII[False])  # [N]
        log = self._recording.log
        log("camera/trails", rr.LineStrips2D(strips, colors=colors[owners], radii=rr.Radius.ui_points(1.25)))
        log("camera/points/rim", rr.Points2D(tracks.xy, colors=RIM, radii=rr.Radius.ui_points(radii + RIM_WIDTH)))
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

    def _flush(self) -> None:  # rerun before 0.26 flushes without a limit
        self._recording.flush(**known(rr.RecordingStream.flush, {"timeout_sec": self._stall_seconds}))
