"""The truth of a pair of views: what lies under a point of the first lies under its partner in the second."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from online_tapir.errors import ConfigError
from online_tapir.scenes import views
from online_tapir.scenes.views import Photographs
from online_tapir.testing import sliding_pictures


def photographs(count: int = 2) -> Photographs:
    return Photographs([np.repeat(np.repeat(rgb, 2, 0), 2, 1) for rgb in sliding_pictures(count, 240, 320)])


def test_a_point_has_the_same_colour_in_both_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_as_filmed", lambda rng, view: view)  # through a perfect camera
    monkeypatch.setattr(views, "GROWN", 1.5)
    pairs = photographs().pairs(np.random.default_rng(0), 6, 64)
    assert pairs.shared.float().mean() > 0.2

    def colours(image: torch.Tensor, xy: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[1:]
        grid = xy / torch.tensor([width, height]) * 2 - 1
        return torch.nn.functional.grid_sample(image[None], grid[None, None], align_corners=False)[0, :, 0].T

    for index in range(6):
        shared = pairs.shared[index]
        first = colours(pairs.first[index], pairs.first_xy[index])[shared]
        second = colours(pairs.second[index], pairs.second_xy[index])[shared]
        assert (first - second).abs().median() < 0.06


def test_a_seed_gives_its_views_and_another_gives_others() -> None:
    one, same, other = (photographs().pairs(np.random.default_rng(seed), 2, 7) for seed in (3, 3, 4))
    assert torch.equal(one.second, same.second)
    assert torch.equal(one.second_xy, same.second_xy)
    assert one.second.shape != other.second.shape or not torch.equal(one.second, other.second)


def test_shared_points_lie_in_both_views() -> None:
    pairs = photographs().pairs(np.random.default_rng(1), 8, 100)
    height, width = pairs.first.shape[2:]
    for xy in (pairs.first_xy[pairs.shared], pairs.second_xy[pairs.shared]):
        assert ((xy >= 0) & (xy < torch.tensor([width, height]))).all()


def test_photographs_come_from_a_folder_and_what_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no jpg or png"):
        Photographs.from_folder(tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((900, 1200, 3), 90, np.uint8))
    assert Photographs.from_folder(tmp_path).pairs(np.random.default_rng(0), 1, 3).first.shape[1] == 3
    (tmp_path / "b.jpg").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"b\.jpg"):
        Photographs.from_folder(tmp_path)
