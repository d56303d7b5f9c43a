"""A result is held against an older one figure by figure, and only against one that it compares with."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bench import regress
from bench.command import BenchError, run
from tests.bench import documents

RUNS = (30.0, "nothing"), (60.0, "nothing")


def ratios(new: dict[str, Any], old: dict[str, Any], threshold: float = 1.1) -> dict[str, regress.Ratio]:
    return {one.figure: one for one in regress.compare(new, old, threshold)}


def test_a_result_is_as_good_as_itself() -> None:
    found = ratios(documents.live(*RUNS), documents.live(*RUNS))
    assert {one.cost_ratio for one in found.values()} == {1.0, None}
    assert not any(one.worse for one in found.values())


def test_times_above_the_threshold_are_worse_and_below_it_are_not() -> None:
    old = documents.live(*RUNS, p50=20.0)
    name = "runs / 60.0 fps, nothing / ms / encode / p50"
    slower = ratios(documents.live(*RUNS, p50=23.0), old)
    assert (slower[name].cost_ratio, slower[name].worse) == (1.15, True)
    assert not ratios(documents.live(*RUNS, p50=23.0), old, threshold=1.2)[name].worse
    assert not ratios(documents.live(*RUNS, p50=10.0), old)[name].worse


def test_a_rate_that_falls_is_a_cost_that_rises() -> None:
    new, old = documents.live(*RUNS), documents.live(*RUNS)
    new["results"]["runs"][0]["fps"] = 15.0
    fallen = ratios(new, old)["runs / 30.0 fps, nothing / fps"]
    assert (fallen.better, fallen.cost_ratio, fallen.worse) == ("higher", 2.0, True)


@pytest.mark.parametrize(
    ("path", "better"),
    [
        (("ms", "capture to receive", "p95"), "lower"),
        (("ms", "capture to receive", "max"), None),
        (("ms", "p99"), None),
        (("fps_median_second",), "higher"),
        (("fps_slowest_second",), None),
        (("answered_share",), "higher"),
        (("dropped_by_camera",), None),
        (("rss_mib",), "lower"),
        (("cpus_busy",), "lower"),
        (("p95_over_nothing",), "lower"),
        (("not_the_model_p95_ms",), "lower"),
        (("not_the_model_target_ms",), None),
        (("fixed_ms",), "lower"),
        (("us_a_point",), "lower"),
        (("bytes_per_point",), "lower"),
        (("stages_ms_p50", "encode"), "lower"),
        (("price_ms", "p50"), "lower"),
        (("scores", "average_jaccard"), "higher"),
        (("scores", "position_accuracy", "3"), "higher"),
        (("scores", "median_error"), "lower"),
        (("redetection", "rate"), "higher"),
        (("redetection", "found"), None),
        (("jitter_px",), "lower"),
        (("step_ms_p50",), "lower"),
        (("times_faster",), "higher"),
        (("difference_px",), None),
        (("threads_most",), None),
        (("nobody knows",), None),
    ],
)
def test_each_figure_knows_which_way_it_is_better(path: tuple[str, ...], better: str | None) -> None:
    assert regress.direction(path) == better


def test_every_figure_of_the_benches_own_names_is_judged_or_known_not_to_be() -> None:
    known = regress.NOT_JUDGED | regress.LOWER | regress.HIGHER
    for document in documents.EVERY.values():
        for path, _ in regress.figures(document["results"]):
            assert any(regress.words(name) & known for name in path), path


@pytest.mark.parametrize(("new", "old"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-1.0, 2.0)])
def test_what_is_not_above_zero_has_no_ratio(new: float, old: float) -> None:
    found = regress.ratio(("price_ms", "p50"), new, old, 1.1)
    assert (found.cost_ratio, found.worse) == (None, False)


def test_a_time_that_grew_by_next_to_nothing_is_not_worse() -> None:
    found = regress.ratio(("ms", "download", "p50"), 0.12, 0.08, 1.1)
    assert (found.cost_ratio, found.worse) == (1.5, False)
    assert regress.ratio(("ms", "download", "p50"), 0.3, 0.1, 1.1).worse


@pytest.mark.parametrize(
    ("where", "key", "told"),
    [
        ("machine", "processor", "the machine of the two documents differ.*processor is 'another'.*'one of these'"),
        ("machine", "usable_cpus", "usable_cpus is 'another' in the new one, 2 in the old one"),
        ("settings", "points", "the settings of the two documents differ.*points is 'another'"),
        ("settings", "new_flag", "new_flag is 'another' in the new one, None in the old one"),
    ],
)
def test_another_machine_or_other_settings_do_not_compare(where: str, key: str, told: str) -> None:
    old = documents.live(*RUNS)
    new = copy.deepcopy(old)
    new[where][key] = "another"
    with pytest.raises(BenchError, match=told):
        regress.compare(new, old, 1.1)


def test_another_bench_does_not_compare_and_no_figures_are_no_comparison() -> None:
    with pytest.raises(BenchError, match="bench is 'live' in the new one, 'window'"):
        regress.compare(documents.live(*RUNS), documents.window(), 1.1)
    with pytest.raises(BenchError, match="share no figure"):
        regress.compare(documents.live(), documents.live(), 1.1)


def test_the_exit_code_says_whether_it_got_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, p50 in {"old": 20.0, "same": 20.5, "slow": 40.0}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(documents.live(*RUNS, p50=p50)))

    def code(name: str, *more: str) -> int:
        words = [str(tmp_path / f"{name}.json"), "--against", str(tmp_path / "old.json"), *more]
        with pytest.raises(SystemExit) as end:
            run(regress.main, words)
        return int(end.value.code or 0)

    assert code("same") == 0
    assert code("slow", "--plot", str(tmp_path / "ratios.svg")) == 1
    out = capsys.readouterr().out
    assert "2.000 WORSE" in out
    assert len(json.loads(out.splitlines()[-1])["results"]["ratios"]) > 8
    assert (tmp_path / "ratios.svg").exists()
    assert code("slow", "--threshold", "2.5") == 0
    assert code("nowhere") == 2
