"""Fetching: a file under its final name is whole and right, whatever the network, the server and the disk did."""

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from online_tapir.errors import ConfigError, WeightsError
from online_tapir.model import weights_store
from online_tapir.model.weights_store import Release

CONTENT = np.random.default_rng(0).bytes(1_000_003)
RELEASE = Release("file", "", "bytes", "none", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
CHANGED = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])


@dataclass
class Server:
    """A file on loopback, and what each request for it may go through."""

    content: bytes = CONTENT
    knows_ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes of each next answer, after which the connection ends
    status: int | None = None  # answered in place of the file
    tells_length: bool = True
    asked: list[str | None] = field(default_factory=list)  # the Range of each request
    release: Release = RELEASE

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        if self.status is not None:
            request.send_error(self.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.knows_ranges else 0
        if start >= len(self.content):
            request.send_error(416)
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.tells_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)
        request.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, format: str, *words: Any) -> None:
            pass

    with listening(Handler) as port:
        served.release = replace(served.release, address=f"http://127.0.0.1:{port}/some/file.bin")
        yield served


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield http.server_address[1]
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(weights_store.CACHE_VARIABLE, str(folder))
    return folder


def loads(path: Path) -> None:
    """Any file does."""


def refusal(release: Release, source: Path | None = None, check: Callable[[Path], object] = loads) -> str:
    """What the error says; nothing may have got the final name."""
    with pytest.raises(WeightsError) as refused:
        weights_store.get(release, check, source)
    assert weights_store.cached(release) is None
    return str(refused.value)


