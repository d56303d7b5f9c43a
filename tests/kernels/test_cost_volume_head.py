"""The matching head's kernels against the reference in float64."""

import pytest
import torch
from torch import Tensor

from tapir_kernels import CostReading, reference
from tapir_kernels.gpu.cost_volume_head import cost_volume_head
from tapir_kernels.gpu.launch import KernelInputError

TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}  # of heat and features of about 1
CELLS = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.16}
TEMPERATURE = 20.0
CASES = [  # maps, planes, height, width, hidden; paired with dtypes, for the interpreter is slow
    ((1, 1, 64, 96, 16), torch.float16),
    ((1, 3, 30, 41, 16), torch.float32),
    ((1, 1, 32, 32, 16), torch.float32),
    ((1, 1, 32, 32, 16), torch.bfloat16),
    ((7, 2, 9, 14, 4), torch.float16),
    ((33, 1, 8, 8, 16), torch.bfloat16),
    ((257, 1, 8, 8, 16), torch.float32),
    ((1, 1, 1, 1, 20), torch.float32),
]


def weights(planes: int, hidden: int) -> list[Tensor]:
    """Random ones, in the order of the arguments, whose heat map mostly follows the cost."""
    generator = torch.Generator().manual_seed(planes + hidden)
    shapes = [(hidden, planes, 3, 3), (hidden,), (1, hidden, 3, 3), (1,), (2 * hidden, hidden, 3, 3), (2 * hidden,)]
    found = [0.2 * torch.randn(shape, generator=generator) / len(shape) for shape in shapes]
    found[0][0, 0, 1, 1] = found[2][0, 0, 1, 1] = 1
    return found


def cost_maps(maps: int, planes: int, height: int, width: int) -> Tensor:
    """A hill on each map, on a border of every third, in a little noise."""
    generator = torch.Generator().manual_seed(maps)
    centre = torch.rand(maps, 2, generator=generator) * torch.tensor([width - 1.0, height - 1.0])
    centre[::3, 0] = 0
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = (x - centre[:, :1, None]).square() + (y - centre[:, 1:, None]).square()
    noise = 0.05 * torch.randn(maps, planes, height, width, generator=generator)
    return torch.exp(-distance / 8)[:, None] + noise


def inputs(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    maps, planes, height, width, hidden = shape
    return [x.to(device, dtype) for x in (cost_maps(maps, planes, height, width), *weights(planes, hidden))]


def assert_agree(found: CostReading, wanted: CostReading, dtype: torch.dtype) -> None:
    assert {x.dtype for x in found} == {torch.float32}
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(found.heat.double(), wanted.heat, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found.pooled.double(), wanted.pooled, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found.xy.double(), wanted.xy, atol=CELLS[dtype], rtol=0)


@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_positions_features_and_heat_are_those_of_the_convolutions(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    arguments = inputs(shape, dtype, device)
    wanted = reference.cost_volume_head(*[x.double() for x in arguments], TEMPERATURE)
    assert_agree(cost_volume_head(*arguments, TEMPERATURE), wanted, dtype)


@pytest.mark.parametrize("size", [(8, 8), (30, 41)])
def test_positions_are_the_reference_s_own_of_the_heat(size: tuple[int, int], device: torch.device) -> None:
    arguments = inputs((2, 1, *size, 16), torch.float16, device)
    arguments[0].copy_(torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(5)))  # no hill to find
    found = cost_volume_head(*arguments, TEMPERATURE)
    torch.testing.assert_close(found.xy, reference.soft_argmax(found.heat, TEMPERATURE), atol=2e-5, rtol=0)


def heat_alone(cost: Tensor) -> CostReading:
    """The reading by weights that make the heat map the cost map, where that is positive."""
    parameters = [torch.zeros_like(x) for x in weights(1, 16)]
    parameters[0][0, 0, 1, 1] = parameters[2][0, 0, 1, 1] = 1
    return cost_volume_head(cost, *[x.to(cost) for x in parameters], TEMPERATURE)


def test_of_equal_peaks_the_first_counts(device: torch.device) -> None:
    cost = torch.zeros(3, 1, 40, 41, device=device, dtype=torch.float16)
    cost[0, 0, 30, 7] = cost[0, 0, 2, 33] = cost[0, 0, 2, 39] = 3  # 1640 cells: two looks
    cost[1, 0, 39, 40] = 3
    found = heat_alone(cost)  # and a flat map, whose first cell is the corner
    assert torch.equal(found.heat, cost[:, 0].float())
    torch.testing.assert_close(found.xy, reference.soft_argmax(found.heat, TEMPERATURE), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.xy[:2].cpu(), torch.tensor([[33.5, 2.5], [40.5, 39.5]]))


@pytest.mark.parametrize("cell", [(0, 0), (5, 7), (8, 13)])
def test_a_nan_map_gives_nan_for_that_point_alone(cell: tuple[int, int], device: torch.device) -> None:
    arguments = inputs((4, 1, 9, 14, 16), torch.float16, device)
    clean = cost_volume_head(*arguments, TEMPERATURE)
    arguments[0][1] = torch.nan
    arguments[0][2, 0, cell[0], cell[1]] = torch.nan
    found = cost_volume_head(*arguments, TEMPERATURE)
    for values, wanted in zip(found, clean, strict=True):
        assert torch.equal(values[[0, 3]], wanted[[0, 3]])
    assert found.xy[1:3].isnan().all()
    assert found.pooled[1:3].isnan().all()
    assert found.heat[1].isnan().all()


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # so the interpreter's NumPy calls 0 times infinity
@pytest.mark.parametrize("value", [torch.inf, -torch.inf])
def test_infinite_costs_end_in_no_wrong_number(value: float, device: torch.device) -> None:
    arguments = inputs((2, 1, 9, 14, 16), torch.float32, device)
    arguments[0][1] = value
    assert cost_volume_head(*arguments, TEMPERATURE).xy[1].isnan().all()


def test_no_maps_are_no_readings(device: torch.device) -> None:
    found = cost_volume_head(*inputs((0, 1, 8, 8, 16), torch.float32, device), TEMPERATURE)
    assert [x.shape for x in found] == [(0, 2), (0, 32), (0, 8, 8)]


@pytest.mark.parametrize(
    ("index", "wrong", "message"),
    [
        (1, torch.ones(16, 3, 3, 3), r"hidden_weight \[16, 3, 3, 3\] \[K, P, 3, 3\] has P = 3, not 1 as in cost"),
        (1, torch.ones(16, 1, 5, 3), r"hidden_weight \[16, 1, 5, 3\] \[K, P, 3, 3\] has 3 = 5, not 3"),
        (3, torch.ones(1, 8, 3, 3), r"heat_weight .* has K = 8, not 16 as in hidden_weight"),
        (5, torch.ones(16, 16, 3, 3), r"occlusion_weight .* has 2K = 16, not 32 as in hidden_weight"),
        (6, torch.ones(32).half(), "cost is float32 and occlusion_bias float16"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_both_sides_named(
    index: int, wrong: Tensor, message: str, device: torch.device
) -> None:
    arguments = inputs((2, 1, 8, 8, 16), torch.float32, device)
    arguments[index] = wrong.to(device)
    with pytest.raises(KernelInputError, match=message):
        cost_volume_head(*arguments, TEMPERATURE)
