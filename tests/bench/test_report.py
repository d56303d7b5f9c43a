"""A bench ends with one line of JSON that holds all that made its figures."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bench.command import BenchError, pixels, run
from bench.report import RANKS, Distribution, Spread, commit, finish, machine, print_table, versions


@dataclass(frozen=True)
class Settings:
    points: int = 7
    photos: Path | None = None


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("values", "p50", "p95", "p99", "largest"),
    [
        ([3.0], 3, 3, 3, 3),
        ([2, 1], 1, 2, 2, 2),
        (range(1, 101), 50, 95, 99, 100),
        (range(1000, 0, -1), 500, 950, 990, 1000),
        ([1] * 96 + [9, 9, 9, 50], 1, 1, 9, 50),
    ],
)
def test_a_spread_is_of_values_that_occurred(
    values: list[float], p50: float, p95: float, p99: float, largest: float
) -> None:
    assert Spread.of(list(values)) == Spread(len(values), p50, p95, p99, largest)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_a_spread_of_nothing_or_nan_is_our_mistake(values: list[float]) -> None:
    with pytest.raises(AssertionError):
        Spread.of(values)


@pytest.mark.parametrize("count", [1, 7, 33, 2000])
def test_a_distribution_is_the_values_at_their_ranks_and_agrees_with_the_spread(count: int) -> None:
    values = np.random.default_rng(count).permutation(count) + 1.0
    found, spread = Distribution.of(values), Spread.of(values)
    at = dict(zip(found.percent, found.value, strict=True))
    assert tuple(at) == RANKS
    assert (at[0], at[50], at[95], at[99], at[100]) == (1, spread.p50, spread.p95, spread.p99, count)
    assert list(found.value) == sorted(found.value)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_a_distribution_of_nothing_or_nan_is_our_mistake(values: list[float]) -> None:
    with pytest.raises(AssertionError):
        Distribution.of(values)


@pytest.mark.parametrize("size", ["", "640", "640x", "640x480x3", "wide"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(BenchError, match="WIDTHxHEIGHT"):
        pixels(size)


def test_the_last_line_is_one_json_document_with_everything_that_made_the_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table("a table", {"step": Spread.of([1.0, 2.0])}, {"fps": 25})
    finish("tidy", Settings(photos=Path("where/some")), {"step_ms": Spread.of([1.0, 2.0]), "rows": [Settings()]})
    document = json.loads(last_line(capsys))
    assert list(document) == ["bench", "finished", "commit", "machine", "versions", "settings", "interval", "results"]
    assert document["settings"] == {"points": 7, "photos": "some"}
    assert document["results"]["step_ms"] == {"count": 2, "p50": 1.0, "p95": 2.0, "p99": 2.0, "max": 2.0}
    assert document["results"]["rows"] == [{"points": 7, "photos": None}]


def test_the_file_holds_the_same_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish("tidy", Settings(), {"fps": 25.5}, tmp_path / "tidy.json")
    assert (tmp_path / "tidy.json").read_text() == last_line(capsys) + "\n"


def test_the_interval_is_named_and_the_picture_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spread = Spread.of([1.0, 2.0])
    finish("drift", {"model": "small"}, {"px": {"float16": spread}}, None, tmp_path / "drift.svg", interval="a step")
    assert json.loads(last_line(capsys))["interval"] == "a step"
    assert (tmp_path / "drift.svg").read_text().startswith("<?xml")


def test_a_picture_that_cannot_be_drawn_takes_no_figure_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BenchError, match="'tidy' has no picture"):
        finish("tidy", Settings(), {"fps": 25.5}, tmp_path / "tidy.json", tmp_path / "tidy.svg")
    assert (tmp_path / "tidy.json").read_text() == last_line(capsys) + "\n"


@pytest.mark.parametrize("result", [float("nan"), float("inf")])
def test_what_json_does_not_have_is_refused(result: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        finish("odd", Settings(), {"fps": result})


def test_what_has_no_place_in_json_is_refused() -> None:
    with pytest.raises(TypeError, match="set cannot be stored"):
        finish("odd", Settings(), {"fps": {1, 2}})


def test_the_table_shows_spreads_and_single_figures(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("a table", {"step": Spread.of([1.5, 20.25])}, {"fps": 25.5})
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("a table", "p99", "1.50", "20.25", "25.5"))


def test_the_machine_and_the_versions_are_known() -> None:
    assert machine()["usable_cpus"] >= 1
    assert machine()["processor"]
    assert machine()["memory_gib"] > 0
    assert machine()["torch_threads"] >= 1
    assert all(versions()[name] for name in ("python", "torch", "numpy", "pyzmq"))


def test_there_is_no_commit_outside_a_repository(tmp_path: Path) -> None:
    assert commit(tmp_path) is None


def test_a_commit_says_when_files_differ_from_it(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "--message", "empty")
    clean = commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "new").touch()
    assert commit(tmp_path) == f"{clean}+changes"


def test_an_error_of_a_bench_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def bench() -> None:
        raise BenchError("the table has three legs")

    with pytest.raises(SystemExit) as end:
        run(bench, [])
    assert end.value.code == 2
    assert capsys.readouterr().err == "the table has three legs\n"
