"""The curve of training is read run by run, and drawn with one line for each."""

from pathlib import Path

import pytest

from bench import curve
from bench.command import BenchError


def test_the_recorded_runs_are_whole_and_in_the_order_of_their_hours() -> None:
    runs = curve.read(curve.FIGURES)
    assert len(runs) > 1
    for one in runs:
        assert list(one.hours) == sorted(one.hours)
        assert all(30 < jaccard < 100 for jaccard in one.jaccard)


def test_a_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.csv").write_text("run,stage,hours,jaccard\na,first,0.5,50\na,second,1.5,60.5\nb,,1,55\n")
    curve.main(figures=tmp_path / "mine.csv", out=tmp_path / "mine.svg")
    assert capsys.readouterr().out == "a: 50.0 to 60.5 in 1.0 hours\nb: 55.0 to 55.0 in 0.0 hours\n"
    assert "<svg" in (tmp_path / "mine.svg").read_text()


@pytest.mark.parametrize(
    "text", ["run,hours\na,1\n", "run,stage,hours,jaccard\na,b,soon,1\n", "run,stage,hours,jaccard\na\n"]
)
def test_what_is_no_such_table_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text(text)
    with pytest.raises(BenchError, match=r"odd\.csv is no table"):
        curve.read(tmp_path / "odd.csv")
