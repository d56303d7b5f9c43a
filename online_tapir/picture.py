"""Converts pictures from cameras and callers to the one kind that is tracked: uint8 RGB [H, W, 3].

Grey, alpha and 16-bit pictures are converted; ambiguous ones (floats, two channels) are refused with a FrameError.
"""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.errors import FrameError

DEPTHS = (8, 10, 12, 14, 16)  # bits of a channel
MIN_SIDE = 16  # pixels; a smaller picture would be narrower than one cell of the coarsest features

_FROM_RGB = {1: cv2.COLOR_GRAY2RGB, 4: cv2.COLOR_RGBA2RGB}
_FROM_BGR = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}


def rgb_to_rgb8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Converts a grey [H, W] or [H, W, 1], RGB or RGBA picture, uint8 or uint16 (divided by 257), to uint8 RGB.

    A contiguous uint8 RGB picture is returned without a copy. Raises FrameError for any other shape or type, and for a
    picture smaller than 16x16.
    """
    return _to_rgb8(image, _FROM_RGB)


def bgr_to_rgb8(image: NDArray[Any], depth: int = 16) -> NDArray[np.uint8]:
    """The same for pictures in OpenCV's channel order: BGR, BGRA or grey; white in uint16 is 2**depth - 1."""
    return _to_rgb8(image, _FROM_BGR, depth)


def to_jpeg(rgb: NDArray[Any], quality: int) -> bytes:
    """An RGB picture as a JPEG; `quality` from 0 to 100."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality))
    return data.tobytes()


def depth_of(image: NDArray[np.uint16]) -> int:
    """How many bits a uint16 picture was taken with: the fewest of DEPTHS that hold its values.

    A picture of 8-bit values times 257 has 16, however dark it is.
    """
    most = int(image.max(initial=0))
    fewest = next(depth for depth in DEPTHS if most < 2**depth)
    return 16 if fewest > 8 and not (image % 257).any() else fewest


def _to_rgb8(image: NDArray[Any], conversions: Mapping[int, int], depth: int = 16) -> NDArray[np.uint8]:
    _check(image)
    channels = image.shape[2] if image.ndim == 3 else 1
    image = np.ascontiguousarray(image)
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=255 / (2**depth - 1))  # rounds and saturates: 65535 -> 255
    if channels in conversions:
        image = cv2.cvtColor(image, conversions[channels])
    return np.ascontiguousarray(image, dtype=np.uint8)


def _check(image: NDArray[Any]) -> None:
    if not isinstance(image, np.ndarray):
        raise FrameError(f"a frame is a numpy array of uint8 [H, W, 3], not {type(image).__name__}")
    found = f"{image.dtype} {list(image.shape)}"
    if image.dtype.kind == "f":
        nan = " with NaN in it" if np.isnan(image).any() else ""
        raise FrameError(f"a frame is uint8 [H, W, 3], not {found}{nan}; scale it to 0..255 and convert it to uint8")
    if image.dtype not in (np.uint8, np.uint16):
        raise FrameError(f"a frame is uint8 [H, W, 3], not {found}; convert it to uint8 (uint16 is accepted too)")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise FrameError(f"a frame is [H, W, 3] (or [H, W], or with 1 or 4 channels), not {found}; channels come last")
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise FrameError(f"a frame is at least {MIN_SIDE}x{MIN_SIDE} pixels, not {width}x{height}; use a larger one")
