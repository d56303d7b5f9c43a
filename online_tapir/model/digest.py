"""What tells one model's weights from another's."""

from hashlib import sha256

import torch
from torch import Tensor, nn


def digest(model: nn.Module) -> str:
    """SHA-256 of the weights in the dtype they compute in, the same on every device."""
    found = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(content(tensor))
    return found.hexdigest()


def content(tensor: Tensor) -> memoryview:
    """A tensor's bytes, in row-major order."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data if len(flat) else memoryview(b"")
