"""L2-normalisation over the channels of channels-last pictures, against float64."""

import pytest
import torch
import torch.nn.functional as F

from tapir_kernels.gpu.l2_normalize import l2_normalize
from tapir_kernels.gpu.launch import KernelInputError

TOLERANCES = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
SHAPES = [(1, 16, 8, 8), (2, 64, 30, 41), (1, 100, 32, 32), (1, 128, 64, 96), (1, 256, 8, 8), (3, 7, 1, 33)]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pixels_become_unit_vectors_and_stay_channels_last(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(shape[1])).to(
        dtype, memory_format=torch.channels_last
    )
    found = l2_normalize(x.to(device))
    assert found.dtype == dtype
    assert found.stride() == x.stride()
    torch.testing.assert_close(
        found.double().cpu(), F.normalize(x.double()), atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype]
    )


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_zero_stays_zero_and_squares_do_not_overflow(dtype: torch.dtype, device: torch.device) -> None:
    x = torch.full((1, 64, 2, 3), 4096.0, dtype=dtype, device=device).to(memory_format=torch.channels_last)
    x[:, :, 0, 0] = 0
    found = l2_normalize(x)
    assert found[:, :, 0, 0].eq(0).all()
    assert found[:, :, 1].eq(0.125).all()


def test_nan_stays_in_its_pixel(device: torch.device) -> None:
    x = torch.ones(1, 16, 5, 7, device=device).to(memory_format=torch.channels_last)
    x[0, 4, 2, 3] = torch.nan
    found = l2_normalize(x)
    assert found[0, :, 2, 3].isnan().all()
    assert found.isnan().sum() == 16


def test_no_pixels_are_no_error(device: torch.device) -> None:
    x = torch.ones(0, 16, 4, 4, device=device).to(memory_format=torch.channels_last)
    assert l2_normalize(x).shape == (0, 16, 4, 4)


def test_other_strides_and_dtypes_are_refused(device: torch.device) -> None:
    x = torch.ones(1, 16, 4, 6, device=device)
    with pytest.raises(KernelInputError, match=r"x .* has strides .*, not those of a channels-last tensor"):
        l2_normalize(x)
    with pytest.raises(KernelInputError, match="x is float64; kernels take float32, float16, bfloat16"):
        l2_normalize(x.double().to(memory_format=torch.channels_last))
    with pytest.raises(KernelInputError, match=r"x has 3 axes, \[16, 4, 6\]; it should be \[B, C, H, W\]"):
        l2_normalize(x[0])
