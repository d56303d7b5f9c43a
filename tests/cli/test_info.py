"""What the installation says of itself."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from online_tapir.cli import info
from online_tapir.cli.info import DeviceInfo, gather, presets, show
from online_tapir.model.weights_store import CACHE_VARIABLE, RELEASES
from tapir_kernels import Backend


def test_what_is_installed_runs_and_is_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    told = json.loads(json.dumps(gather().as_dict()))
    assert told["versions"]["torch"] == torch.__version__
    assert {"triton", "pyzmq", "rerun-sdk"} <= told["versions"].keys()
    cpu = told["devices"][0]
    assert (cpu["name"], cpu["kernels"]) == ("cpu", "reference")
    assert cpu["why"]
    weights = {preset["name"]: preset["weights"] for preset in told["presets"]}
    assert weights == {"small": "embedded", "bootstapir": "not here", "tapir": "not here"}


def test_weights_that_were_fetched_are_told_with_their_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    path = tmp_path / RELEASES["tapir"].file_name
    path.write_bytes(b"weights")
    found = {preset.name: preset for preset in presets()}
    assert (found["tapir"].weights, found["tapir"].where) == ("fetched", str(path))
    assert found["bootstapir"].where == "online-tapir weights get bootstapir"


def test_every_gpu_is_asked_what_runs_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapir_kernels.backend", lambda device: Backend("triton", f"{device} launches"))
    for name, found in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_name": lambda index: f"card {index}",
        "get_device_capability": lambda index: (9, index),
        "mem_get_info": lambda index: (2**30, 2**33),
    }.items():
        monkeypatch.setattr(torch.cuda, name, found)
    assert list(info.devices())[2] == DeviceInfo(
        "cuda:1", "card 1, compute capability 9.1", "triton", "cuda:1 launches", 8.0, 1.0
    )


def test_the_tables_hold_every_device_and_preset() -> None:
    output = io.StringIO()
    found = gather()
    show(found, Console(file=output, width=160))
    for word in ("torch", "cpu", "reference", "bootstapir", *(preset.weights for preset in found.presets)):
        assert word in output.getvalue()
