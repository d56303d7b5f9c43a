"""Converts the model's output to records: image pixels and probabilities."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from online_tapir.model.config import Size


class Answers(NamedTuple):
    """Positions of N points, and their probabilities."""

    xy: NDArray[np.float32]  # [N, 2] image pixels
    visible: NDArray[np.bool_]  # [N]
    occlusion: NDArray[np.float32]  # [N] probability that the point is hidden
    uncertainty: NDArray[np.float32]  # [N] probability that the position is off


def answers(values: NDArray[np.float32], input_size: Size, above: float, size: Size) -> Answers:
    """The answers in values [N, 4] (see `estimate.packed`) for an input of `input_size`, on a frame of `size`.

    A point is visible if it is with more than the probability `above` not hidden and in the right place.
    """
    hidden, wrong = _probability(values[:, 2]), _probability(values[:, 3])
    scale = np.array([size[1] / input_size[1], size[0] / input_size[0]], np.float32)
    return Answers(values[:, :2] * scale, (1 - hidden) * (1 - wrong) > above, hidden, wrong)


def _probability(logit: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-logit.clip(-80, 80))), np.float32)
