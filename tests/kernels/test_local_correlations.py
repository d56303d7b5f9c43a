"""The pyramid's local correlations in one launch, against the reference in float64."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tapir_kernels import reference
from tapir_kernels.gpu.launch import KernelInputError
from tapir_kernels.gpu.local_correlations import local_correlations

Size = tuple[int, int]
# In float32 it is the position that counts: on grids of these sizes, it is known to 1e-5 of a cell.
TOLERANCES = {torch.float32: 5e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
# groups, points, height and width of level 0, channels of the levels, how many of these describe a point
CASES = [
    (1, 1, (8, 8), (16, 64, 64), 2),
    (2, 7, (30, 41), (100, 128, 128), 2),
    (1, 33, (32, 32), (64, 256, 256, 256), 2),
    (1, 257, (64, 96), (128,), 1),
    (3, 7, (30, 41), (256, 100), 2),
    (1, 33, (64, 96), (32, 64, 128, 128), 3),
    (2, 1, (32, 32), (16, 100, 16, 64), 4),
]


def pyramid(size: Size, channels: Sequence[int], groups: int, generator: torch.Generator) -> list[Tensor]:
    """Random grids, each half the size of the one before; their features are about as long as the model's."""
    shapes = [(groups, size[0] >> i, size[1] >> i, count) for i, count in enumerate(channels)]
    return [torch.randn(shape, generator=generator) * shape[-1] ** -0.5 for shape in shapes]


def positions(groups: int, points: int, picture: Size, generator: torch.Generator) -> Tensor:
    """Pixels inside and around a picture; among them, where there are points enough, its corners and far outside."""
    height, width = picture
    xy = (torch.rand(groups, points, 2, generator=generator) * 1.4 - 0.2) * torch.tensor([width, height])
    special = torch.tensor([(0, 0), (width, 0), (0, height), (width, height), (-1e4, 3), (1e30, -1e30)])[:points]
    if points > 1:
        xy[:, : len(special)] = special
    return xy


def truth(features: Tensor, levels: list[Tensor], xy: Tensor, size: Size) -> Tensor:
    return reference.local_correlations(features.double(), [level.double() for level in levels], xy.double(), size)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_level_agrees_with_the_reference(
    case: tuple[int, int, Size, tuple[int, ...], int], dtype: torch.dtype, device: torch.device
) -> None:
    groups, points, size, channels, described = case
    generator = torch.Generator().manual_seed(points)
    grids = [grid.to(dtype) for grid in pyramid(size, channels, groups, generator)]
    features = torch.randn(groups, points, sum(channels[:described]), generator=generator).to(dtype)
    picture = (4 * size[0], 4 * size[1] + 3)
    xy = positions(groups, points, picture, generator)
    found = local_correlations(features.to(device), [grid.to(device) for grid in grids], xy.to(device), picture)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.double().cpu(), truth(features, grids, xy, picture), atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype]
    )


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's, of infinity less infinity
def test_a_position_that_is_not_finite_gives_nan_for_its_point_alone(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    grids = pyramid((9, 14), (16, 20), 1, generator)
    features, xy = torch.randn(1, 4, 36, generator=generator), torch.full((1, 4, 2), 20.0)
    xy[0, 0, 0], xy[0, 1, 1], xy[0, 2, 0] = torch.nan, torch.nan, -torch.inf
    found = local_correlations(features.to(device), [grid.to(device) for grid in grids], xy.to(device), (36, 56)).cpu()
    assert found[0, :3].isnan().all()
    torch.testing.assert_close(found, reference.local_correlations(features, grids, xy, (36, 56)), equal_nan=True)


def test_several_looks_at_the_same_places_agree_with_the_reference(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(2)
    grids = pyramid((9, 14), (16, 20), 2, generator)
    looks, xy = torch.randn(2, 8 * 5, 36, generator=generator), torch.rand(2, 5, 2, generator=generator) * 36
    found = local_correlations(looks.to(device), [grid.to(device) for grid in grids], xy.to(device), (36, 56)).cpu()
    torch.testing.assert_close(found, reference.local_correlations(looks, grids, xy, (36, 56)), atol=1e-5, rtol=1e-5)


def test_nothing_outside_the_grid_is_counted(device: torch.device) -> None:
    grid, features = torch.ones(1, 5, 7, 16, device=device), torch.ones(1, 2, 16, device=device)
    xy = torch.tensor([[[0.5, 0.5], [7.0, 5.0]]], device=device)  # the first cell's centre; the last corner
    corner, last = local_correlations(features, [grid], xy, (5, 7)).view(2, 7, 7).cpu()
    assert corner[:3].eq(0).all()
    assert corner[:, :3].eq(0).all()
    assert corner[3:, 3:].eq(16).all()
    assert last[3, 3] == 4  # a quarter of one cell
    assert last[4:].eq(0).all()
    assert last[:, 4:].eq(0).all()


def test_no_points_are_no_error(device: torch.device) -> None:
    grid, features = torch.ones(1, 5, 7, 16, device=device), torch.ones(1, 0, 16, device=device)
    assert local_correlations(features, [grid], torch.ones(1, 0, 2, device=device), (5, 7)).shape == (1, 0, 49)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": torch.ones(1, 3, 40)}, r"have 40 channels and the levels 16 \+ 20; features must hold"),
        ({"features": torch.ones(1, 3, 16)}, r"have 16 channels and the levels 16 \+ 20; features must hold"),
        ({"features": torch.ones(1, 3, 36).half()}, r"features is float16 and levels\[0\] float32"),
        ({"features": torch.ones(1, 36, 3).mT}, r"features .* has strides .*, not those of a contiguous tensor"),
        ({"levels": []}, "0 levels; the kernel takes 1 to 4"),
        ({"levels": [torch.ones(1, 4, 4, 16)] * 5}, "5 levels; the kernel takes 1 to 4"),
        ({"levels": [torch.ones(2, 4, 4, 16)]}, r"levels\[0\] \[2, 4, 4, 16\] .* has G = 2, not 1 as in features"),
        ({"xy": torch.ones(1, 3, 2).double()}, "xy is float64, not float32"),
        ({"xy": torch.ones(1, 4, 2)}, r"xy \[1, 4, 2\] .* has N = 4, not 3 as in features"),
    ],
)
def test_input_that_does_not_fit_is_refused_with_both_sides_named(
    changed: dict[str, Any], message: str, device: torch.device
) -> None:
    fitting = {
        "features": torch.ones(1, 3, 36),
        "levels": [torch.ones(1, 8, 8, 16), torch.ones(1, 4, 4, 20)],
        "xy": torch.ones(1, 3, 2),
    }
    given: dict[str, Any] = fitting | changed
    levels = [level.to(device) for level in given["levels"]]
    with pytest.raises(KernelInputError, match=message):
        local_correlations(given["features"].to(device), levels, given["xy"].to(device), (32, 32))
