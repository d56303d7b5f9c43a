"""The frames that a tracker accepts."""

import numpy as np
from numpy.typing import NDArray

from online_tapir.clock import Clock
from online_tapir.errors import FrameError
from online_tapir.picture import rgb_to_rgb8
from online_tapir.records import Frame
from online_tapir.tracking.window import RememberedFrame


def accepted(rgb: NDArray[np.uint8] | Frame, last: RememberedFrame | None, clock: Clock) -> Frame:
    """The next frame after `last`; a bare array is stamped now and numbered after it.

    Raises FrameError for what is no picture or out of order.
    """
    before = -1 if last is None else last.id
    if not isinstance(rgb, Frame):
        return Frame(before + 1, clock.monotonic_ns(), clock.unix_ns(), rgb_to_rgb8(rgb))
    if rgb.id <= before:
        raise FrameError(f"frame {rgb.id} came after frame {before}; give frames in the order of their ids")
    return Frame(rgb.id, rgb.captured_ns, rgb.captured_unix_ns, rgb_to_rgb8(rgb.rgb))
