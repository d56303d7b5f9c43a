"""Every op is timed at a preset's shapes; without a GPU its reference alone."""

import json
from inspect import isfunction
from typing import Any

import pytest
import torch

from bench.cases import op_cases, timed
from bench.ops import Settings, main
from bench.rates import Limits
from online_tapir.model.config import PRESETS, TapirConfig
from tapir_kernels import dispatch, reference

TINY = TapirConfig(name="tiny", stem_width=16, widths=(16, 16, 24, 24), mixer_width=32, initial_resolution=(64, 96))


@pytest.fixture(autouse=True)
def _tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)


def test_every_op_is_timed_beside_its_limit(capsys: pytest.CaptureFixture[str]) -> None:
    main(Settings(model="tiny", points=7, device="cpu", seconds=0))
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    timed_ops: list[dict[str, Any]] = found["results"]["ops"]
    ops = {name for name, op in vars(dispatch).items() if isfunction(op) and hasattr(reference, name)}
    assert {one["op"] for one in timed_ops} == ops
    assert all(one["reference_ms"] > 0 and one["limit_ms"] > 0 and one["kernel_ms"] is None for one in timed_ops)
    assert found["results"]["backend"]["name"] == "reference"


def test_a_limit_is_the_longer_of_moving_and_computing() -> None:
    limits = Limits(bytes_per_s=1e9, flops=1e12)
    assert limits.ms(1e6, 1e6) == pytest.approx(1.0)
    assert limits.ms(1e3, 1e10) == pytest.approx(10.0)


def test_what_must_move_and_be_computed_is_counted() -> None:
    cpu = torch.device("cpu")
    cases = {case.op: case for case in op_cases(TINY, 10, cpu, torch.float32, (32, 48))}
    cells = 8 * 12
    assert cases["cost_volume"].flops == 2 * 10 * cells * 24
    assert cases["cost_volume"].bytes_moved == 4 * (10 * 24 + cells * 24 + 10 * cells)
    assert cases["resize_rgb8"].bytes_moved == 32 * 48 * 3 + 4 * 64 * 96 * 3
    found = timed(cases["mixer_step"], cpu, Limits(1e9, 1e9), 0, kernels=False)
    assert found.reference_ms > 0
    assert found.difference is None
