"""Weights: what is saved is loaded, and what does not fit is refused by name; nothing is run."""

import gc
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from online_tapir import load_model
from online_tapir.errors import ConfigError, WeightsError
from online_tapir.model import checkpoint, public, weights_store
from online_tapir.model.checkpoint import DTYPES, read_weights, save_weights
from online_tapir.model.config import PRESETS, TapirConfig
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import Tapir, phase_of

MakeModel = Callable[..., Tapir]
MakeState = Callable[[str | TapirConfig], dict[str, Tensor]]


@pytest.fixture
def make_state() -> MakeState:
    """A state dict by the public PyTorch names, all zeros: its names and shapes are what matters."""

    def make(config: str | TapirConfig) -> dict[str, Tensor]:
        config = PRESETS[config] if isinstance(config, str) else config
        with torch.device("meta"):
            ours = {name: tuple(tensor.shape) for name, tensor in Tapir(config).state_dict().items()}
        return {name: torch.zeros(shape) for name, shape in public.public_shapes(config, ours).items()}

    return make


def test_saved_weights_come_back_with_their_configuration(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    path = tmp_path / "tiny.safetensors"
    save_weights(path, model, {"licence": "none"}, torch.float32)
    loaded = load_model(path, device="cpu")
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert not list(tmp_path.glob("*.partial"))


def test_weights_of_the_first_small_whose_queries_had_no_neighbours_are_still_read(tmp_path: Path) -> None:
    first = Tapir(replace(PRESETS["small"], neighbour_grids=0))
    save_weights(tmp_path / "first.safetensors", first, {})
    for model in (load_model("small", tmp_path / "first.safetensors"), load_model(tmp_path / "first.safetensors")):
        assert model.config == first.config
    assert load_model("small").config.neighbour_grids == PRESETS["small"].neighbour_grids == 2


def test_weights_that_are_read_again_and_again_leave_nothing_behind(make_model: MakeModel, tmp_path: Path) -> None:
    path, times = tmp_path / "tiny.safetensors", 20
    save_weights(path, make_model(), {})
    tensors = len(read_weights(path)[1])
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(times):
        read_weights(path)
    gc.collect()
    assert sys.getallocatedblocks() - before < times * tensors / 2, "less than an object a tensor"


def test_numbers_of_a_type_that_torch_lacks_are_refused(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F8_E8M0", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(WeightsError, match="holds numbers of type 'F8_E8M0'"):
        load_model(path, device="cpu")


def test_the_embedded_model_loads_and_is_ready_to_track() -> None:
    model = load_model("small")
    assert not model.training
    assert all(not parameter.requires_grad for parameter in model.parameters())
    assert next(model.parameters()).dtype == torch.float32


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'huge'; there are small, bootstapir, tapir"):
        load_model("huge")


def test_a_public_preset_that_cannot_be_fetched_says_which_address_to_fetch_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "http://127.0.0.1:9/tapir.npy"  # the port of nobody
    monkeypatch.setenv(weights_store.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setitem(weights_store.RELEASES, "tapir", replace(weights_store.RELEASES["tapir"], address=address))
    with pytest.raises(
        WeightsError, match=f"fetch {address} and run `online-tapir weights get tapir --from tapir.npy`"
    ):
        load_model("tapir")


def test_a_public_preset_is_loaded_from_the_cache(
    make_state: MakeState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights_store.CACHE_VARIABLE, str(tmp_path))
    torch.save(make_state("bootstapir"), tmp_path / weights_store.RELEASES["bootstapir"].file_name)
    assert load_model("bootstapir", device="cpu").config == PRESETS["bootstapir"]


@pytest.mark.parametrize(("given", "meant"), [("bootstapir", "tapir"), ("tapir", "bootstapir"), ("small", "tapir")])
def test_a_checkpoint_of_another_preset_says_which(
    make_state: MakeState, tmp_path: Path, given: str, meant: str
) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(make_state(meant), path)
    with pytest.raises(WeightsError, match=f"does not fit preset '{given}'.* it looks like preset '{meant}', name"):
        load_model(given, weights=path, device="cpu")


def test_causal_tapir_has_as_many_pooled_grids_as_its_file_says(make_state: MakeState, tmp_path: Path) -> None:
    for levels in (0, 1):
        path = tmp_path / f"{levels}.pt"
        config = replace(PRESETS["tapir"], pyramid_levels=levels)
        torch.save(make_state(config), path)
        assert load_model("tapir", weights=path, device="cpu").config == config


def test_a_public_tensor_of_the_wrong_shape_is_named_as_the_file_names_it(
    make_state: MakeState, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.pt"
    torch.save(make_state("tapir") | {"torch_pips_mixer.linear_1.weight": torch.zeros(3, 512)}, path)
    with pytest.raises(WeightsError, match=r"torch_pips_mixer\.linear_1\.weight is \(3, 512\), not \(388, 512\)"):
        load_model("tapir", weights=path, device="cpu")


def test_a_web_page_saved_as_a_checkpoint_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"\n<!DOCTYPE html><html>Sign in</html>")
    with pytest.raises(WeightsError, match="is a web page, not a checkpoint"):
        load_model("bootstapir", weights=path, device="cpu")


def test_a_cut_state_dict_says_where_it_was_cut(make_state: MakeState, tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    torch.save(make_state("tapir"), path)
    with path.open("r+b") as file:
        file.truncate(12_345)
    with pytest.raises(WeightsError, match="cut short at 12,345 bytes"):
        load_model("tapir", weights=path, device="cpu")


def test_fewer_iterations_are_the_first_of_more(
    make_model: MakeModel, make_frames: Callable[..., list[NDArray[np.uint8]]], tmp_path: Path
) -> None:
    path = tmp_path / "tiny.safetensors"
    save_weights(path, make_model(), {}, torch.float32)
    once, twice = load_model(path, iterations=1), load_model(path, iterations=2)
    image = torch.from_numpy(make_frames(1)[0]).permute(2, 0, 1)[None] / 127.5 - 1
    estimates = []
    for model in (once, twice):
        pyramid = model.encode(image)
        state = TrackState.empty(model.config, 1, 1, torch.device("cpu"), torch.float32)
        state.begin(0, *model.describe(pyramid, torch.tensor([[40.0, 30.0]]), (64, 96)))
        estimates.append(
            model.refine(pyramid, model.match(pyramid, state).estimate, state, phase_of(0, torch.device("cpu")))
        )
    assert [len(each) for each in estimates] == [1, 2]
    assert torch.equal(estimates[0][0].xy, estimates[1][0].xy)


@pytest.mark.parametrize("iterations", [0, 5, -1])
def test_iterations_are_one_to_four(iterations: int) -> None:
    with pytest.raises(ConfigError, match=f"{iterations} iterations asked for; give 1 to 4"):
        load_model("small", iterations=iterations)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_a_dtype_goes_by_its_name_or_by_torchs_own(dtype: str | torch.dtype) -> None:
    assert next(load_model("small", device="cpu", dtype=dtype).parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["float8", "int8", torch.float64])
def test_a_dtype_that_no_model_computes_in_lists_those_it_does(dtype: str | torch.dtype) -> None:
    with pytest.raises(ConfigError, match="choose float32, bfloat16, float16"):
        load_model("small", device="cpu", dtype=dtype)


def test_a_dtype_that_the_device_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DTYPES, "float8_e4m3fn", torch.float8_e4m3fn)  # which no CPU convolves in
    with pytest.raises(ConfigError, match=r"cpu cannot compute in float8_e4m3fn: .*float32 works everywhere"):
        load_model("small", device="cpu", dtype="float8_e4m3fn")


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
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
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


@pytest.mark.parametrize(
    "told",
    [
        {"mixer_depth": 2**31},
        {"widths": [2**20] * 4},
        {"widths": [8, 8, 8]},
        {"blocks": True},
        {"blocks": [0, 1, 1, 1]},
        {"described_by": {}},
        {"described_by": [7]},
        {"described_by": [0] * 5000 + [3]},
        {"described_by": []},
        {"stem_width": 0},
        {"softmax_temperature": "20"},
        [],
        7,
    ],
    ids=str,
)
def test_a_configuration_that_no_model_has_is_refused_before_one_is_built(
    make_model: MakeModel, tmp_path: Path, told: object
) -> None:
    model = make_model()
    config = {**asdict(model.config), **told} if isinstance(told, dict) else told
    metadata = {"format": "online-tapir/weights", "version": "1", "config": json.dumps(config)}
    save_file(model.state_dict(), tmp_path / "odd.safetensors", metadata)
    with pytest.raises(WeightsError, match=r"odd\.safetensors"):
        read_weights(tmp_path / "odd.safetensors")


@pytest.mark.parametrize(
    "told",
    [
        {"stem_width": 4000, "widths": [4000] * 4},
        {"blocks": [7] * 4, "widths": [800] * 4},
        {"extra_convs": 7, "widths": [8, 8, 8, 400]},
        {"match_width": 4000},
        {"mixer_width": 2000},
        {"mixer_expansion": 2**20},
        {"mixer_width": 400, "pyramid_levels": 40},
    ],
    ids=str,
)
def test_no_more_is_built_than_a_file_has_weights_for(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]
) -> None:
    model = make_model()
    path = tmp_path / "odd.safetensors"
    metadata = {"format": "online-tapir/weights", "version": "1", "config": json.dumps(asdict(model.config) | told)}
    save_file(model.state_dict() | {"wide": torch.zeros(2**13)}, path, metadata)
    monkeypatch.setattr(checkpoint, "Tapir", None)
    with pytest.raises(WeightsError, match=r"more than .* weights"):
        read_weights(path)


@pytest.mark.parametrize("name", PRESETS)
def test_the_weights_that_are_counted_before_a_model_is_built_are_nearly_all_it_has(name: str) -> None:
    counted, all_ = checkpoint._main_weights(PRESETS[name]), sum(p.numel() for p in Tapir(PRESETS[name]).parameters())
    assert 0.9 * all_ < counted <= all_


def test_a_zip_file_that_contradicts_itself_is_called_cut(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "odd.pt")
    held = (tmp_path / "odd.pt").read_bytes()
    end = held.rindex(b"PK\x05\x06")
    several_disks = b"PK\x06\x07" + bytes(4) + bytes(8) + (7).to_bytes(4, "little")
    (tmp_path / "odd.pt").write_bytes(held[:end] + several_disks + held[end:])
    with pytest.raises(WeightsError, match=r"cut short|not a PyTorch state dict"):
        load_model("tapir", weights=tmp_path / "odd.pt")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="--device cpu"):
        load_model("small", device="abacus")
