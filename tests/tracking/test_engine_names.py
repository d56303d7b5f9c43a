"""A tracker takes an engine by its name."""

import numpy as np
import pytest
import torch

from online_tapir.engines.runtimes import Runtime
from online_tapir.errors import ConfigError
from online_tapir.testing import tiny_model
from online_tapir.tracking.tracker import Tracker


def test_auto_is_torch_where_openvino_cannot_run_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tracker(tiny_model().to(torch.bfloat16), engine="auto").engine is None
    monkeypatch.setattr(Runtime, "missing", ["openvino"])
    assert Tracker(tiny_model(), engine="auto").engine is None
    tracker = Tracker(tiny_model(), engine="torch")
    tracker.add([[10.0, 10.0]])
    assert tracker.step(np.full((40, 40, 3), 9, np.uint8)).ids.tolist() == [0]


def test_a_named_engine_is_made_and_an_unknown_one_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "missing", [])
    made = Tracker(tiny_model(), engine="openvino").engine
    assert made is not None
    assert made.name.startswith("openvino")
    with pytest.raises(ConfigError, match="onnxruntime"):
        Tracker(tiny_model(), engine="tvm")
