"""The cost volume's kernel against the reference in float64."""

import pytest
import torch
from torch import Tensor

from tapir_kernels import reference
from tapir_kernels.gpu.cost_volume import cost_volume
from tapir_kernels.gpu.launch import KernelInputError

TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}  # of unit vectors' products
SHAPES = [  # groups, points, height, width, channels
    (1, 1, 8, 8, 16),
    (3, 7, 30, 41, 100),
    (2, 33, 32, 32, 64),
    (1, 257, 8, 8, 128),
    (1, 33, 64, 96, 256),
    (2, 257, 30, 41, 16),
]


def unit_vectors(*shape: int, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (x / x.norm(dim=-1, keepdim=True)).to(device, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_cell_is_the_dot_product_of_query_and_grid(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, device: torch.device
) -> None:
    groups, points, height, width, channels = shape
    queries = unit_vectors(groups, points, channels, seed=1, dtype=dtype, device=device)
    grid = unit_vectors(groups, height, width, channels, seed=2, dtype=dtype, device=device)
    grid[0, height // 2, width // 3] = queries[0, 0]
    found = cost_volume(queries, grid)
    assert found.dtype == dtype
    wanted = reference.cost_volume(queries.double(), grid.double())
    torch.testing.assert_close(found.double(), wanted, atol=TOLERANCE[dtype], rtol=0)


def test_a_nan_query_gives_nan_for_that_point_alone(device: torch.device) -> None:
    queries = unit_vectors(2, 40, 16, seed=1, dtype=torch.float16, device=device)
    grid = unit_vectors(2, 9, 11, 16, seed=2, dtype=torch.float16, device=device)
    queries[1, 33] = torch.nan
    is_nan = cost_volume(queries, grid).isnan()
    assert is_nan[1, 33].all()
    assert is_nan.sum() == 9 * 11


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_no_points_or_no_frames_give_an_empty_volume(shape: tuple[int, int], device: torch.device) -> None:
    groups, points = shape
    found = cost_volume(torch.ones(groups, points, 16, device=device), torch.ones(groups, 8, 8, 16, device=device))
    assert found.shape == (groups, points, 8, 8)


@pytest.mark.parametrize(
    ("queries", "grid", "message"),
    [
        (
            torch.ones(1, 7, 64),
            torch.ones(1, 8, 8, 128),
            r"grid \[1, 8, 8, 128\].*C = 128, not 64.*queries \[1, 7, 64\]",
        ),
        (torch.ones(2, 7, 64), torch.ones(3, 8, 8, 64), r"grid .*G = 3, not 2 as in queries"),
        (torch.ones(1, 7, 64).half(), torch.ones(1, 8, 8, 64), "queries is float16 and grid float32"),
        (
            torch.ones(1, 7, 64).double(),
            torch.ones(1, 8, 8, 64),
            "queries is float64; kernels take float32, float16, b",
        ),
        (torch.ones(1, 7, 64), torch.ones(1, 8, 8, 64, device="meta"), "queries is on cpu and grid on meta"),
        (torch.ones(1, 7, 64), torch.ones(1, 64, 8, 8).permute(0, 2, 3, 1), r"grid .* strides \[4096, 8, 1, 64\]"),
        (torch.ones(7, 64), torch.ones(1, 8, 8, 64), r"queries has 2 axes, \[7, 64\]; it should be \[G, N, C\]"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_sides_named(queries: Tensor, grid: Tensor, message: str) -> None:
    with pytest.raises(KernelInputError, match=message):
        cost_volume(queries, grid)
