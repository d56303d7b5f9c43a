"""A trial is counted by what was seen, the relay spoils only when told, and a run is watched from outside."""

import json
import random
import socket
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from bench import faults
from bench.command import BenchError
from bench.faults import Settings, Trials, Unexpected, Wire, main, program, tried


def good() -> None:
    """As expected."""


def bad(words: str) -> None:
    raise Unexpected(words)


def of(*trials: Any, at_the_end: str = "") -> Any:
    def fault(settings: Settings) -> Trials:
        yield from trials
        if at_the_end:
            raise Unexpected(at_the_end)

    return "expected", fault


def test_trials_are_counted_by_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = of(good, partial(bad, "no frame"), partial(bad, "no frame"), partial(bad, "ended with 1"), good)
    monkeypatch.setattr(faults, "FAULTS", {"this": trials})
    found = tried(Settings(times=5), "this")
    assert found["good"] == 2
    assert found["else"] == {"no frame": 2, "ended with 1": 1}


@pytest.mark.parametrize("trials", [of(good, partial(bad, "late")), of(good, good, at_the_end="memory grew"), of(good)])
def test_what_is_not_as_expected_each_time_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trials: Any
) -> None:
    monkeypatch.setattr(faults, "FAULTS", {"this": trials})
    with pytest.raises(BenchError, match="not as expected: this"):
        main(Settings(times=2))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["results"]["faults"][0]["fault"] == "this"


def test_what_is_as_expected_each_time_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(faults, "FAULTS", {"this": of(good, good), "that": of(partial(bad, "not chosen"))})
    main(Settings(times=2, faults=("this",)))
    assert "as expected 2 times" in capsys.readouterr().out


def test_a_fault_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BenchError, match="no fault is called flood of tea"):
        main(Settings(faults=("flood of tea",)))


@pytest.mark.parametrize("spoilt", [False, True])
def test_the_relay_spoils_what_passes_when_it_is_told_to(spoilt: bool) -> None:
    sent = bytes(1316)
    with (
        socket.create_server(("127.0.0.1", 0)) as upstream,
        closing(Wire(upstream.getsockname()[1], random.Random(0))) as wire,
    ):
        if spoilt:
            wire.spoil.set()
        host, port = wire.address.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port)), 5) as reader:
            source, _ = upstream.accept()
            with source:
                source.sendall(sent)
            received = b"".join(iter(lambda: reader.recv(4096), b""))
    assert len(received) == len(sent)
    assert (received != sent) is spoilt


def test_a_program_that_does_not_begin_is_told_with_its_last_words() -> None:
    ended = r"the program ended with 2: .*--resolution"
    with pytest.raises(Unexpected, match=ended), program(Settings(), "--resolution", "grid"):
        pass
