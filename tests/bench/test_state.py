"""The state bench saves and loads what it measures."""

import json

import pytest

from bench.state import Settings, main


def test_copying_writing_and_loading_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    main(Settings(points=7, rounds=3, device="cpu"))
    results = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert {kind: spread["count"] for kind, spread in results["ms"].items()} == {
        "step": 3, "copy": 3, "write": 3, "load": 3,
    }  # fmt: skip
    assert results["copy_of_a_step"] > 0
    assert results["file_mib"] > 7 * 0.01
