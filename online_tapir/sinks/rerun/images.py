"""Pictures for the Rerun viewer: compressed, stretched over the pixels that they cover, with captions."""

import cv2
import numpy as np
import rerun as rr

from online_tapir.drawing.inspection_pictures import Overlay, Size
from online_tapir.drawing.painting import Picture

WHITE = (240, 240, 245)
OVERLAY_ORDER = 1.0  # rerun draws pictures at -10, lines at 20, points at 30


def jpeg(rgb: Picture, quality: int) -> rr.EncodedImage:
    """A picture as JPEG: at quality 85 it takes 1/15 of the bytes, in transit and in the viewer's memory."""
    return rr.EncodedImage(contents=jpeg_bytes(rgb, quality), media_type="image/jpeg")


def jpeg_bytes(rgb: Picture, quality: int) -> bytes:
    """A picture [h, w, 3] as JPEG."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def png_overlay(rgba: Overlay) -> rr.EncodedImage:
    """A translucent picture to lay over others, as PNG.

    Viewer 0.41 blends it with a compressed picture below only if it is compressed, too. The viewer does not smooth its
    pixels, so a smooth look needs enough of them.
    """
    _, data = cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))
    return rr.EncodedImage(contents=data.tobytes(), media_type="image/png", draw_order=OVERLAY_ORDER)


def smaller(rgb: Picture, longest: int | None) -> Picture:
    """Shrinks rgb [H, W, 3] to at most `longest` pixels on its longer side; unchanged if it fits, or for None."""
    size = size_within((rgb.shape[1], rgb.shape[0]), longest)
    if size == (rgb.shape[1], rgb.shape[0]):
        return rgb
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def size_within(size: Size, longest: int | None) -> Size:
    """Shrinks a size in proportion until its longer side is at most `longest`; never enlarges it."""
    scale = 1.0 if longest is None else min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def stretched(size: Size, over: Size) -> rr.Transform3D:
    """Scales a picture of `size` to a space of size `over`, corner to corner; its sibling entities are not affected."""
    return rr.Transform3D(scale=[over[0] / size[0], over[1] / size[1], 1.0])


def caption(text: str, size: Size) -> rr.Points2D:
    """A line of text at the top of a picture of `size`."""
    invisible = rr.Radius.ui_points(0.0)
    return rr.Points2D([(size[0] / 2, 0)], colors=WHITE, radii=invisible, labels=[text], show_labels=True)
