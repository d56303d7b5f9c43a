"""Pictures come from documents alone, show what is in them, and are the same bytes for the same documents."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes

from bench import plots
from bench.command import BenchError, run
from tests.bench import documents


def axes_of(*drawn: dict[str, Any]) -> list[Axes]:
    return plots.picture(drawn).axes


def curve(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


@pytest.mark.parametrize(("bench", "kind"), [("scale", "png"), *((bench, "svg") for bench in documents.EVERY)])
def test_every_bench_draws_the_same_bytes_twice(bench: str, kind: str, tmp_path: Path) -> None:
    first, second = tmp_path / f"first.{kind}", tmp_path / f"second.{kind}"
    plots.draw([documents.EVERY[bench]], first)
    plots.draw([documents.EVERY[bench]], second)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size > 4000


@pytest.mark.parametrize("bench", documents.EVERY)
def test_every_axis_says_what_it_shows(bench: str) -> None:
    figure = plots.picture([documents.EVERY[bench]])
    assert all(axes.get_xlabel() or axes.get_ylabel() for axes in figure.axes)
    assert "0123456789" in figure.get_supxlabel()
    assert f"bench.{bench}" in figure.get_supxlabel()


def test_there_is_a_document_for_every_picture() -> None:
    assert set(documents.EVERY) == set(plots.PICTURES)


def test_a_live_run_is_a_curve_of_its_own_distribution() -> None:
    left, right = axes_of(documents.live((30.0, "nothing"), (60.0, "nothing"), (0.0, "rerun-save")))
    assert curve(left, "30 fps") == ([10, 20, 40], [0, 50, 100])
    assert curve(left, "unpaced, rerun save") == ([10, 20, 42], [0, 50, 100])
    assert [text.get_text() for text in right.get_yticklabels()] == ["30 fps", "60 fps", "unpaced\nrerun save"]
    bars = [bar for bar in right.patches if bar.get_y() < 0]  # of the first run: 8 stages of 20 ms, 4 of them in one
    assert [bar.get_width() for bar in bars] == [20, 20, 20, 20, 80]


def test_live_documents_of_different_sizes_are_told_apart() -> None:
    other = documents.live((30.0, "nothing"))
    other["settings"] |= {"points": 256}
    left, _ = axes_of(documents.live((30.0, "nothing")), other)
    assert curve(left, "30 fps, 640x480, 64 points")
    assert curve(left, "30 fps, 640x480, 256 points")


def test_a_step_is_drawn_over_its_points_in_their_order() -> None:
    (axes,) = axes_of(documents.scale({64: 20.0, 1: 10.0, 4096: 900.0}), documents.scale({1: 1.0, 64: 2.0}, "LK"))
    assert curve(axes, "small, 256x256") == ([1, 64, 4096], [10, 20, 900])
    assert curve(axes, "LK, 256x256") == ([1, 64], [1, 2])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in axes.texts] == ["30 fps", "60 fps"]


def test_resolutions_share_a_trackers_colour_and_differ_in_their_dash() -> None:
    (axes,) = axes_of(documents.scale({1: 10.0, 2: 11.0}), documents.scale({1: 20.0, 2: 21.0}, resolution="512x512"))
    low, high = (line for line in axes.lines if str(line.get_label()).startswith("small"))
    assert low.get_color() == high.get_color()
    assert low.get_linestyle() != high.get_linestyle()


def test_a_price_below_nothing_is_drawn_at_the_least() -> None:
    (axes,) = axes_of(documents.window())
    assert curve(axes, "64 points") == ([0, 1, 32], [plots.LEAST_MS, 63, 64 * 32 - 1])
    assert [text.get_text() for text in axes.texts] == ["to spare at 30 fps: 23 ms"]


def test_accuracy_is_drawn_over_speed_a_panel_for_each_data_set() -> None:
    left, right = axes_of(documents.accuracy())
    assert curve(left, "small") == ([20], [50])
    assert curve(right, "LK") == ([1], [40])
    assert (left.get_title("left") or left.get_title(), right.get_ylim()) == ("photographs", left.get_ylim())


def test_the_public_code_stands_beside_ours() -> None:
    (axes,) = axes_of(documents.compare())
    assert [bar.get_height() for bar in axes.patches] == [100, 100, 300, 300]
    assert [text.get_text() for text in axes.texts] == ["3x", "3x"]


def test_without_the_public_code_there_is_one_bar_for_each_number_of_points() -> None:
    alone = documents.compare()
    alone["results"]["runs"] = [{"points": 8, "ms": {"frame": documents.spread(100)}}]
    (axes,) = axes_of(alone)
    assert [bar.get_height() for bar in axes.patches] == [100]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["online-tapir"]


def test_memory_is_drawn_from_zero() -> None:
    (axes,) = axes_of(documents.memory())
    assert axes.get_ylim()[0] == 0


def test_only_judged_ratios_are_drawn_the_worst_first() -> None:
    (axes,) = axes_of(documents.regress())
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a / ms / p50", "a / fps"]


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    plots.draw([documents.compare()], tmp_path / "compare.svg")
    assert dict(mpl.rcParams) == before


def test_what_makes_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"neither \.svg nor \.png"):
        plots.draw([documents.drift()], tmp_path / "drift.gif")
    with pytest.raises(BenchError, match="documents of drift, window make no picture"):
        plots.picture([documents.window(), documents.drift()])
    with pytest.raises(BenchError, match="no bench make no picture"):
        plots.picture([])
    with pytest.raises(BenchError, match="'tidy' has no picture"):
        plots.picture([documents.document("tidy", {})])
    with pytest.raises(BenchError, match="no 'runs': another version wrote it"):
        plots.picture([documents.document("live", {"ms": {}})])


def test_a_folder_of_results_is_drawn_and_what_has_no_picture_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, document in {"a": documents.drift(), "b": documents.document("tidy", {})}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    with pytest.raises(SystemExit, match="0"):
        run(plots.main, [*files, "--out", str(tmp_path / "pictures")])
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["a.svg"]
    assert "b.json: bench 'tidy' has no picture" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        run(plots.main, [files[0], "--plot", str(tmp_path / "one.svg")])
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "pictures" / "a.svg").read_bytes()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bench": "live"}'])
def test_a_file_that_is_no_document_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(BenchError, match=r"odd\.json"):
        plots.read(tmp_path / "odd.json")
