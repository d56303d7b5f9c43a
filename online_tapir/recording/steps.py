"""What every writer of files is given: the source once, then one step of the tracker after another."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from online_tapir.errors import PublishError
from online_tapir.records import Frame, Queries, Tracks

RESERVE = 64 << 20  # bytes of the disk that a recording leaves free
NOMINAL_FPS = 30.0  # video rate for a source without one; the tables have the true times


@dataclass(frozen=True, slots=True)
class Source:
    """The recorded source. `name` and `description` contain no secrets; `fps` is 0 if it has no fixed rate."""

    name: str = ""
    description: str = ""
    live: bool = False
    fps: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class TrackedFrame:
    """One step of the tracker: its input and its output."""

    frame: Frame
    tracks: Tracks
    named: Sequence[Queries] = ()  # points whose first tracks are on this frame
    unrecorded: int = 0  # steps dropped so far


class Writer(Protocol):
    """Writes steps; use it from one thread. Raises OSError or PublishError if it cannot continue."""

    def begin(self, source: Source) -> None:
        """Takes the source, before the first step."""

    def write(self, step: TrackedFrame) -> None: ...

    def close(self, end: str, unrecorded: int = 0) -> None:
        """`end` is the reason; `unrecorded` steps were dropped in total."""


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def leave_room(folder: Path, size: int, free_bytes: Callable[[Path], int] = free_bytes) -> None:
    """Raises PublishError if `size` more bytes nearly fill the disk: a full one harms others, unseen by OpenCV."""
    free = free_bytes(folder)
    if free < size + RESERVE:
        raise PublishError(f"the disk is all but full ({free >> 20} MiB are free)")
