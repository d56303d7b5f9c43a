"""The reference ops against slower, plainer ways of computing the same."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tapir_kernels
from tapir_kernels import reference

SIZES = [(8, 8), (30, 41), (64, 96)]
POINTS = [0, 1, 7, 33]


def sampled(grid: Tensor, xy: Tensor) -> Tensor:
    """grid [G, H, W, C] at xy [G, N, S, 2] (cells), zero outside, through torch's own sampler."""
    height, width = grid.shape[1:3]
    normalised = xy / xy.new_tensor([width, height]) * 2 - 1
    found = F.grid_sample(grid.permute(0, 3, 1, 2), normalised, padding_mode="zeros", align_corners=False)
    return found.permute(0, 2, 3, 1)


def patch_offsets() -> Tensor:
    return torch.tensor([(x, y) for y, x in itertools.product(range(-3, 4), repeat=2)], dtype=torch.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("points", POINTS)
def test_local_correlation_is_the_dot_product_with_bilinear_samples(size: tuple[int, int], points: int) -> None:
    generator = torch.Generator().manual_seed(points)
    grid = torch.randn(2, *size, 20, generator=generator)
    features = torch.randn(2, points, 20, generator=generator)
    height, width = size
    xy = torch.rand(2, points, 2, generator=generator) * torch.tensor([width + 12.0, height + 12.0]) - 6
    found = tapir_kernels.local_correlation(features, grid, xy)
    wanted = torch.einsum("gnc,gnsc->gns", features, sampled(grid, xy[:, :, None] + patch_offsets()))
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)


def test_both_ways_to_take_the_dots_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    grid, features = torch.randn(3, 17, 23, 12, generator=generator), torch.randn(3, 9, 12, generator=generator)
    xy = torch.rand(3, 9, 2, generator=generator) * 30 - 4
    dense = tapir_kernels.local_correlation(features, grid, xy)
    monkeypatch.setattr(reference, "DENSE_CELLS", 0)
    torch.testing.assert_close(tapir_kernels.local_correlation(features, grid, xy), dense, atol=1e-5, rtol=1e-5)


def test_a_grid_padded_with_zeros_gives_the_same_local_correlations() -> None:
    generator = torch.Generator().manual_seed(2)
    grid, features = torch.randn(1, 13, 21, 16, generator=generator), torch.randn(1, 33, 16, generator=generator)
    xy = torch.rand(1, 33, 2, generator=generator) * torch.tensor([21.0, 13.0])
    square = F.pad(grid, (0, 0, 0, 0, 0, 8))  # 21 x 21
    found = tapir_kernels.local_correlation(features, square, xy)
    torch.testing.assert_close(found, tapir_kernels.local_correlation(features, grid, xy), atol=1e-5, rtol=1e-5)


def test_a_point_far_outside_the_grid_correlates_with_nothing() -> None:
    grid, features = torch.ones(1, 8, 8, 4), torch.ones(1, 1, 4)
    assert tapir_kernels.local_correlation(features, grid, torch.full((1, 1, 2), 1e6)).eq(0).all()


@pytest.mark.parametrize("cells", [0, reference.DENSE_CELLS])
def test_a_position_that_is_not_finite_gives_nan_for_its_point_alone(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "DENSE_CELLS", cells)
    grid, features = torch.ones(1, 8, 8, 4), torch.ones(1, 4, 4)
    xy = torch.tensor([[[torch.nan, 4], [4, torch.nan], [torch.inf, 4], [4, 4]]])
    found = tapir_kernels.local_correlation(features, grid, xy)
    assert found[0, :3].isnan().all()
    assert found[0, 3].eq(4).all()


