"""`online-tapir weights` from the shell's side: what it prints, what it leaves, how it exits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from online_tapir import load_model
from online_tapir.cli.app import main
from online_tapir.model import public, weights_store
from online_tapir.model.checkpoint import save_weights
from online_tapir.model.config import PRESETS
from online_tapir.model.tapir import Tapir
from tests.model.test_haiku import TINY_PUBLIC


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkpoint by public names, of a preset that is published at an address of nobody's."""
    with torch.device("meta"):
        ours = {name: tuple(tensor.shape) for name, tensor in Tapir(TINY_PUBLIC).state_dict().items()}
    state = {name: torch.ones(shape) for name, shape in public.public_shapes(TINY_PUBLIC, ours).items()}
    path = tmp_path / "checkpoint.pt"
    torch.save(state, path)
    release = weights_store.Release(
        TINY_PUBLIC.name, "http://127.0.0.1:9/public.pt", "PyTorch state dict", "none", path.stat().st_size
    )
    monkeypatch.setenv(weights_store.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setitem(PRESETS, TINY_PUBLIC.name, TINY_PUBLIC)
    monkeypatch.setitem(weights_store.RELEASES, TINY_PUBLIC.name, replace(release, sha256=weights_store.sha256(path)))
    return path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def say(*words: str) -> str:
        main(["weights", *words])
        return capsys.readouterr().out

    return say


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def refuse(*words: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(["weights", *words])
        assert left.value.code == 2
        return capsys.readouterr().err

    return refuse


Say = Callable[..., str]


def test_list_tells_every_preset_and_whether_it_is_here(checkpoint: Path, said: Say) -> None:
    listed = said("list")
    assert all(name in listed for name in PRESETS)
    assert str(weights_store.cache_folder()) in listed


def test_a_checkpoint_brought_by_hand_is_got_verified_shown_and_loaded(checkpoint: Path, said: Say) -> None:
    told = said("get", "tiny_public", "--from", str(checkpoint))
    assert str(weights_store.cache_folder() / "public.pt") in told
    assert "SHA-256 and every tensor's name and shape are correct" in told
    assert "is here already" in said("get", "tiny_public")
    assert "is intact" in said("verify", "tiny_public")
    assert "PyTorch" in said("info", "tiny_public")
    assert load_model("tiny_public", device="cpu").config == TINY_PUBLIC


def test_what_was_not_fetched_says_how_to(checkpoint: Path, refused: Say) -> None:
    assert "run `online-tapir weights get tiny_public`" in refused("verify", "tiny_public")


def test_without_a_network_get_says_the_address_to_fetch_by_hand(checkpoint: Path, refused: Say) -> None:
    told = refused("get", "tiny_public")
    assert "fetch http://127.0.0.1:9/public.pt and run" in told
    assert "--from public.pt" in told


def test_a_changed_file_is_not_verified(checkpoint: Path, said: Say, refused: Say) -> None:
    said("get", "tiny_public", "--from", str(checkpoint))
    kept = weights_store.cache_folder() / "public.pt"
    raw = bytearray(kept.read_bytes())
    raw[len(raw) // 2] ^= 1
    kept.write_bytes(raw)
    told = refused("verify", "tiny_public")
    assert "has SHA-256" in told
    assert "`online-tapir weights get tiny_public` fetches it again" in told


def test_get_replaces_a_changed_file_and_uses_it_no_more(checkpoint: Path, said: Say, refused: Say) -> None:
    said("get", "tiny_public", "--from", str(checkpoint))
    kept = weights_store.cache_folder() / "public.pt"
    kept.write_bytes(b"changed")
    assert "cannot be reached" in refused("get", "tiny_public")
    assert not kept.exists()


def test_the_embedded_model_is_shown_and_verified(said: Say) -> None:
    assert "preset small" in said("verify", "small")
    assert "peak_inputs" in said("info", "small")


def test_a_converted_checkpoint_is_the_same_model_and_knows_what_it_is(
    checkpoint: Path, said: Say, tmp_path: Path
) -> None:
    target = tmp_path / "own.safetensors"
    told = said("convert", str(checkpoint), str(target))
    assert "preset tiny_public" in told
    own, original = load_model(target, device="cpu"), load_model("tiny_public", weights=checkpoint, device="cpu")
    assert own.config == original.config
    assert all(torch.equal(own.state_dict()[name], value) for name, value in original.state_dict().items())
    shown = said("info", str(target))
    assert "checkpoint.pt" in shown
    assert "safetensors" in shown


def test_half_precision_halves_a_converted_file(checkpoint: Path, said: Say, tmp_path: Path) -> None:
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    said("convert", str(checkpoint), str(full))
    said("convert", str(checkpoint), str(half), "--dtype", "float16")
    assert half.stat().st_size < 0.75 * full.stat().st_size


def test_a_file_that_fits_no_preset_is_refused(tmp_path: Path, refused: Say) -> None:
    path = tmp_path / "other.pt"
    torch.save({"layer.weight": torch.zeros(3)}, path)
    for command in ("verify", "info"):
        assert "fits no preset: it holds 1 tensors, layer.weight first" in refused(command, str(path))


def test_a_model_of_ones_own_is_shown_with_its_configuration_and_notes(
    make_model: Callable[..., Tapir], tmp_path: Path, said: Say
) -> None:
    path = tmp_path / "tiny.safetensors"
    save_weights(path, make_model(), {"trained": "not at all"})
    shown = said("info", str(path))
    assert "not at all" in shown
    assert "mixer_width" in shown


def test_a_target_that_is_no_safetensors_file_is_refused(checkpoint: Path, refused: Say, tmp_path: Path) -> None:
    assert "ends in .safetensors" in refused("convert", str(checkpoint), str(tmp_path / "own.pt"))


def test_a_numpy_file_is_no_surprise(tmp_path: Path, refused: Say) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert "holds no Haiku parameters" in refused("info", str(tmp_path / "array.npy"))
