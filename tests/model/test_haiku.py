"""The public Haiku checkpoint: the same numbers under other names, and nothing in a file is ever run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from online_tapir import load_model
from online_tapir.errors import WeightsError
from online_tapir.model import haiku, public
from online_tapir.model.config import PRESETS, TapirConfig
from online_tapir.model.tapir import Tapir

TINY_PUBLIC = TapirConfig(
    name="tiny_public",
    stem_width=4,
    widths=(4, 6, 8, 8),
    extra_convs=2,
    match_width=3,
    mixer_width=8,
    mixer_depth=3,
    initial_resolution=(32, 32),
)
Params = dict[str, dict[str, NDArray[Any]]]


def haiku_params(config: TapirConfig = TINY_PUBLIC) -> Params:
    """Random parameters as the public JAX model holds them."""
    with torch.device("meta"):
        ours = {name: tuple(tensor.shape) for name, tensor in Tapir(config).state_dict().items()}
    rng = np.random.default_rng(0)
    params: Params = {}
    for name, shape in haiku.shapes(public.public_shapes(config, ours)).items():
        module, _, parameter = name.rpartition("/")
        params.setdefault(module, {})[parameter] = rng.standard_normal(shape).astype(np.float32)
    return params


def saved(path: Path, held: Any) -> Path:
    np.save(path, held, allow_pickle=True)
    return path


@pytest.fixture(autouse=True)
def _tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, TINY_PUBLIC.name, TINY_PUBLIC)


def test_a_haiku_checkpoint_and_its_pytorch_twin_are_one_model(tmp_path: Path) -> None:
    params = haiku_params()
    path = saved(tmp_path / "checkpoint.npy", {"params": params, "state": {}})
    torch.save(haiku.to_public(haiku.read(path), TINY_PUBLIC), tmp_path / "checkpoint.pt")
    ours = load_model(TINY_PUBLIC.name, weights=path, device="cpu").state_dict()
    twin = load_model(TINY_PUBLIC.name, weights=tmp_path / "checkpoint.pt", device="cpu").state_dict()
    assert all(torch.equal(ours[name], twin[name]) for name in twin)
    assert torch.equal(  # the layouts: [height, width, in, out] and [in, out] there, PyTorch's here
        ours["backbone.stem.weight"], torch.from_numpy(params["tapir/~/resnet/~/initial_conv"]["w"]).permute(3, 2, 0, 1)
    )
    assert torch.equal(
        ours["refiner.mixer.enter.weight"], torch.from_numpy(params["tapir/~/pips_mlp_mixer/linear"]["w"]).T
    )


def test_a_depthwise_tap_and_channel_go_where_haiku_means_them(tmp_path: Path) -> None:
    params = haiku_params()
    path = saved(tmp_path / "checkpoint.npy", {"params": params, "state": {}})
    ours = load_model(TINY_PUBLIC.name, weights=path, device="cpu").state_dict()
    taps = params["tapir/~/pips_mlp_mixer/block_2/mlp1_up"]["w"]  # [3, 1, M C], channel c giving Mc..Mc+M-1
    expected = taps[:, 0].reshape(3, TINY_PUBLIC.mixer_width, TINY_PUBLIC.mixer_expansion).transpose(0, 2, 1)
    assert np.array_equal(ours["refiner.mixer.blocks.2.temporal.widen"].numpy(), expected)


def test_the_names_are_those_that_the_public_jax_model_makes() -> None:
    names = set(haiku.name_table(PRESETS["bootstapir"]))
    assert len(names) == 218
    assert {
        "tapir/~/resnet/~/initial_conv/w",
        "tapir/~/resnet/~/block_group_3/~/block_1/~/instancenorm_1/offset",
        "tapir/~/resnet/~/block_group_1/~/block_0/~/shortcut_conv/w",
        "tapir/~/extra_convs/layer_norm/scale",
        "tapir/~/extra_convs/conv2_d/w",
        "tapir/~/extra_convs/conv2_d_9/b",
        "tapir/~/cost_volume_regression_2/w",
        "tapir/~/occlusion_out/b",
        "tapir/~/pips_mlp_mixer/linear/w",
        "tapir/~/pips_mlp_mixer/block/mlp1_up/w",
        "tapir/~/pips_mlp_mixer/block_11/mlp2_down/b",
        "tapir/~/pips_mlp_mixer/layer_norm/scale",
    } <= names
    assert len(haiku.name_table(PRESETS["tapir"])) == 188


def test_a_missing_and_an_unknown_parameter_are_named_as_the_file_names_them(tmp_path: Path) -> None:
    params = haiku_params()
    del params["tapir/~/pips_mlp_mixer/linear"]["b"]
    params["tapir/~/extra"] = {"w": np.zeros(2, np.float32)}
    path = saved(tmp_path / "checkpoint.npy", {"params": params})
    with pytest.raises(WeightsError, match=r"missing \(tapir/~/pips_mlp_mixer/linear/b\).*unknown \(tapir/~/extra/w\)"):
        load_model(TINY_PUBLIC.name, weights=path, device="cpu")


def test_a_wrongly_shaped_parameter_is_named_with_both_shapes(tmp_path: Path) -> None:
    params = haiku_params()
    params["tapir/~/occlusion_out"]["w"] = np.zeros((2, 3), np.float32)
    path = saved(tmp_path / "checkpoint.npy", {"params": params})
    with pytest.raises(WeightsError, match=r"tapir/~/occlusion_out/w is \(2, 3\), not \(3, 2\)"):
        load_model(TINY_PUBLIC.name, weights=path, device="cpu")


class Trap:
    """Touches a file when it is unpickled the ordinary way."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.touched,)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = saved(tmp_path / "trap.npy", {"params": haiku_params(), "state": Trap(touched)})
    with pytest.raises(WeightsError, match="without running code: it names pathlib"):
        load_model(TINY_PUBLIC.name, weights=path, device="cpu")
    assert not touched.exists()
    np.load(path, allow_pickle=True)
    assert touched.exists()  # the trap was a real one


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (np.zeros(3), "holds no Haiku parameters"),
        ({"state": {}}, "holds no Haiku parameters"),
        ({"params": {"tapir/~/linear": 3}}, "holds no Haiku parameters"),
        ({"params": {"tapir/~/linear": {"w": "text"}}}, "is not an array of floating-point numbers"),
    ],
)
def test_a_numpy_file_of_something_else_is_refused(tmp_path: Path, held: Any, told: str) -> None:
    with pytest.raises(WeightsError, match=told):
        load_model("tapir", weights=saved(tmp_path / "odd.npy", held), device="cpu")


@pytest.mark.parametrize("keep", [7, 100, 3000])
def test_a_cut_haiku_checkpoint_is_refused(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path / "cut.npy", {"params": haiku_params()})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="cut short or damaged"):
        load_model("tapir", weights=path, device="cpu")
