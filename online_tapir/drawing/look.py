"""How tracks look: their colours, and the limits on pictures sent to a Rerun viewer. Standard library only."""

from dataclasses import dataclass
from typing import Literal, get_args

ColorMode = Literal["row", "identity", "visibility", "uncertainty", "speed"]

COLOR_MODES: tuple[ColorMode, ...] = get_args(ColorMode)
DEFAULT_COLOR: ColorMode = "row"
LIVE_FPS = 30.0  # default limit on pictures per second, for a live viewer
LIVE_SIDE = 1280  # default limit on their longer side, pixels
WEB_FPS, WEB_SIDE = 10.0, 640  # the same for a browser, which gets raw pictures: 5 MB a second at 640x480
DEFAULT_MEMORY = "2GB"  # limit of the viewer and of the server; both discard the oldest frames first


@dataclass(frozen=True, slots=True)
class Look:
    """The colours of the points in a viewer, and the limits on its pictures; None: no limit."""

    color: ColorMode = DEFAULT_COLOR
    fps: float | None = None  # most pictures per second, with everything drawn over them
    longest_side: int | None = None  # most pixels along a picture's longer side; points keep their places on it
    compressed: bool = True  # JPEG and PNG; False: raw pixels, which a slow viewer shows without decoding
