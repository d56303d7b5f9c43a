"""Draws clips with their truth for visual inspection; reads and writes no files."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from online_tapir.scenes.clips import Clips

Picture = NDArray[np.uint8]
TAIL = 8  # frames of a point's past path that are drawn
GAP = 4  # pixels between pictures


def contact_sheet(clips: Clips, columns: int = 8, scale: int = 2) -> Picture:
    """All frames of all clips with their points, RGB uint8 [h, w, 3].

    Each clip is a band of rows of up to `columns` frames, enlarged `scale` times. A disc is a visible point, a ring a
    hidden one; a square marks its query frame, a line its recent path.
    """
    return np.concatenate([_band(draw_truth(clips, index, scale), columns) for index in range(len(clips.frames))])


def draw_truth(clips: Clips, index: int, scale: int = 2) -> Picture:
    """The frames of one clip, enlarged, with their points drawn in: RGB uint8 [T, h, w, 3]."""
    frames = clips.frames[index].add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    xy = clips.xy[index].cpu().numpy() * scale  # [N, T, 2]
    visible = clips.visible[index].cpu().numpy()
    query = clips.query_frame[index].cpu().numpy()
    colours = [tuple(int(v) for v in _colour(n, len(xy))) for n in range(len(xy))]
    drawn = []
    for t, frame in enumerate(frames):
        picture = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
        for n, colour in enumerate(colours):
            _draw_point(picture, xy[n, max(0, t - TAIL) : t + 1], bool(visible[n, t]), bool(query[n] == t), colour)
        drawn.append(picture)
    return np.stack(drawn).astype(np.uint8)


def _draw_point(
    picture: Picture, path: NDArray[np.float32], visible: bool, queried: bool, colour: tuple[int, ...]
) -> None:
    """Draws one point and the path [T, 2] that ends at it into `picture`."""
    corners = np.clip(path * 16 - 8, -1e6, 1e6).round().astype(np.int32)  # OpenCV: raster - 0.5, in 1/16 pixel
    x, y = (int(v) for v in corners[-1])
    cv2.polylines(picture, [corners], False, colour, 1, cv2.LINE_AA, shift=4)
    cv2.circle(picture, (x, y), 3 * 16, colour, cv2.FILLED if visible else 1, cv2.LINE_AA, shift=4)
    if queried:
        cv2.rectangle(picture, (x - 80, y - 80), (x + 80, y + 80), (255, 255, 255), 1, cv2.LINE_AA, shift=4)


def _colour(n: int, count: int) -> NDArray[np.uint8]:
    """The n-th of `count` bright RGB colours."""
    hue = np.array([[[179 * n // max(count, 1), 255, 255]]], dtype=np.uint8)
    return np.asarray(cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0], dtype=np.uint8)


def _band(pictures: Picture, columns: int) -> Picture:
    """Pictures [T, h, w, 3] side by side in rows of `columns`."""
    count = -len(pictures) % columns if len(pictures) > columns else 0
    padded = np.concatenate([pictures, np.zeros_like(pictures[:1]).repeat(count, 0)])
    padded = np.pad(padded, ((0, 0), (0, GAP), (0, GAP), (0, 0)))
    rows = [np.concatenate(list(row), 1) for row in np.split(padded, range(columns, len(padded), columns))]
    return np.concatenate(rows)
