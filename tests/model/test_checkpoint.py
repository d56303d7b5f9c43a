"""Weights: what is saved is loaded, and what does not fit is refused by name; nothing is run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from online_tapir import load_model
from online_tapir.errors import ConfigError, WeightsError
from online_tapir.model.checkpoint import read_weights, save_weights
from online_tapir.model.tapir import Tapir

MakeModel = Callable[..., Tapir]


def test_saved_weights_come_back_with_their_configuration(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    path = tmp_path / "tiny.safetensors"
    save_weights(path, model, {"licence": "none"}, torch.float32)
    loaded = load_model(path, device="cpu")
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert not list(tmp_path.glob("*.partial"))


def test_the_embedded_model_loads_and_is_ready_to_track() -> None:
    model = load_model("small")
    assert not model.training
    assert all(not parameter.requires_grad for parameter in model.parameters())
    assert next(model.parameters()).dtype == torch.float32


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'huge'; there are small, bootstapir, tapir"):
        load_model("huge")


def test_a_preset_without_embedded_weights_says_how_to_give_them() -> None:
    with pytest.raises(WeightsError, match="--weights FILE"):
        load_model("tapir")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html></html>", b"\x00" * 4096])
def test_a_file_that_holds_no_weights_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        load_model("small", weights=path, device="cpu")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file .*gone\.pt"):
        load_model("small", weights=tmp_path / "gone.pt")


def test_a_truncated_file_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_weights(path, make_model(), {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="no whole safetensors file"):
        load_model(path)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.marker,)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "trap.pt", tmp_path / "ran"
    torch.save({"weight": Trap(marker)}, path)
    with pytest.raises(WeightsError, match="without running code"):
        load_model("small", weights=path)
    assert not marker.exists()


def test_a_state_dict_of_another_model_names_the_tensors_that_do_not_fit(make_model: MakeModel, tmp_path: Path) -> None:
    state = make_model().state_dict()
    del state["backbone.stem.weight"]
    state["head.weight"] = torch.zeros(1)
    path = tmp_path / "other.pt"
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"missing .*unknown .*head\.weight|missing .*backbone"):
        load_model("small", weights=path)


def test_a_wrongly_shaped_tensor_is_named_with_both_shapes(make_model: MakeModel, tmp_path: Path) -> None:
    model = load_model("small")
    state = model.state_dict()
    state["backbone.stem.weight"] = torch.zeros(32, 3, 5, 5)
    path = tmp_path / "wrong.pt"
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"backbone\.stem\.weight is \(32, 3, 5, 5\), not \(32, 3, 7, 7\)"):
        load_model("small", weights=path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = load_model("small").state_dict()
    state["backbone.stem.weight"] = state["backbone.stem.weight"] * torch.nan
    path = tmp_path / "nan.pt"
    torch.save(state, path)
    with pytest.raises(WeightsError, match="not finite"):
        load_model("small", weights=path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "not one of online-tapir's"),
        ({"format": "online-tapir/weights", "version": "9", "config": "{}"}, "version 9"),
        ({"format": "online-tapir/weights", "version": "1", "config": json.dumps({"depth": 3})}, "cannot build"),
    ],
)
def test_a_safetensors_file_of_another_kind_is_refused(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata or None)
    with pytest.raises(WeightsError, match=message):
        read_weights(path)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="--device cpu"):
        load_model("small", device="abacus")
