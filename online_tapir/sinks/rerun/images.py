"""Pictures for the Rerun viewer: compressed, stretched over the pixels that they cover, with captions."""

import cv2
import numpy as np
import rerun as rr

from online_tapir.drawing.inspection_pictures import Overlay, WidthHeight
from online_tapir.drawing.painting import Picture
from online_tapir.picture import to_jpeg

WHITE = (240, 240, 245)
OVERLAY_ORDER = 1.0  # rerun draws pictures at -10, lines at 20, points at 30


def photograph(rgb: Picture, quality: int, *, compressed: bool) -> rr.EncodedImage | rr.Image:
    """A picture as JPEG, or as raw YUV 4:2:0: half the bytes of RGB, five times those of JPEG at quality 85.

    Viewers since 0.33 decode JPEG as video in which every picture is a key frame, and each new key frame resets the
    decoder (rerun-io/rerun#12926): a viewer that redraws less often than pictures come, such as a browser without a
    GPU, shows none. Raw pictures need no decoder. An odd side gets its last row or column twice.
    """
    if compressed:
        return rr.EncodedImage(contents=to_jpeg(rgb, quality), media_type="image/jpeg")
    height, width = rgb.shape[:2]
    even = np.asarray(cv2.copyMakeBorder(rgb, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE))
    return rr.Image(
        bytes=cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420).tobytes(),
        width=even.shape[1],
        height=even.shape[0],
        pixel_format=rr.PixelFormat.Y_U_V12_LimitedRange,
    )


def translucent(rgba: Overlay, *, compressed: bool) -> rr.EncodedImage | rr.Image:
    """A translucent picture to lay over a photograph, compressed if the photograph is.

    Viewer 0.41 blends it only with a picture of its own kind. The viewer does not smooth its pixels, so a smooth look
    needs enough of them.
    """
    if not compressed:
        return rr.Image(rgba, color_model="RGBA", draw_order=OVERLAY_ORDER)
    _, data = cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))
    return rr.EncodedImage(contents=data.tobytes(), media_type="image/png", draw_order=OVERLAY_ORDER)


def smaller(rgb: Picture, longest: int | None) -> Picture:
    """Shrinks rgb [H, W, 3] to at most `longest` pixels on its longer side; unchanged if it fits, or for None."""
    size = size_within((rgb.shape[1], rgb.shape[0]), longest)
    if size == (rgb.shape[1], rgb.shape[0]):
        return rgb
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def size_within(size: WidthHeight, longest: int | None) -> WidthHeight:
    """Shrinks a size in proportion until its longer side is at most `longest`; never enlarges it."""
    scale = 1.0 if longest is None else min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def stretched(size: WidthHeight, over: WidthHeight) -> rr.Transform3D:
    """Scales a picture of `size` to a space of size `over`, corner to corner; its sibling entities are not affected."""
    return rr.Transform3D(scale=[over[0] / size[0], over[1] / size[1], 1.0])


def caption(text: str, size: WidthHeight) -> rr.Points2D:
    """A line of text at the top of a picture of `size`."""
    invisible = rr.Radius.ui_points(0.0)
    return rr.Points2D([(size[0] / 2, 0)], colors=WHITE, radii=invisible, labels=[text], show_labels=True)
