"""Kernels compile without a GPU, and spill nothing: some of what `python -m bench.compiled` looks at."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is for Linux")


def compiled(*words: str, interpret: bool = False) -> tuple[int, list[dict[str, Any]], str]:
    """The bench's exit code, cases and words on stderr, in a process whose kernels are not interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)} | ({"TRITON_INTERPRET": "1"} if interpret else {})
    command = [sys.executable, "-m", "bench.compiled", "--jobs", "1", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return (
        done.returncode,
        json.loads(done.stdout.splitlines()[-1])["results"]["cases"] if done.stdout else [],
        done.stderr,
    )


def test_every_kernel_fits_a_100_and_an_mi300() -> None:
    code, cases, words = compiled("--targets", "sm_80", "gfx942", "--only", "fp16")
    assert code == 0, words
    assert {case["target"] for case in cases} == {"sm_80", "gfx942"}
    assert all(case["registers"] > 0 and case["spilled_bytes"] == 0 for case in cases)
    assert {"cost_volume", "cost_volume_head"} <= {case["case"].split()[0] for case in cases}


def test_what_compiles_nothing_says_so() -> None:
    for words, message in [(["--only", "nothing"], "no case"), (["--targets", "sm_70"], "no target sm_70; there are")]:
        code, _, said = compiled(*words)
        assert code == 2
        assert message in said


def test_interpreted_kernels_are_not_compiled() -> None:
    code, _, said = compiled(interpret=True)
    assert code == 2
    assert "unset it" in said
