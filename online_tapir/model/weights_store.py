"""Downloads the public checkpoints once, verifies them and keeps them in the user's cache folder.

A file gets its final name when its size and SHA-256 are correct and it loads; until then it is a `.part` file, which a
later attempt resumes. Connects only to a release's own address, and only when a file is requested.
"""

import errno
import hashlib
import http.client
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from online_tapir.errors import ConfigError, WeightsError
from online_tapir.files import expanded

CACHE_VARIABLE = "ONLINE_TAPIR_CACHE"  # a folder to use instead of the platform's
TIMEOUT_S = 30.0
BLOCK = 1 << 18
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416

Check = Callable[[Path], object]  # raises WeightsError for a file that does not load


@dataclass(frozen=True, slots=True)
class Release:
    """A published checkpoint."""

    name: str  # of its preset
    address: str
    form: str
    licence: str
    size: int | None = None  # bytes; None: not published
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        return urlsplit(self.address).path.rpartition("/")[2]


_PUBLIC = "https://storage.googleapis.com/dm-tapnet/"
RELEASES = {
    "bootstapir": Release(
        "bootstapir",
        _PUBLIC + "bootstap/causal_bootstapir_checkpoint.pt",
        "PyTorch state dict",
        "Apache-2.0",
        218_887_028,
        "87c1e752cf5ce56e3e2f7da460aeb4d40fc826d04ef2939bade86a5c7495377f",
    ),
    "tapir": Release(
        "tapir", _PUBLIC + "causal_tapir_checkpoint.npy", "NumPy pickle of Haiku parameters", "Apache-2.0"
    ),
}


class Meter(Protocol):
    """Called with the progress of a transfer, in bytes."""

    def __call__(self, done: int, total: int | None) -> None: ...


def release(name: str) -> Release:
    """The published checkpoint of preset `name`. Raises ConfigError, which lists the known ones."""
    if name not in RELEASES:
        raise ConfigError(f"no published weights {name!r}; there are {', '.join(RELEASES)}")
    return RELEASES[name]


def cache_folder() -> Path:
    """Where fetched weights are kept: $ONLINE_TAPIR_CACHE, or the platform's place for a program's cache."""
    import platformdirs

    chosen = os.environ.get(CACHE_VARIABLE)
    return expanded(chosen) if chosen else Path(platformdirs.user_cache_dir("online-tapir", appauthor=False))


def cached(wanted: Release) -> Path | None:
    """The release's file if it was fetched before; it was verified before it got its name."""
    path = cache_folder() / wanted.file_name
    return path if path.is_file() else None


def fetched(wanted: Release, check: Check) -> Path:
    """The release's file; if it is not in the cache, fetches it, with a progress bar on stderr."""
    path = cached(wanted)
    if path is not None:
        return path
    with progress_bar(wanted) as meter:
        return get(wanted, check, meter=meter)


def get(wanted: Release, check: Check, source: Path | None = None, meter: Meter | None = None) -> Path:
    """Fetches a release into the cache from its address, or from the file `source`; returns its path there.

    `check` is called on the complete file before it gets its name, and raises WeightsError if it does not load. Resumes
    interrupted downloads, now or at the next call. Raises WeightsError, and leaves nothing under the final name, for a
    file of the wrong size or hash, a server that refuses, no network, no disk space or no permission.
    """
    from filelock import FileLock  # comes with torch, without which no release is of use

    folder = cache_folder()
    path = folder / wanted.file_name
    part = path.with_name(path.name + ".part")
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(part.with_suffix(".lock")):  # of several programs that want it at once, one fetches it
            if source is None and path.is_file():
                return path
            if source is None:
                _transfer(wanted, part, meter or _silent)
            else:
                _check_readable(source)
                shutil.copyfile(source, part)
            try:
                verify(part, wanted, str(source or wanted.address))
                check(part)
            except WeightsError as error:
                part.unlink()
                raise WeightsError(f"{error}. Nothing of it was kept. {_by_hand(wanted)}") from error
            part.replace(path)
    return path


