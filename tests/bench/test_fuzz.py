"""Every reader of bytes from outside refuses what it is given by an error of the project's own: a short fuzzing."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import fuzz
from bench.command import BenchError
from bench.fuzz import Settings, flags, judged, main
from bench.fuzz_targets import TARGETS, Findings, Target
from online_tapir.errors import WireError
from online_tapir.model import checkpoint

CASES = 150
IN_TURN = settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    monkeypatch.setattr(checkpoint, "PRESETS", vars(checkpoint)["PRESETS"])  # one of the targets puts others there
    target = TARGETS[request.param](tmp_path)
    yield target
    target.close()


def test_what_is_spoilt_from_within_is_refused_by_name(target: Target) -> None:
    rng, findings = random.Random(0), Findings()
    for _ in range(CASES):
        case = rng.choice(target.seeds)
        for _ in range(rng.randint(1, 3)):
            case = target.spoil(case, rng)
        findings.take(target, case)
    assert findings.cases == CASES
    assert {failure.what for failure in findings.failures.values()} == set()
    assert findings.refused > CASES // 10


@IN_TURN
@given(case=st.binary(max_size=4096))
def test_any_bytes_are_refused_by_name(target: Target, case: bytes) -> None:
    findings = Findings()
    findings.take(target, case)
    assert {failure.what for failure in findings.failures.values()} == set()


def test_spoiling_is_the_same_for_the_same_seed(target: Target) -> None:
    for seed in target.seeds:
        assert [target.spoil(seed, random.Random(7)) for _ in range(3)].count(target.spoil(seed, random.Random(7))) == 3


def read_badly(case: bytes) -> None:
    if case == b"ours":
        raise WireError("refused")
    raise KeyError(case.decode())


def test_a_failure_is_kept_once_with_its_first_case() -> None:
    findings = Findings()
    for case in (b"ours", b"first", b"second"):
        findings.take(Target(read_badly, [], lambda case, rng: case), case)
    assert (findings.cases, findings.refused) == (3, 1)
    (failure,) = findings.failures.values()
    assert (bytes.fromhex(failure.case_hex), failure.times) == (b"first", 2)
    assert failure.what.startswith("KeyError: 'first' (test_fuzz.py, read_badly)")


def found(*rss_mib: float, **failures: Any) -> dict[str, Any]:
    samples = [(100 * index, mib) for index, mib in enumerate(rss_mib)]
    return {"cases": 100 * len(rss_mib), "refused": 7, "slowest_ms": 1.0, "rss_mib": samples, "failures": failures}


SAID = "#7 NEW cov: 33 ft: 1\n#9 DONE cov: 49 ft: 2\nstat::number_of_executed_units: 1234\n"


def test_a_target_without_a_failure_has_nothing_wrong() -> None:
    result = judged(found(90, 100, 101), 0, SAID, [])
    assert result["wrong"] == []
    assert (result["cases"], result["branches_covered"], result["ratio"]) == (1234, 49, 1.01)


@pytest.mark.parametrize(
    ("findings", "ended", "wrong"),
    [
        (found(100, 100, 200), 0, "memory grew from 100 to 200 MiB"),
        (found(100), 77, "its process ended with 77"),
        (found(100, key={"what": "KeyError: 1", "case_hex": "00", "times": 3}), 0, "KeyError: 1 (3 times)"),
    ],
)
def test_what_is_wrong_is_said(findings: dict[str, Any], ended: int, wrong: str) -> None:
    assert any(wrong in one for one in judged(findings, ended, SAID, [])["wrong"])


def test_cases_and_time_are_shared_out() -> None:
    assert "-runs=334" in flags(Settings(cases=1000), 3)
    assert "-max_total_time=20" in flags(Settings(minutes=1), 3)


def test_what_cannot_be_fuzzed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match="pip install 'online-tapir\\[fuzz\\]'"):
        main(Settings())
    monkeypatch.setattr(fuzz, "find_spec", lambda name: True)
    with pytest.raises(BenchError, match="give one of them"):
        main(Settings(cases=1, minutes=1.0))
    with pytest.raises(BenchError, match="no target tea"):
        main(Settings(targets=("tea",)))
