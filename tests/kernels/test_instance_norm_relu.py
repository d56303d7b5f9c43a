"""Instance norm and ReLU in two launches, against their definition in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tapir_kernels.gpu.instance_norm_relu import instance_norm_relu
from tapir_kernels.gpu.launch import KernelInputError

TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
SHAPES = [
    (1, 16, 8, 8),
    (2, 64, 30, 41),
    (1, 100, 32, 32),
    (1, 128, 30, 41),
    (1, 33, 64, 96),
    (1, 256, 8, 8),
    (1, 7, 1, 1),
    (1, 5, 131, 133),  # more pixels than strips of one tile hold
]


def picture(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Channels-last, each channel with a mean and a spread of its own."""
    mean = torch.randn(*shape[:2], 1, 1, generator=generator)
    spread = torch.rand(*shape[:2], 1, 1, generator=generator) + 0.5
    return (torch.randn(shape, generator=generator) * spread + 2 * mean).to(memory_format=torch.channels_last)


def truth(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x.double(), dim=(2, 3), correction=0, keepdim=True)
    normed = (x.double() - mean) * (variance + 1e-5).rsqrt()
    return F.relu(normed * weight.double()[:, None, None] + bias.double()[:, None, None])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_channel_is_normalised_and_stays_channels_last(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    generator = torch.Generator().manual_seed(shape[1])
    x = picture(shape, generator).to(dtype)
    weight, bias = (torch.randn(shape[1], generator=generator).to(dtype) for _ in range(2))
    found = instance_norm_relu(x.to(device), weight.to(device), bias.to(device))
    assert found.dtype == dtype
    assert found.stride() == x.stride()
    torch.testing.assert_close(
        found.double().cpu(), truth(x, weight, bias), atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype]
    )


def test_no_digits_are_lost_where_the_mean_is_far_from_zero(device: torch.device) -> None:
    x = torch.randn(1, 32, 64, 97, generator=torch.Generator().manual_seed(1)) + 1000
    x = x.to(memory_format=torch.channels_last)
    weight, bias = torch.ones(32), torch.zeros(32)
    found = instance_norm_relu(x.to(device), weight.to(device), bias.to(device)).double().cpu()
    torch.testing.assert_close(found, truth(x, weight, bias), atol=5e-4, rtol=0)  # steps of float32 there are 6e-5


def test_a_channel_of_one_value_becomes_its_bias(device: torch.device) -> None:
    x = torch.full((1, 16, 9, 11), 3.7, device=device).to(memory_format=torch.channels_last)
    bias = torch.linspace(-1, 1, 16, device=device)
    found = instance_norm_relu(x, torch.ones(16, device=device), bias)
    torch.testing.assert_close(found, bias.relu()[None, :, None, None].expand_as(found), atol=1e-3, rtol=0)


def test_nan_stays_in_its_channel(device: torch.device) -> None:
    x = picture((2, 20, 6, 9), torch.Generator().manual_seed(2)).to(device)
    x[1, 3, 2, 2] = torch.nan
    found = instance_norm_relu(x, torch.ones(20, device=device), torch.zeros(20, device=device))
    assert found[1, 3].isnan().all()
    assert found.isnan().sum() == 54


@pytest.mark.parametrize("shape", [(0, 16, 4, 4), (1, 16, 0, 4)])
def test_no_pixels_are_no_error(shape: tuple[int, ...], device: torch.device) -> None:
    x = torch.ones(shape, device=device).to(memory_format=torch.channels_last)
    assert instance_norm_relu(x, torch.ones(16, device=device), torch.ones(16, device=device)).shape == shape


def test_input_that_does_not_fit_is_refused_with_both_sides_named(device: torch.device) -> None:
    x = torch.ones(1, 16, 4, 6, device=device).to(memory_format=torch.channels_last)
    one, other = torch.ones(16, device=device), torch.ones(24, device=device)
    with pytest.raises(KernelInputError, match=r"weight \[24\] .* has C = 24, not 16 as in x \[1, 16, 4, 6\]"):
        instance_norm_relu(x, other, one)
    with pytest.raises(KernelInputError, match="x is float32 and bias float16"):
        instance_norm_relu(x, one, one.half())
    with pytest.raises(KernelInputError, match=r"x .* has strides .*, not those of a channels-last tensor"):
        instance_norm_relu(x.contiguous(), one, one)
