"""Pictures as the Rerun viewer takes them: compressed, stretched over the pixels that they stand for, with captions."""

import cv2
import numpy as np
import rerun as rr

from online_tapir.drawing.inspection_pictures import Overlay, Size
from online_tapir.drawing.painting import Picture

WHITE = (240, 240, 245)
OVERLAY_ORDER = 1.0  # rerun draws pictures at -10, lines at 20, points at 30


def jpeg(rgb: Picture, quality: int) -> rr.EncodedImage:
    """A photograph: at quality 85 it takes a fifteenth of the bytes, on the way and in the viewer's memory."""
    return rr.EncodedImage(contents=jpeg_bytes(rgb, quality), media_type="image/jpeg")


def jpeg_bytes(rgb: Picture, quality: int) -> bytes:
    """A picture [h, w, 3] as JPEG."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def png_overlay(rgba: Overlay) -> rr.EncodedImage:
    """A translucent picture over others.

    Viewer 0.41 sees through it to a compressed picture only if it is compressed itself, and shows its pixels as they
    are: what is to look smooth needs enough of them.
    """
    _, data = cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))
    return rr.EncodedImage(contents=data.tobytes(), media_type="image/png", draw_order=OVERLAY_ORDER)


def smaller(rgb: Picture, longest: int | None) -> Picture:
    """rgb [H, W, 3] in its proportions, its longer side `longest` pixels at most; itself where it fits, or for None."""
    size = size_within((rgb.shape[1], rgb.shape[0]), longest)
    if size == (rgb.shape[1], rgb.shape[0]):
        return rgb
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def size_within(size: Size, longest: int | None) -> Size:
    """A size of these proportions, no larger than it and its longer side `longest` at most."""
    scale = 1.0 if longest is None else min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def stretched(size: Size, over: Size) -> rr.Transform3D:
    """Lays a picture of `size` over a space of another size, corner on corner; what is drawn beside it stays."""
    return rr.Transform3D(scale=[over[0] / size[0], over[1] / size[1], 1.0])


def caption(text: str, size: Size) -> rr.Points2D:
    """A line of text at the top of a picture of `size`."""
    invisible = rr.Radius.ui_points(0.0)
    return rr.Points2D([(size[0] / 2, 0)], colors=WHITE, radii=invisible, labels=[text], show_labels=True)