def kept(cache: Path) -> list[str]:
    """What is in the cache, but for the lock that programs wait at."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_a_file_is_fetched_once_and_then_found(server: Server, cache: Path) -> None:
    path = weights_store.fetched(server.release, loads)
    assert path == cache / "file.bin"
    assert path.read_bytes() == CONTENT
    assert weights_store.fetched(server.release, loads) == path
    assert len(server.asked) == 1
    assert kept(cache) == ["file.bin"]


def test_two_programs_that_want_it_at_once_both_get_it(server: Server, cache: Path) -> None:
    with ThreadPoolExecutor(2) as both:
        found = list(both.map(lambda _: weights_store.get(server.release, loads), range(2)))
    assert found == 2 * [cache / "file.bin"]
    assert found[0].read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_cut_transfer_goes_on_where_it_was_cut(server: Server) -> None:
    server.cuts = [300_000, 200_000]
    assert weights_store.get(server.release, loads).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: Server, cache: Path) -> None:
    server.cuts = [300_000, 0]
    said = refusal(server.release)
    assert "was cut at 300,000 bytes; try again to resume it" in said
    assert server.release.address in said
    assert weights_store.get(server.release, loads).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=300000-"
    assert kept(cache) == ["file.bin"]


def test_a_server_that_ignores_ranges_still_gives_a_right_file(server: Server) -> None:
    server.knows_ranges = False
    server.cuts = [300_000]
    assert weights_store.get(server.release, loads).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_a_server_that_cuts_every_answer_short_is_given_up(server: Server) -> None:
    server.knows_ranges = False
    server.cuts = [300_000] * 9
    assert "was cut at 300,000 bytes" in refusal(server.release)
    assert len(server.asked) == 2


def test_a_server_that_tells_no_length_still_gives_a_right_file(server: Server) -> None:
    server.tells_length = False
    server.cuts = [300_000]
    assert weights_store.get(server.release, loads).read_bytes() == CONTENT


@pytest.mark.parametrize("beginning", [CONTENT[:5000], CHANGED[:-1] + b"more", CONTENT])
def test_whatever_an_earlier_try_left_the_file_is_right_or_refused(
    server: Server, cache: Path, beginning: bytes
) -> None:
    cache.mkdir()
    (cache / "file.bin.part").write_bytes(beginning)
    try:
        path = weights_store.get(server.release, loads)
    except WeightsError:
        path = weights_store.get(server.release, loads)  # what was wrong is gone
    assert path.read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_fetched_anew(server: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / "file.bin.part").write_bytes(CONTENT + b"more")
    assert weights_store.get(server.release, loads).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_wrong_hash_is_never_used(server: Server, cache: Path) -> None:
    server.content = CHANGED
    said = refusal(server.release)
    assert f"has SHA-256 {hashlib.sha256(CHANGED).hexdigest()}, not the {server.release.sha256}" in said
    assert "Nothing of it was kept" in said
    assert kept(cache) == []


def test_a_wrong_size_is_never_used(server: Server, cache: Path) -> None:
    server.content = CONTENT[:-10]
    assert "is 999,993 bytes, not the 1,000,003 of file.bin" in refusal(server.release)
    assert kept(cache) == []


def test_where_no_hash_is_known_a_file_that_does_not_load_is_never_used(server: Server, cache: Path) -> None:
    def check(path: Path) -> NoReturn:
        assert path.read_bytes() == CONTENT
        raise WeightsError(f"{path} is a web page")

    said = refusal(replace(server.release, size=None, sha256=None), check=check)
    assert "is a web page. Nothing of it was kept. To do it by hand, fetch http://127.0.0.1" in said
    assert kept(cache) == []


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_refuses_is_quoted_with_the_address_to_fetch_by_hand(server: Server, status: int) -> None:
    server.status = status
    said = refusal(server.release)
    assert f"answers {status} " in said
    assert f"fetch {server.release.address} and run `online-tapir weights get file --from file.bin`" in said


def test_no_network_says_the_address_to_fetch_by_hand() -> None:
    release = Release("file", "http://127.0.0.1:9/file.bin", "bytes", "none")  # the port of nobody
    said = refusal(release)
    assert "127.0.0.1:9 cannot be reached (" in said
    assert f"fetch {release.address} and run" in said


def test_a_file_from_elsewhere_is_checked_as_strictly(server: Server, tmp_path: Path, cache: Path) -> None:
    given = tmp_path / "given.bin"
    given.write_bytes(CHANGED)
    assert f"{given} has SHA-256" in refusal(server.release, given)
    given.write_bytes(CONTENT)
    assert weights_store.get(server.release, loads, given).read_bytes() == CONTENT
    assert not server.asked
    assert given.exists()
    assert kept(cache) == ["file.bin"]


def test_a_file_from_elsewhere_must_be_there(server: Server, tmp_path: Path) -> None:
    assert "there is no file" in refusal(server.release, tmp_path / "nowhere.bin")


def test_a_full_disk_is_said_before_anything_is_written(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = weights_store.shutil.disk_usage
    monkeypatch.setattr(weights_store.shutil, "disk_usage", lambda path: real(path)._replace(free=7))
    assert f"no room in {cache}, where 7 bytes are free" in refusal(server.release)
    assert kept(cache) == []


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "no room in"),
        (errno.EACCES, "no permission to write in"),
        (errno.EROFS, "no permission to write in"),
        (errno.EIO, "weights cannot be kept in"),
    ],
)
def test_what_the_disk_says_is_a_sentence(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    def refuse(path: Path, mode: str = "r", *_: Any, **__: Any) -> NoReturn:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    said = refusal(server.release)
    assert f"{told} {cache}" in said
    assert "name another folder in $ONLINE_TAPIR_CACHE" in said


def test_a_file_where_the_folder_should_be_is_a_sentence(server: Server, cache: Path) -> None:
    cache.write_text("not a folder")
    with pytest.raises(WeightsError, match="is not a folder; remove the file"):
        weights_store.get(server.release, loads)


def test_the_meter_ends_at_the_files_size(server: Server) -> None:
    server.cuts = [300_000]
    seen: list[tuple[int, int | None]] = []
    weights_store.get(server.release, loads, meter=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_without_a_folder_of_ones_own_the_platform_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(weights_store.CACHE_VARIABLE)
    assert "online-tapir" in weights_store.cache_folder().parts


def test_an_unpublished_name_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no published weights 'small'; there are bootstapir, tapir"):
        weights_store.release("small")
