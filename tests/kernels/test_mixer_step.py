"""One frame of the temporal mixer in one launch, against the reference in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tapir_kernels import reference
from tapir_kernels.gpu.launch import KernelInputError
from tapir_kernels.gpu.mixer_step import mixer_step

TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
CASES = [(1, 16, 0), (7, 64, 1), (33, 100, 0), (257, 128, 1), (7, 192, 1), (7, 256, 0), (1, 512, 1)]  # N, C, phase
EXPANSION = 4

# The interpreter's, of exp far from zero: infinity, as on a GPU, and GELU's limit.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")


def weights(width: int, generator: torch.Generator) -> list[Tensor]:
    """All that a step takes after `phase`, in that order; as large as those that a mixer begins with."""
    scales = [
        ((width,), 1.0),
        ((3, EXPANSION, width), 3**-0.5),
        ((EXPANSION, width), 1.0),
        ((3, EXPANSION, width), (3 * EXPANSION) ** -0.5),
        ((width,), 1.0),
    ]
    return [torch.randn(shape, generator=generator) * scale for shape, scale in scales]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("points", "width", "phase"), CASES)
def test_a_step_and_what_it_remembers_agree_with_the_reference(
    points: int, width: int, phase: int, dtype: torch.dtype, device: torch.device
) -> None:
    generator = torch.Generator().manual_seed(width)
    x = (torch.randn(points, width, generator=generator) * 2 + 1).to(dtype)
    memory = torch.randn(4, points, width, generator=generator).to(dtype)
    tensors = [weight.to(dtype) for weight in weights(width, generator)]
    memory_found, memory_wanted = memory.to(device, copy=True), memory.double()
    lanes = torch.tensor([phase], dtype=torch.int32)
    found = mixer_step(x.to(device), memory_found, lanes.to(device), *(tensor.to(device) for tensor in tensors))
    wanted = reference.mixer_step(x.double(), memory_wanted, lanes, *(tensor.double() for tensor in tensors))
    assert found.dtype == dtype
    for ours, theirs in ((found, wanted), (memory_found, memory_wanted)):
        torch.testing.assert_close(ours.double().cpu(), theirs, atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])


def test_a_stream_of_steps_stays_with_the_reference(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = weights(48, generator)
    memory_found, memory_wanted = torch.zeros(4, 5, 48, device=device), torch.zeros(4, 5, 48).double()
    for frame in range(5):
        x = torch.randn(5, 48, generator=generator)
        phase = torch.tensor([frame & 1], dtype=torch.int32)
        found = mixer_step(x.to(device), memory_found, phase.to(device), *(tensor.to(device) for tensor in tensors))
        wanted = reference.mixer_step(x.double(), memory_wanted, phase, *(tensor.double() for tensor in tensors))
        torch.testing.assert_close(found.double().cpu(), wanted, atol=1e-5, rtol=1e-5)


def test_some_rows_of_a_larger_memory_are_stepped_and_the_others_left_alone(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(4)
    tensors, x = weights(48, generator), torch.randn(3, 48, generator=generator)
    memory = torch.randn(4, 7, 48, generator=generator)
    found_memory, wanted_memory = memory.to(device, copy=True), memory.clone()
    phase = torch.ones(1, dtype=torch.int32)
    found = mixer_step(x.to(device), found_memory[:, 2:5], phase.to(device), *(tensor.to(device) for tensor in tensors))
    torch.testing.assert_close(found.cpu(), reference.mixer_step(x, wanted_memory[:, 2:5], phase, *tensors))
    torch.testing.assert_close(found_memory.cpu(), wanted_memory)


def test_a_point_that_is_nan_stays_alone(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(2)
    tensors = [tensor.to(device) for tensor in weights(32, generator)]
    x, memory = torch.randn(3, 32, generator=generator).to(device), torch.zeros(4, 3, 32, device=device)
    x[1, 7] = torch.nan
    found = mixer_step(x, memory, torch.zeros(1, dtype=torch.int32, device=device), *tensors)
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()
    assert memory[:, [0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"memory": torch.ones(3, 5, 16)}, r"memory \[3, 5, 16\] .* has 4 = 3, not 4"),
        ({"memory": torch.ones(4, 5, 24)}, r"memory \[4, 5, 24\] .* has C = 24, not 16 as in x \[5, 16\]"),
        ({"memory": torch.ones(4, 5, 16).bfloat16()}, "x is float32 and memory bfloat16"),
        ({"memory": torch.ones(4, 16, 5).mT}, r"memory .* has strides \[80, 1, 5\], not those of a contiguous tensor"),
        ({"phase": torch.zeros(1)}, "phase is float32, not int32"),
        ({"phase": torch.zeros(2, dtype=torch.int32)}, "5 points are not as many for each of 2 lanes"),
        ({"narrow": torch.ones(3, 2, 16)}, r"narrow .* has M = 2, not 4 as in widen \[3, 4, 16\]"),
        ({"norm_weight": torch.ones(16, device="meta")}, r"x is on \S+ and norm_weight on meta"),
    ],
)
def test_input_that_does_not_fit_is_refused_with_both_sides_named(
    changed: dict[str, Tensor], message: str, device: torch.device
) -> None:
    fitting = {
        "x": torch.ones(5, 16),
        "memory": torch.ones(4, 5, 16),
        "phase": torch.zeros(1, dtype=torch.int32),
        "norm_weight": torch.ones(16),
        "widen": torch.ones(3, 4, 16),
        "widen_bias": torch.ones(4, 16),
        "narrow": torch.ones(3, 4, 16),
        "narrow_bias": torch.ones(16),
    }
    given = {name: tensor if tensor.is_meta else tensor.to(device) for name, tensor in (fitting | changed).items()}
    with pytest.raises(KernelInputError, match=message):
        mixer_step(**given)


LANES = torch.tensor([0, 1, reference.IDLE, 1, reference.IDLE], dtype=torch.int32)


@pytest.mark.parametrize("op", [mixer_step, reference.mixer_step], ids=["kernel", "reference"])
def test_every_lane_is_stepped_as_alone_and_an_idle_one_remembers_what_it_did(
    op: Callable[..., Tensor], device: torch.device
) -> None:
    generator = torch.Generator().manual_seed(3)
    tensors, points = weights(48, generator), 3
    x = torch.randn(len(LANES), points, 48, generator=generator)
    memory = torch.randn(4, len(LANES), points, 48, generator=generator)
    found_memory = memory.flatten(1, 2).to(device, copy=True)
    found = op(
        x.flatten(0, 1).to(device), found_memory, LANES.to(device), *(tensor.to(device) for tensor in tensors)
    ).cpu()
    for lane, phase in enumerate(LANES):
        rows = slice(lane * points, (lane + 1) * points)
        alone = memory[:, lane].clone()
        wanted = reference.mixer_step(x[lane], alone, phase[None], *tensors)
        torch.testing.assert_close(found_memory[:, rows].cpu(), alone, atol=1e-5, rtol=1e-5)
        if phase == reference.IDLE:
            assert torch.equal(found_memory[:, rows].cpu(), memory[:, lane])
        else:
            torch.testing.assert_close(found[rows], wanted, atol=1e-5, rtol=1e-5)
