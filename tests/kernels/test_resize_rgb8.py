"""A picture resized and scaled in one launch, against torch's own interpolation in float64."""

import pytest
import torch

from tapir_kernels import reference
from tapir_kernels.gpu.launch import KernelInputError
from tapir_kernels.gpu.resize_rgb8 import resize_rgb8

TOLERANCES = {torch.float32: 5e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
# a frame, and the size it is wanted at: smaller, larger, the same, by odd ratios, of one pixel
CASES = [
    ((48, 64), (16, 24)),
    ((30, 41), (64, 96)),
    ((32, 32), (32, 32)),
    ((33, 161), (64, 72)),
    ((1, 1), (8, 8)),
    ((7, 300), (8, 16)),
]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("frame", "size"), CASES)
def test_pixels_are_those_of_the_reference(
    frame: tuple[int, int], size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> None:
    rgb = torch.randint(0, 256, (*frame, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(frame[0]))
    found = resize_rgb8(rgb.to(device), size, dtype)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    wanted = reference.resize_rgb8(rgb, size, torch.float64)
    torch.testing.assert_close(found.double().cpu(), wanted, atol=TOLERANCES[dtype], rtol=0)


def test_black_is_minus_one_and_white_is_one(device: torch.device) -> None:
    rgb = torch.zeros(16, 20, 3, dtype=torch.uint8, device=device)
    rgb[:, 10:] = 255
    found = resize_rgb8(rgb, (8, 10), torch.float32)
    assert found[..., :5].eq(-1).all()
    assert found[..., 5:].eq(1).all()


def test_other_pictures_are_refused(device: torch.device) -> None:
    rgb = torch.zeros(16, 20, 3, dtype=torch.uint8, device=device)
    with pytest.raises(KernelInputError, match="rgb is float32, not uint8; convert it"):
        resize_rgb8(rgb.float(), (8, 8), torch.float32)
    with pytest.raises(KernelInputError, match=r"rgb \[16, 20, 4\] .* has 3 = 4, not 3"):
        resize_rgb8(rgb.new_zeros(16, 20, 4), (8, 8), torch.float32)
    with pytest.raises(KernelInputError, match=r"rgb .* has strides .*, not those of a contiguous tensor"):
        resize_rgb8(rgb.transpose(0, 1), (8, 8), torch.float32)
    with pytest.raises(KernelInputError, match="the kernel cannot resize"):
        resize_rgb8(rgb, (8, 8), torch.float64)
