"""Replaces files atomically, and refuses to overwrite the wrong ones: one set of rules for every writer."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryFile

from online_tapir.errors import ConfigError


def beside(path: Path) -> Path:
    """Where a new version of `path` is written before it replaces `path`."""
    return path.parent / f"{path.name}.partial"


@contextmanager
def replacing(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yields a path to write to; at the end of the `with`, that file atomically replaces `path`.

    If the block raises, `path` stays as it was. With `sync`, the content is on the disk before it replaces `path`.
    Raises OSError if something cannot be written.
    """
    partial = beside(path)
    try:
        yield partial
        if sync:
            _sync(partial)
        partial.replace(path)
        if sync:
            _sync(path.parent)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def expanded(path: str | Path) -> Path:
    """The path with `~` as the user's folder; that of a user who does not exist stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def make_folder(folder: Path) -> None:
    """Creates `folder` unless it exists. ConfigError where it cannot be created, or no file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"cannot write into the folder {folder}: {error.strerror or error}; name another folder"
        ) from error


def refuse_unwritable(flag: str, path: Path) -> None:
    """Raises ConfigError if `path` cannot be written; leaves its content alone. Call it before long work, not after."""
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise ConfigError(f"{flag} {path} cannot be written: {error.strerror or error}; name another file") from error


def refuse_overwriting(
    outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None], *, overwrite: bool = False
) -> None:
    """ConfigError where an output would destroy an input, another output, or, without `overwrite`, any existing file.

    The keys are the flags, for the message; None stands for a flag that was not given. What is not a regular file, such
    as /dev/null or a pipe, may always be written.
    """
    taken = {_identity(path): (flag, path) for flag, path in inputs.items() if path is not None}
    for flag, path in outputs.items():
        if path is None:
            continue
        identity = _identity(path)
        if identity in taken:
            other, same = taken[identity]
            raise ConfigError(f"{flag} {path} would overwrite {other} {same}; name another file")
        taken[identity] = flag, path
        if path.is_file() and not overwrite:
            raise ConfigError(f"{flag} {path} exists already; name another file, or add --overwrite to replace it")


def _identity(path: Path) -> object:
    """Equal for two names of one file, whether or not it exists."""
    path = expanded(path)
    try:
        found = path.stat()
    except OSError:
        return path.resolve()
    return found.st_dev, found.st_ino


def _sync(path: Path) -> None:
    with suppress(OSError) if path.is_dir() else nullcontext():  # not every file system syncs folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
