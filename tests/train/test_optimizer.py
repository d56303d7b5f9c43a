"""Laws of the optimisers: Muon's steps are balanced and as large as AdamW's, whatever lies how in memory."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from online_tapir.train.optimizer import make_optimizer

RATE = 0.01


def moved(model: nn.Module, name: str, kind: Any, decay: float = 0.0) -> Tensor:
    """How one step moves a weight of `model`, whose gradients are random, and the same each time."""
    model = copy.deepcopy(model)
    weights = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(3)
    for weight in weights.values():
        weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)
    before = weights[name].detach().clone()
    make_optimizer(model, kind, RATE, decay).step()
    return weights[name].detach() - before


def test_muon_moves_a_convolution_in_all_directions_alike_and_as_far_as_adamw_would() -> None:
    step = moved(nn.Conv2d(12, 24, 3, bias=False), "weight", "muon").flatten(1)
    lengths = torch.linalg.svdvals(step)
    assert lengths.min() > lengths.max() / 2
    torch.testing.assert_close(step.square().mean().sqrt(), torch.tensor(0.2 * RATE), rtol=0.2, atol=0.0)


def test_a_layout_in_memory_changes_no_step() -> None:
    def conv(memory_format: torch.memory_format) -> nn.Module:
        torch.manual_seed(1)
        return nn.Conv2d(12, 24, 3).to(memory_format=memory_format)  # type: ignore[call-overload,no-any-return]

    plain, last = (moved(conv(each), "weight", "muon") for each in (torch.contiguous_format, torch.channels_last))
    torch.testing.assert_close(last, plain, rtol=0.05, atol=1e-4)  # Muon computes in bfloat16


@pytest.mark.parametrize("narrow", [nn.Linear(24, 4), nn.Conv1d(24, 24, 3, groups=24), nn.LayerNorm(24)])
def test_what_has_few_directions_is_left_to_adamw(narrow: nn.Module) -> None:
    torch.testing.assert_close(moved(narrow, "weight", "muon"), moved(narrow, "weight", "adamw"))


def test_biases_do_not_decay() -> None:
    model = nn.Linear(16, 16)
    for name in ("weight", "bias"):
        free, decayed = (moved(model, name, "muon", decay) for decay in (0.0, 1.0))
        assert torch.equal(free, decayed) == (name == "bias")


def test_a_checkpoint_of_before_there_was_muon_is_gone_on_from() -> None:
    model = nn.Linear(16, 16)
    groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias], "weight_decay": 0.0}]
    before = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98))
    model(torch.ones(1, 16)).sum().backward()
    before.step()
    again = make_optimizer(model, "adamw", RATE, 0.1)
    again.load_state_dict(before.state_dict())
    [part] = again.state_dict()["parts"]
    torch.testing.assert_close(part["state"], before.state_dict()["state"])


def test_what_is_frozen_stays() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    model[1].weight.grad = torch.randn(16, 16)
    before = model[0].weight.detach().clone(), model[1].weight.detach().clone()
    make_optimizer(model, "muon", RATE, 0.1).step()
    assert torch.equal(model[0].weight, before[0])
    assert not torch.equal(model[1].weight, before[1])
