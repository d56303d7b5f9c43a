"""What the Rerun viewer shows: the picture, points with trails of the last second, curves, and the inspected point.

Rerun's 2D space over a picture matches ours: (0, 0) is the corner of the first pixel, y points down (checked in viewer
0.41). It draws no translucent points or lines, so hidden points are dimmed towards black and drawn smaller. What a
viewer that connects late needs is logged repeatedly, because the server discards the oldest data first.
"""

from dataclasses import replace

import numpy as np
import rerun as rr

from online_tapir.drawing.inspection_pictures import correlations_size
from online_tapir.drawing.look import Look
from online_tapir.drawing.painting import BOX, COLOR_KEYS, RIM, RIM_WIDTH, Palette, Trails
from online_tapir.records import Tracks
from online_tapir.sinks.rate_limit import RateLimit
from online_tapir.sinks.rerun.blueprint import CURVES, Layout, blueprint
from online_tapir.sinks.rerun.images import caption, photograph, smaller, stretched
from online_tapir.sinks.rerun.inspector import Inspector
from online_tapir.sinks.rerun.moment import Moment
from online_tapir.sinks.rerun.rooted import Rooted

JPEG_QUALITY = 85
POINT_RADII = {True: 4.5, False: 3.0}  # by `visible`; screen pixels, at any zoom
CAPTION_FPS = 1.0  # how often the frame rate in the caption changes, so that it stays readable


class Scene:
    """One camera in a Rerun recording, and its state between frames.

    The scenes of several cameras share a recording (`beside`), in which each has its entities under its `root`.
    With `flush_every` 1, `draw` returns once the viewer has the frame, so that none pile up in transit. Methods raise
    RuntimeError if the viewer or the disk is gone.
    """

    def __init__(
        self, *, look: Look, flush_every: int, stall_seconds: float, root: str = "", beside: "Scene | None" = None
    ) -> None:
        self._recording: rr.RecordingStream = (
            rr.RecordingStream("online-tapir") if beside is None else beside._recording
        )
        self._layouts: dict[str, Layout] = {} if beside is None else beside._layouts  # by root
        self._root = root
        self._log = Rooted(self._recording, root).log
        self._look = look
        self._flush_every = flush_every
        self._stall_seconds = stall_seconds
        self._pictures, self._captions = RateLimit(look.fps), RateLimit(CAPTION_FPS)
        self._trails = Trails()
        self._palette = Palette(look.color)
        self._inspector = Inspector(Rooted(self._recording, root), compressed=look.compressed)
        self._layout: Layout | None = None
        self._rate = ""  # the frame rate, as the caption shows it
        self._drawn = 0

    def save(self, path: str) -> None:
        self._recording.save(path)

    def connect(self, url: str) -> None:
        self._recording.connect_grpc(url)

    def draw(self, moment: Moment) -> None:
        """Logs one frame at its id and its capture time: the curves, the picture and everything drawn over it.

        A picture that comes sooner than the `look` allows is left out, with everything drawn over it.
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

    def retire(self) -> None:
        """Leaves its place in the layout: others, beside it in the recording, draw from now on."""
        self._layouts.pop(self._root, None)

    def abandon(self) -> None:
        """Gives up data in transit: otherwise rerun would keep the program from ending while the viewer hangs."""
        rr.unregister_shutdown()

    def _lay_out(self, moment: Moment) -> None:
        """Sends a new blueprint when the layout changes: for another title or size, or for the first inspection."""
        tracks, before = moment.tracks, self._layout
        title = " · ".join(name for name in (tracks.camera, tracks.model) if name) or "camera"
        layout = replace(
            before or Layout(compressed=self._look.compressed, root=self._root),
            title=title,
            size=(tracks.width, tracks.height),
        )
        if (seen := tracks.inspection) is not None:
            layout = replace(layout, planes=len(seen.cost), correlations=correlations_size(seen.correlations))
        if layout != before:
            self._layouts[self._root] = layout
            self._recording.send_blueprint(blueprint(*self._layouts.values()))
        self._layout = layout

    def _draw_curves(self, moment: Moment) -> None:
        log = self._log
        if moment.fps is not None:
            log("curves/frame_rate", rr.Scalars(moment.fps))
        log("curves/latency", rr.Scalars(moment.latency_ms))
        log("curves/visible", rr.Scalars(int(moment.tracks.visible.sum())))

    def _draw_picture(self, moment: Moment) -> None:
        picture = smaller(moment.frame.rgb, self._look.longest_side)
        tracks = moment.tracks
        over = stretched((picture.shape[1], picture.shape[0]), (tracks.width, tracks.height))
        shown = photograph(picture, JPEG_QUALITY, compressed=self._look.compressed)
        self._log("camera/picture", shown, over)

    def _draw_caption(self, moment: Moment) -> None:
        tracks = moment.tracks
        if moment.fps is not None and self._captions.due(tracks.captured_ns):
            self._rate = f"{moment.fps:.1f} fps"
        parts = [
            self._rate,
            f"{int(tracks.visible.sum())} of {len(tracks.ids)} visible",
            tracks.search,
            COLOR_KEYS[self._look.color],
        ]
        text = " · ".join(filter(None, parts))
        self._log("camera/caption", caption(text, (tracks.width, tracks.height)))

    def _draw_points(self, tracks: Tracks) -> None:
        colors = self._palette.colors(tracks)  # [N, 3]
        strips, owners = self._trails.follow(tracks)
        radii = np.where(tracks.visible, POINT_RADII[True], POINT_RADII[False])  # [N]
        log = self._log
        outlines = [(one.name, one.box) for one in tracks.objects if one.box is not None]
        closed = [np.concatenate([box, box[:1]]) for _, box in outlines]
        log("camera/objects", rr.LineStrips2D(closed, labels=[name for name, _ in outlines], colors=BOX))
        log("camera/trails", rr.LineStrips2D(strips, colors=colors[owners], radii=rr.Radius.ui_points(1.25)))
        log("camera/points/rim", rr.Points2D(tracks.xy, colors=RIM, radii=rr.Radius.ui_points(radii + RIM_WIDTH)))
        log(
            "camera/points",
            rr.Points2D(
                tracks.xy,
                colors=colors,
                radii=rr.Radius.ui_points(radii),
                labels=[tracks.called(id_) for id_ in tracks.ids.tolist()],
                show_labels=False,
                draw_order=31.0,  # above the rims, which are at rerun's default of 30
            ),
        )

    def _describe_curves(self) -> None:
        for entity, (title, color) in CURVES.items():
            self._log(entity, rr.SeriesLines(colors=color, names=title, widths=1.5), static=True)

    def _flush(self) -> None:  # flush has no time-out before rerun 0.26
        self._recording.flush(timeout_sec=self._stall_seconds)
