"""How people see the tracks: in which colours, and how much of the pictures a Rerun viewer is given. No imports."""

from dataclasses import dataclass
from typing import Literal, get_args

ColorMode = Literal["row", "identity", "visibility", "uncertainty", "speed"]

COLOR_MODES: tuple[ColorMode, ...] = get_args(ColorMode)
DEFAULT_COLOR: ColorMode = "row"
LIVE_FPS = 30.0  # pictures a second at most for a live viewer, where nothing else is asked for
LIVE_SIDE = 1280  # pixels of their longer side at most
DEFAULT_MEMORY = "2GB"  # of the viewer and of the server; both forget the oldest frames first


@dataclass(frozen=True, slots=True)
class Look:
    """In which colours a viewer shows the points, and how much of the pictures it is given; None: all."""

    color: ColorMode = DEFAULT_COLOR
    fps: float | None = None  # pictures a second at most, with what lies over them
    longest_side: int | None = None  # pixels of a picture at most; points stay where they are on it
