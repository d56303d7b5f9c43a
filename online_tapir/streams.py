"""Standard streams that cannot end the program: output to one that is full, closed or without a reader is lost."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO

FAILED = (OSError, ValueError)  # a full disk, a pipe without a reader, a terminal that hung up; a closed file


class Watched:
    """Wraps a text stream and remembers the `error` of a failed write.

    If `forgiven`, such an error does not fail the program: the output is only a log.
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
    """Wraps a text stream so that `write` and `flush` never raise."""

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
    """Opens /dev/null for standard streams that the caller closed (`2>&-`).

    Otherwise the next file or socket would get that descriptor, and error messages would be written into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  for good


def settle(stream: TextIO) -> OSError | ValueError | None:
    """Flushes a standard stream; if that fails, redirects it to /dev/null and returns the error.

    Otherwise the interpreter would fail to flush it at exit, complain and exit with 120.
    """
    try:
        stream.flush()
    except FAILED as error:
        with suppress(*FAILED), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        return error
    return None
