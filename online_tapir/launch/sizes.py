"""Sizes as people write them on a command line."""

from typing import Literal

from online_tapir.errors import ConfigError

DIGITS = 7  # more are no size, and cost time to read


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
