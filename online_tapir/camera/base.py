"""The interface of every source of frames, and how a source is named. Opens and reads nothing."""

import re
import unicodedata
import warnings
from collections.abc import Container
from itertools import chain, count
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LONGEST_NAME = 64  # characters


class Camera(Protocol):
    """A source of frames. One thread reads it, and the same thread closes it."""

    name: str
    """Short and safe in a topic: letters and digits of any script and `. _ : -`; never a user name or password."""

    @property
    def live(self) -> bool:
        """True: frames come whether they are read or not, and a slow reader loses some. False: they wait to be read."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame, pixels."""

    @property
    def fps(self) -> float:
        """Frames per second, as the source reports them; 0 if it has no fixed rate."""

    @property
    def description(self) -> str:
        """One line for people: the source, what it delivers, and what was requested if that differs."""

    def grab(self) -> bool:
        """Waits for a frame: True once it is there, False after the last. Raises CameraError if the source is lost."""

    def retrieve(self) -> NDArray[np.uint8]:
        """The grabbed frame, RGB uint8 [H, W, 3]. Raises CameraError or FrameError if it cannot be decoded or used."""

    def read(self) -> NDArray[np.uint8] | None:
        """grab() and retrieve() in one; None at the end."""

    def close(self) -> None:
        """Releases the source. May be called twice."""


def topic_name(text: str) -> str:
    """Replaces everything but letters, digits and `. _ : -` by dashes; at most 64 characters, never empty."""
    plain = re.sub(r"[^\w.:-]+", "-", unicodedata.normalize("NFC", text)).strip("-")
    return plain[:LONGEST_NAME].strip("-") or "camera"


def free_name(name: str, taken: Container[str]) -> str:
    """`name`, or one like it that no camera has."""
    others = (f"{name[: LONGEST_NAME - 5]}-{number}" for number in count(2))
    return next(one for one in chain([name], others) if one not in taken)


def warn(message: str) -> None:
    """The default `report`: a RuntimeWarning."""
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def in_words(size: tuple[int, int], fps: float) -> str:
    """'640x480 at 30 fps', or '640x480' without a rate."""
    return f"{size[0]}x{size[1]}" + (f" at {fps:.4g} fps" if fps > 0 else "")
