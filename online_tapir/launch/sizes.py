"""Sizes as people write them on a command line."""

from typing import Literal

from online_tapir.errors import ConfigError
from online_tapir.limits import LEAST_INPUT, MOST_INPUT

STRIDE = 8  # of the coarse grid: an input's sides are multiples of it
DIGITS = 7  # longer numbers are not sizes, and are slow to parse


def frame_size(text: str | None, flag: str = "--size") -> tuple[int, int] | None:
    """(width, height) of "1280x720"; ConfigError for anything else, None for None."""
    if text is None:
        return None
    width, x, height = text.lower().partition("x")
    if not (x and all(side.isascii() and side.isdecimal() and len(side) <= DIGITS for side in (width, height))):
        raise ConfigError(f"{flag} {text!r} is not WIDTHxHEIGHT; write 1280x720, for instance")
    return int(width), int(height)


def resolution(text: str | None) -> tuple[int, int] | Literal["frame"] | None:
    """(height, width) of a `--resolution`, "frame", or None."""
    if text == "frame":
        return "frame"
    size = frame_size(text, "--resolution")
    return None if size is None else (size[1], size[0])


def input_size(text: str, frame: tuple[int, int], flag: str = "--input", *, auto: bool = False) -> tuple[int, int]:
    """(height, width) of an `--input`, or of another flag of its kind, for frames of size `frame` (width, height).

    A single number is the longer side; the other has the frame's aspect, rounded to a multiple of 8. Raises ConfigError
    for anything that is no size, or no multiple of 8; its message names `flag`, and `auto` where that is taken, too.
    """
    if "x" in text.lower():
        width, height = frame_size(text, flag) or (0, 0)
    elif text.isascii() and text.isdecimal() and len(text) <= DIGITS:
        known = frame if min(frame) > 0 else (1, 1)  # a camera that is waited for: a square
        width, height = (max(LEAST_INPUT, round(int(text) * side / max(known) / STRIDE) * STRIDE) for side in known)
    else:
        also = ", or auto" if auto else ""
        raise ConfigError(f"{flag} {text!r} is not a size; write 512x288, or 384 for the longer side{also}")
    if width % STRIDE or height % STRIDE or not LEAST_INPUT <= min(width, height) <= max(width, height) <= MOST_INPUT:
        near = "x".join(str(min(MOST_INPUT, max(LEAST_INPUT, round(n / STRIDE) * STRIDE))) for n in (width, height))
        raise ConfigError(
            f"{flag} {text}: sides are multiples of {STRIDE} from {LEAST_INPUT} to {MOST_INPUT}; {near} would do"
        )
    return height, width