def test_local_correlations_are_those_of_each_level_at_its_own_scale() -> None:
    generator = torch.Generator().manual_seed(8)
    shapes = [(2, 30, 41, 12), (2, 15, 20, 20), (2, 7, 10, 20)]
    levels = [torch.randn(shape, generator=generator) for shape in shapes]
    features = torch.randn(2, 9, 32, generator=generator)
    xy = torch.rand(2, 9, 2, generator=generator) * 150 - 10
    found = tapir_kernels.local_correlations(features, levels, xy, (120, 164))
    for index, (grid, patch) in enumerate(zip(levels, found.split(49, dim=-1), strict=True)):
        cells = xy * torch.tensor([grid.shape[2] / 164, grid.shape[1] / 120])
        part = (features[..., 12:] if index else features[..., :12]).contiguous()
        torch.testing.assert_close(patch, tapir_kernels.local_correlation(part, grid, cells), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cells", [0, reference.DENSE_CELLS])
def test_several_looks_at_the_same_places_are_each_correlated_there(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "DENSE_CELLS", cells)
    generator = torch.Generator().manual_seed(9)
    levels = [torch.randn(shape, generator=generator) for shape in ((2, 30, 41, 12), (2, 15, 20, 20))]
    looks = torch.randn(2, 3 * 9, 32, generator=generator)
    xy = torch.rand(2, 9, 2, generator=generator) * 150 - 10
    found = tapir_kernels.local_correlations(looks, levels, xy, (120, 164))
    alone = [tapir_kernels.local_correlations(look, levels, xy, (120, 164)) for look in looks.chunk(3, dim=1)]
    torch.testing.assert_close(found, torch.cat(alone, dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("points", POINTS)
def test_cost_volume_is_every_dot_product(size: tuple[int, int], points: int) -> None:
    generator = torch.Generator().manual_seed(3)
    grid, queries = torch.randn(2, *size, 10, generator=generator), torch.randn(2, points, 10, generator=generator)
    wanted = torch.einsum("gnc,ghwc->gnhw", queries, grid)
    torch.testing.assert_close(tapir_kernels.cost_volume(queries, grid), wanted, atol=1e-5, rtol=1e-5)


def test_soft_argmax_of_one_hot_cell_is_its_centre() -> None:
    heat = torch.zeros(2, 9, 13)
    heat[0, 4, 7] = heat[1, 0, 12] = 10
    torch.testing.assert_close(tapir_kernels.soft_argmax(heat, 20.0), torch.tensor([[7.5, 4.5], [12.5, 0.5]]))


def test_soft_argmax_ignores_what_is_five_cells_away_or_more() -> None:
    heat = torch.zeros(1, 20, 20)
    heat[0, 10, 10], heat[0, 10, 15] = 1.0, 0.99
    near = heat.clone()
    near[0, 10, 15] = 0
    torch.testing.assert_close(
        tapir_kernels.soft_argmax(heat, 50.0), tapir_kernels.soft_argmax(near, 50.0), atol=1e-4, rtol=0
    )
    near[0, 10, 14] = 0.99
    assert tapir_kernels.soft_argmax(near, 50.0)[0, 0] > 11


def test_soft_argmax_between_two_equal_neighbours_is_their_middle() -> None:
    heat = torch.zeros(1, 12, 12)
    heat[0, 6, 5] = heat[0, 6, 6] = 30
    torch.testing.assert_close(tapir_kernels.soft_argmax(heat, 1.0), torch.tensor([[6.0, 6.5]]))


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (7, 33), (257, 33), (2, 3, 33, 20)])
def test_dense_is_a_linear_layer(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(6)
    x, weight = torch.randn(shape, generator=generator), torch.randn(9, shape[-1], generator=generator)
    bias = torch.randn(9, generator=generator)
    torch.testing.assert_close(tapir_kernels.dense(x, weight, bias), F.linear(x, weight, bias), atol=1e-5, rtol=1e-5)


def test_instance_norm_relu_is_right_to_the_last_digits_of_channels_last_pixels() -> None:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(1, 32, 128, 97, generator=generator) * 2 + 9 * torch.randn(1, 32, 1, 1, generator=generator)
    weight, bias = torch.ones(32), torch.zeros(32)
    found = tapir_kernels.instance_norm_relu(x.contiguous(memory_format=torch.channels_last), weight, bias)
    wanted = F.relu(F.instance_norm(x.double(), eps=1e-5))
    torch.testing.assert_close(found.double(), wanted, atol=4e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 7, 33])
def test_instance_norm_relu_is_torch_s_own(channels: int) -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, channels, 9, 14, generator=generator) * 3 + 1
    weight, bias = torch.randn(channels, generator=generator), torch.randn(channels, generator=generator)
    wanted = F.relu(F.instance_norm(x, weight=weight, bias=bias, eps=1e-5))
    torch.testing.assert_close(tapir_kernels.instance_norm_relu(x, weight, bias), wanted, atol=1e-5, rtol=1e-5)


def test_l2_normalize_gives_unit_vectors_and_leaves_zero_alone() -> None:
    x = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(5))
    x[0, :, 0, 0] = 0
    lengths = tapir_kernels.l2_normalize(x).norm(dim=1)
    assert lengths[0, 0, 0] == 0
    torch.testing.assert_close(lengths.flatten()[1:], torch.ones(23))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_l2_normalize_of_half_precision_neither_overflows_nor_divides_by_zero(dtype: torch.dtype) -> None:
    x = torch.full((1, 64, 2, 3), 4096.0, dtype=dtype)
    x[:, :, 0] = 0
    found = tapir_kernels.l2_normalize(x)
    assert found[:, :, 0].eq(0).all()
    assert found[:, :, 1].eq(0.125).all()


def parity(frame: int) -> Tensor:
    return torch.tensor([frame & 1], dtype=torch.int32)


@pytest.mark.parametrize("points", [1, 7, 33])
def test_mixer_steps_add_causal_convolutions_over_the_whole_past(points: int) -> None:
    frames, expansion, width = 7, 4, 10
    generator = torch.Generator().manual_seed(points)
    x = torch.randn(frames, points, width, generator=generator)
    norm_weight = torch.randn(width, generator=generator)
    widen, narrow = (torch.randn(3, expansion, width, generator=generator) for _ in range(2))
    widen_bias, narrow_bias = (
        torch.randn(expansion, width, generator=generator),
        torch.randn(width, generator=generator),
    )

    memory = torch.zeros(4, points, width)
    found = [
        tapir_kernels.mixer_step(frame, memory, parity(t), norm_weight, widen, widen_bias, narrow, narrow_bias)
        for t, frame in enumerate(x)
    ]

    series = (F.layer_norm(x, (width,)) * norm_weight).permute(1, 2, 0)  # [N, C, T]
    first = widen.permute(2, 1, 0).reshape(width * expansion, 1, 3)  # channel c gives 4c..4c+3
    second = narrow.permute(2, 1, 0).reshape(width * expansion, 1, 3)
    wide = F.conv1d(F.pad(series, (2, 0)), first, widen_bias.T.reshape(-1), groups=width)
    wide = F.gelu(wide, approximate="tanh")
    mixed = F.conv1d(F.pad(wide, (2, 0)), second, groups=width * expansion)
    wanted = mixed.unflatten(1, (width, expansion)).sum(2) + narrow_bias[:, None]
    torch.testing.assert_close(torch.stack(found), x + wanted.permute(2, 0, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("points", [1, 7, 257])
def test_a_dense_layer_with_gelu_is_gelu_of_the_dense_layer(points: int) -> None:
    x, weight, bias = torch.randn(points, 24), torch.randn(48, 24), torch.randn(48)
    wanted = F.gelu(F.linear(x, weight, bias), approximate="tanh")
    torch.testing.assert_close(reference.dense_gelu(x, weight, bias), wanted, atol=1e-5, rtol=1e-5)
