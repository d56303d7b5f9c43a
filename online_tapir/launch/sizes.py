"""Sizes as people write them on a command line, and how many CPU threads this machine can use."""

import os
from typing import Literal

from online_tapir.errors import ConfigError

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


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(asked: int | None) -> int | None:
    """Validates `--threads`; ConfigError for more threads than CPUs, which would only slow each other down."""
    cpus = usable_cpus()
    if asked is not None and not 1 <= asked <= cpus:
        raise ConfigError(f"--threads {asked}: this machine has {cpus} CPUs; give 1 to {cpus}, or leave it out")
    return asked
