"""Which engine a run gets, and what it says of one that it cannot have."""

import pytest

from online_tapir.engines import choose as choosing
from online_tapir.engines.choose import choose
from online_tapir.engines.runtimes import OPENVINO, RUNTIMES, Runtime
from online_tapir.errors import ConfigError


@pytest.fixture(autouse=True)
def _all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "missing", [])


@pytest.mark.parametrize(
    ("model", "fast", "precision"),
    [("small", True, "bfloat16"), ("small", False, "float32"), ("bootstapir", True, "float32")],
)
def test_auto_is_openvino_in_what_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, model: str, fast: bool, precision: str
) -> None:
    monkeypatch.setattr(choosing, "has_bfloat16", lambda: fast)
    found = choose("auto", model, "cpu", "float32")
    assert (found.runtime, found.precision) == (OPENVINO, precision)


def test_auto_is_torch_where_nothing_else_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("auto", "small", "cuda:0", "float32").name == "torch"
    assert choose("auto", "small", "cpu", "bfloat16").name == "torch"
    monkeypatch.setattr(Runtime, "missing", ["openvino"])
    without = choose("auto", "small", "cpu", "float32")
    assert without.name == "torch"
    assert "pip install openvino" in without.why


def test_what_is_asked_for_and_missing_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "missing", ["onnxruntime"])
    with pytest.raises(ConfigError, match=r"onnxruntime; pip install 'online-tapir\[onnx\]'"):
        choose("onnxruntime", "small", "cpu", "float32")


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_engine_on_a_gpu_or_in_another_dtype_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cuda"):
        choose(name, "small", "cuda", "float32")
    with pytest.raises(ConfigError, match="bfloat16"):
        choose(name, "small", "cpu", "bfloat16")


def test_what_auto_takes_is_shown_for_every_preset() -> None:
    from online_tapir.cli.info import engines
    from online_tapir.model.config import PRESETS

    found = {one.preset: one for one in engines() if one.device == "cpu"}
    assert set(found) == set(PRESETS)
    assert found["small"].engine == "openvino"
    assert found["bootstapir"].precision == "float32"
    assert found["bootstapir"].input == "256x256"


def test_an_unknown_engine_or_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="auto, torch, openvino"):
        choose("tensorrt", "small", "cpu", "float32")
    with pytest.raises(ConfigError, match="float32, not int8"):
        choose("onnxruntime", "small", "cpu", "float32", precision="int8")
