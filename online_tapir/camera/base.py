"""What every source of frames is, and how one is named; it opens and reads nothing."""

import re
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Camera(Protocol):
    """A source of frames. One thread reads it, and the same thread closes it."""

    @property
    def name(self) -> str:
        """Short and safe in a topic: letters, digits and `. _ : -`; never a user name or a password."""

    @property
    def live(self) -> bool:
        """True: frames come whether they are read or not, and late readers lose some. False: they wait to be read."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame, pixels."""

    @property
    def fps(self) -> float:
        """Frames a second the source says it has; 0 when it has no rate of its own."""

    @property
    def description(self) -> str:
        """One line for people: what it is, what it really gives, and what was asked where that differs."""

    def grab(self) -> bool:
        """Wait for a frame: True the moment it is there, False after the last. Raises CameraError when it is lost."""

    def retrieve(self) -> NDArray[np.uint8]:
        """The frame that was grabbed, RGB uint8 [H, W, 3]. Raises CameraError or FrameError when it cannot be had."""

    def read(self) -> NDArray[np.uint8] | None:
        """grab() and retrieve() in one; None at the end."""

    def close(self) -> None:
        """Give the source back. Closing twice is allowed."""


def topic_name(text: str) -> str:
    """text with everything that could upset a topic turned into dashes."""
    return re.sub(r"[^A-Za-z0-9._:-]+", "-", text).strip("-") or "camera"


def in_words(size: tuple[int, int], fps: float) -> str:
    """'640x480 at 30 fps', or '640x480' for what has no rate."""
    return f"{size[0]}x{size[1]}" + (f" at {fps:.4g} fps" if fps > 0 else "")
