"""The one command for a GPU, rehearsed where there is none, on a machine that has as little as it promises to need."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu import Session, main, spread

pytest.importorskip("triton", reason="Triton is for Linux")

BARE = """
import sys
REFUSED = {"cyclopts", "rich", "psutil", "rerun", "zmq", "msgpack", "platformdirs", "matplotlib", "pyarrow"}

class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"{name} is not on a bare machine")

sys.meta_path.insert(0, Bare())
from bench.gpu import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_rehearsal_goes_all_the_way_on_a_bare_machine(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    command = [sys.executable, "-c", BARE, "--device", "cpu", "--rehearse", "--budget", "600", "--json", str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(path.read_text(encoding="utf-8"))
    assert json.loads(done.stdout.splitlines()[-1]) == found
    results: dict[str, Any] = found["results"]
    assert set(results) == {"step tiny 3", "limits", "ops tiny 3", "rig", "drift", "tests"}
    assert found["failed"] == found["skipped"] == []
    assert all(results["step tiny 3"][way]["ms"]["count"] >= 3 for way in ("graphs", "graphs_pipelined"))
    assert all(one["kernel_ms"] > 0 and one["difference"] < 1e-3 for one in results["ops tiny 3"])
    assert results["tests"]["passed"]


def test_what_fails_or_has_no_time_costs_nothing_else() -> None:
    session = Session(60.0)

    def broken() -> None:
        raise ValueError("a test")

    session.do("broken", 1.0, broken)
    session.do("too long", 100.0, broken)
    session.do("fine", 1.0, lambda: {"ms": 1})
    assert session.results == {"broken": {"error": "ValueError: a test"}, "fine": {"ms": 1}}
    assert (session.failed, session.skipped) == (["broken"], ["too long"])


def test_without_a_gpu_it_says_how_to_rehearse(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    assert "--device cpu --rehearse" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--device", "cpu"])


def test_a_spread_is_by_nearest_rank() -> None:
    assert spread(range(1, 101)) == {"count": 100, "p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert spread([3.0])["p99"] == 3.0
