"""Banks of textures: made from seeds or photographs, weighted by source, joined half and half."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from online_tapir.errors import ConfigError
from online_tapir.scenes.textures import FAMILIES, TextureBank


def write_photo(path: Path, seed: int, size: tuple[int, int] = (40, 57)) -> None:
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def test_procedural_textures_repeat_for_a_seed_and_differ_between_seeds() -> None:
    first, again, other = (TextureBank.procedural(7, seed, size=48).images for seed in (3, 3, 4))
    assert first.shape == (7, 3, 48, 48)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_texture_depends_on_its_place_and_not_on_the_count() -> None:
    few, many = TextureBank.procedural(3, 5, size=33), TextureBank.procedural(9, 5, size=33)
    assert torch.equal(few.images, many.images[:3])


def test_every_family_gives_something_to_track() -> None:
    bank = TextureBank.procedural(3 * len(FAMILIES), 0, size=96)
    assert (bank.images.float().std((2, 3)).amax(1) > 4).all()


def test_photographs_become_squares_in_the_order_of_their_names(tmp_path: Path) -> None:
    for seed, name in enumerate(("b.PNG", "a.jpg", "c.jpeg")):
        write_photo(tmp_path / name, seed)
    (tmp_path / "notes.txt").write_text("not a picture")
    bank = TextureBank.from_folder(tmp_path, size=40)
    picture = cv2.imread(str(tmp_path / "b.PNG"))
    assert picture is not None
    assert bank.images.shape == (3, 3, 40, 40)
    assert np.array_equal(bank.images[1].permute(1, 2, 0).numpy(), picture[:, 8:48, ::-1])
    assert bank.weights.tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("table", ["photos/SOURCES.csv", "SOURCES.csv"])
def test_a_large_source_is_drawn_by_the_root_of_its_count(tmp_path: Path, table: str) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    prefix = "" if table.startswith("photos") else "photos/"
    rows = [f"{prefix}{k}.png,CC0,by hand; source={'shop' if k < 4 else 'park'}; more" for k in range(5)]
    (tmp_path / table).write_text("\n".join(["file,licence,note", *rows, "validation/4.png,CC0,source=shop"]))
    for k in range(5):
        write_photo(photos / f"{k}.png", k)
    weights = TextureBank.from_folder(photos, size=32).weights
    assert weights[:4].sum().item() == pytest.approx(2 / 3)  # sqrt(4) to sqrt(1)
    assert weights[4].item() == pytest.approx(1 / 3)


def test_joined_banks_share_the_draws_half_and_half() -> None:
    joined = TextureBank.procedural(1, 0, size=32) + TextureBank.procedural(4, 1, size=32)
    assert joined.weights.tolist() == pytest.approx([0.5] + [0.125] * 4)
    assert len(joined.images) == 5


def test_what_cannot_be_a_bank_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder"):
        TextureBank.from_folder(tmp_path / "missing")
    with pytest.raises(ConfigError, match="no jpg or png"):
        TextureBank.from_folder(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"not a png")
    with pytest.raises(ConfigError, match=r"broken\.png"):
        TextureBank.from_folder(tmp_path)
    with pytest.raises(ConfigError, match="at least 1"):
        TextureBank.procedural(0, 0)
    with pytest.raises(ConfigError, match="33 and 32 pixels"):
        TextureBank.procedural(1, 0, size=33) + TextureBank.procedural(1, 0, size=32)
