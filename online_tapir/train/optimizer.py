"""What moves the weights in training: AdamW, or Muon for the weights that are matrices and AdamW for the rest.

Muon gives each matrix a step whose singular values are all about the same, so that rare directions are learned as fast
as common ones (Jordan and others, "Muon", 2024). Its steps are scaled to the size of AdamW's (arXiv 2502.16982, section
2.2), so that one learning rate serves both.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from online_tapir.train.config import Kind

LEAST_SIDE = 9  # of a matrix that Muon moves; a narrower one has too few directions to balance
BETAS = (0.9, 0.98)


class Optimizer:
    """Several of torch's optimisers as one, each with weights of its own."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self._parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self._parts for group in part.param_groups]

    def step(self) -> None:
        """Moves the weights by their gradients."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Goes on from what a checkpoint holds."""
        for part, state in zip(self._parts, saved.get("parts", [saved]), strict=True):  # older ones have a single part
            part.load_state_dict(state)


class MatrixMuon(torch.optim.Muon):
    """torch's Muon for weights of any shape: a convolution is a matrix of its outputs by all that each of them sums."""

    def __init__(self, weights: Sequence[nn.Parameter], rate: float, decay: float) -> None:
        self._weights = weights
        self._views = [nn.Parameter(_matrix(weight.detach(), weight)) for weight in weights]
        super().__init__(self._views, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: Any = None) -> Any:
        """Moves the weights, whose memory the matrices share."""
        for view, weight in zip(self._views, self._weights, strict=True):
            view.grad = None if weight.grad is None else _matrix(weight.grad, weight)
        return super().step(closure)  # type: ignore[no-untyped-call]


def make_optimizer(model: nn.Module, kind: Kind, rate: float, decay: float) -> Optimizer:
    """The optimiser of all parameters of `model`. Biases and the weights of norms do not decay."""
    weights = list(model.parameters())
    matrices = [weight for weight in weights if kind == "muon" and _is_matrix(weight)]
    left = [weight for weight in weights if kind != "muon" or not _is_matrix(weight)]
    groups = [
        {"params": [weight for weight in left if weight.ndim > 1], "weight_decay": decay},
        {"params": [weight for weight in left if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    parts: list[torch.optim.Optimizer] = [MatrixMuon(matrices, rate, decay)] if matrices else []
    return Optimizer(*parts, *([torch.optim.AdamW(groups, lr=rate, betas=BETAS)] if left else []))


def _is_matrix(weight: Tensor) -> bool:
    return weight.ndim > 1 and min(len(weight), weight[0].numel()) >= LEAST_SIDE


def _matrix(tensor: Tensor, weight: Tensor) -> Tensor:
    """`tensor`, of a weight's shape, as a matrix in the order of that weight's memory: of the weight itself, a view."""
    return (tensor if weight.is_contiguous() else tensor.permute(0, 2, 3, 1)).flatten(1)
