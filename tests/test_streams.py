"""Whatever becomes of the standard streams, a run goes on to its end, and nobody sees a traceback."""

import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from rich.console import Console

from online_tapir.live.status import JsonStatus, PlainStatus, StatusLine
from online_tapir.streams import Forgiving
from tests.cli.test_app import DEMO, LONG, RUN, program
from tests.live.test_status import Hand, run

FULL = Path("/dev/full")
ALONE = ("--publish", "off", "--control", "off")


class Broken(io.StringIO):
    """A stream that nothing can be written to."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@contextmanager
def broken(how: str) -> Iterator[int | IO[Any]]:
    """A stream for a child: of a full disk, of a pipe that nobody reads, of a terminal that hung up."""
    if how == "full":
        with FULL.open("w") as full:
            yield full
        return
    reader, writer = os.openpty() if how == "hung up" else os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), BrokenPipeError(), ValueError("closed")], ids=repr)
def test_no_status_raises_when_its_stream_does(error: Exception) -> None:
    out: Any = Forgiving(Broken(error))
    terminal = Console(file=out, force_terminal=True, _environ={})
    for status in (PlainStatus(Console(file=out)), StatusLine(terminal), JsonStatus(out)):
        clock = Hand()
        status._monotonic_ns = clock
        run(status, clock, frames=101)
        status.note("nobody hears this")
        status.finish()
        assert status.summary().frames == 101


@pytest.mark.skipif(not FULL.exists(), reason="there is no full disk here to write to")
@pytest.mark.parametrize("how", ["full", "nobody reads", "hung up", "closed"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_run_whose_log_cannot_be_written_ends_as_any_other(tmp_path: Path, stream: str, how: str) -> None:
    state = tmp_path / "points"
    words = (*DEMO, *RUN, *ALONE, "--frames", 9, "--save-state", state, *(["--json-log"] if stream == "stdout" else []))
    if how == "closed":
        number = 1 if stream == "stdout" else 2
        with program(*words, preexec_fn=lambda: os.close(number)) as process:
            assert process.wait(LONG) == 0
    else:
        with broken(how) as file, program(*words, **{stream: file}) as process:
            assert process.wait(LONG) == 0
    assert state.exists()


@pytest.mark.parametrize("words", [("info", "--json"), ("info",), ("--help",)], ids=" ".join)
def test_a_reader_that_leaves_is_no_error(words: tuple[str, ...]) -> None:
    with broken("nobody reads") as file, program(*words, stdout=file, stderr=subprocess.PIPE) as process:
        said = process.communicate(timeout=LONG)[1]
    assert (process.returncode, said) == (0, "")


@pytest.mark.skipif(not FULL.exists(), reason="there is no full disk here to write to")
def test_data_that_cannot_be_written_is_an_error_in_one_sentence() -> None:
    with broken("full") as file, program("info", "--json", stdout=file, stderr=subprocess.PIPE) as process:
        said = process.communicate(timeout=LONG)[1]
    assert process.returncode == 2
    assert "the standard output could not be written: [Errno 28]" in said
    assert "Traceback" not in said
    assert "Exception" not in said
