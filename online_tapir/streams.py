"""Standard streams that cannot end a program: one that is full, closed or whose reader left loses what is written."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO

FAILED = (OSError, ValueError)  # a full disk, a pipe without a reader, a terminal that hung up; a closed file


class Watched:
    """A text stream that remembers the `error` with which a write failed; the rest is the stream's own.

    With `forgiven` such an error is no failure of the program: what is written is a log.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | ValueError | None = None
        self.forgiven = False

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except FAILED as error:
            self.error = error
            raise

    def flush(self) -> None:
        try:
            self._stream.flush()
        except FAILED as error:
            self.error = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Forgiving:
    """A text stream whose `write` and `flush` never raise; the rest is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, Watched):
            stream.forgiven = True

    def write(self, text: str) -> int:
        with suppress(*FAILED):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(*FAILED):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_standard_streams() -> None:
    """Opens /dev/null in the place of standard streams that the caller closed (`2>&-`).

    Otherwise the next file or socket would get that number, and whatever writes errors would write into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  for good


def settle(stream: TextIO) -> OSError | ValueError | None:
    """Flushes a standard stream; returns why it could not be, and then lets nothing be flushed at exit.

    The interpreter would complain about that, and exit with 120.
    """
    try:
        stream.flush()
    except FAILED as error:
        with suppress(*FAILED), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        return error
    return None