def verify(path: Path, wanted: Release, source: str | None = None) -> None:
    """Raises WeightsError if a file's size or SHA-256 differs from the release's; skips what is not published."""
    called = source or str(path)
    size = path.stat().st_size
    if wanted.size is not None and size != wanted.size:
        raise WeightsError(f"{called} is {size:,} bytes, not the {wanted.size:,} of {wanted.file_name}")
    if wanted.sha256 is not None and (found := sha256(path)) != wanted.sha256:
        raise WeightsError(f"{called} has SHA-256 {found}, not the {wanted.sha256} of {wanted.file_name}")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def progress_bar(wanted: Release) -> Iterator[Meter]:
    """A meter that draws a progress bar on stderr: bytes, speed, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(f"fetching {wanted.file_name}", total=wanted.size)

        def meter(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield meter


def _transfer(wanted: Release, part: Path, meter: Meter) -> None:
    """Downloads the whole file to `part`, resuming from what is there, as long as every attempt makes progress."""
    while True:
        before = _size(part)
        if wanted.size is not None and before == wanted.size:
            return
        if _receive(wanted, part, before, meter):
            return
        if _size(part) <= before:
            host = urlsplit(wanted.address).netloc
            raise WeightsError(
                f"the transfer from {host} was cut at {_size(part):,} bytes; try again to resume it. {_by_hand(wanted)}"
            )


def _receive(wanted: Release, part: Path, start: int, meter: Meter) -> bool:
    """Writes one response to `part`, from byte `start` on; returns whether that completes the file."""
    with _open(wanted, start) as answer:
        if answer.status != PARTIAL_CONTENT or _first_byte(answer.headers.get("Content-Range")) != start:
            start = 0  # the server sends the file from its beginning
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length is not None else wanted.size
        if wanted.size is not None and total != wanted.size:  # a proxy's page, for instance: what is there is kept
            host = urlsplit(wanted.address).netloc
            wrong = f"is {total:,} bytes, not the {wanted.size:,} of {wanted.file_name}"
            raise WeightsError(f"what {host} sends {wrong}. {_by_hand(wanted)}")
        _check_room(part, total)
        with part.open("r+b" if start else "wb") as file:
            done = file.seek(start)
            for block in _blocks(answer):
                file.write(block)
                done += len(block)
                meter(done, total)
    return total is None or done == total


def _open(wanted: Release, start: int) -> http.client.HTTPResponse:
    """The server's response, from byte `start` of the file on if it supports that."""
    request = Request(wanted.address, headers={"User-Agent": "online-tapir", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    host = urlsplit(wanted.address).netloc
    try:
        answer: http.client.HTTPResponse = urlopen(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if start and error.code == RANGE_NOT_SATISFIABLE:  # the partial file is not the beginning of the server's
            return _open(wanted, 0)
        raise WeightsError(f"{host} answers {error.code} {error.reason}. {_by_hand(wanted)}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise WeightsError(f"{host} cannot be reached ({reason}). {_by_hand(wanted)}") from error
    return answer


def _blocks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The data that arrives until the response or its connection ends."""
    with suppress(OSError, http.client.HTTPException):
        while block := answer.read(BLOCK):
            yield block


def _first_byte(content_range: str | None) -> int | None:
    """The first byte of a Content-Range such as `bytes 100-199/200`."""
    start = (content_range or "").removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdecimal() else None


def _check_room(part: Path, total: int | None) -> None:
    need = (total or 0) - _size(part)
    if need > shutil.disk_usage(part.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))


def _check_readable(source: Path) -> None:
    if not (source.is_file() and os.access(source, os.R_OK)):
        raise WeightsError(f"there is no file {source} that can be read; check the path")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _by_hand(wanted: Release) -> str:
    return (
        f"To do it by hand, fetch {wanted.address} and run `online-tapir weights get {wanted.name} "
        f"--from {wanted.file_name}`"
    )


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turns disk errors into WeightsErrors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(folder).free
            fault = f"no room in {folder}, where {free:,} bytes are free; make some"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            fault = f"no permission to write in {folder}; allow it"
        elif error.errno in (errno.EEXIST, errno.ENOTDIR):
            fault = f"{folder} is not a folder; remove the file that is in its place"
        else:
            fault = f"weights cannot be kept in {folder} ({error.strerror or error})"
        raise WeightsError(f"{fault}, or name another folder in ${CACHE_VARIABLE}") from error


def _silent(done: int, total: int | None) -> None:
    pass
