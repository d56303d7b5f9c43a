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
    ("model", "flags", "calibrated", "precision"),
    [
        ("small", {"avx2", "amx_bf16", "avx512_vnni"}, True, "bfloat16"),
        ("small", {"avx2", "avx512_vnni", "avx512_bf16"}, True, "int8"),
        ("small", {"avx2", "avx_vnni"}, True, "int8"),
        ("small", {"avx2", "avx_vnni"}, False, "float32"),
        ("small", {"avx2", "avx512_vnni", "avx512_bf16"}, False, "bfloat16"),
        ("small", {"asimd", "bf16"}, True, "bfloat16"),
        ("small", {"avx2"}, True, "float32"),
        ("bootstapir", {"amx_bf16", "avx512_vnni"}, True, "float32"),
    ],
)
def test_auto_is_openvino_in_what_the_processor_is_fastest_at(
    monkeypatch: pytest.MonkeyPatch, model: str, flags: set[str], calibrated: bool, precision: str
) -> None:
    monkeypatch.setattr(choosing, "processor_flags", lambda: frozenset(flags))
    found = choose("auto", model, "cpu", "float32", calibrated=calibrated)
    assert (found.runtime, found.precision) == (OPENVINO, precision)


def test_onnxruntime_stays_in_float32_on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "processor_flags", lambda: frozenset({"amx_bf16"}))
    assert choose("onnxruntime", "small", "cpu", "float32").precision == "float32"


def test_bfloat16_on_a_processor_without_it_is_float32_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "processor_flags", lambda: frozenset({"avx2"}))
    found = choose("openvino", "small", "cpu", "float32", "bfloat16")
    assert found.precision == "float32"
    assert "no bfloat16" in found.why


def test_a_precision_of_an_engine_where_torch_computes_is_refused() -> None:
    with pytest.raises(ConfigError, match="--dtype"):
        choose("torch", "small", "cpu", "float32", "int8")
    with pytest.raises(ConfigError, match="cuda"):
        choose("auto", "small", "cuda", "float32", "bfloat16")


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
    with pytest.raises(ConfigError, match="auto, float32, bfloat16, int8"):
        choose("openvino", "small", "cpu", "float32", precision="int4")
    with pytest.raises(ConfigError, match="float32, not int8"):
        choose("onnxruntime", "small", "cpu", "float32", precision="int8")
