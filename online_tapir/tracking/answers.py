"""Converts the model's output to records: image pixels, probabilities, and the inspection of one point."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from online_tapir.model import coordinates
from online_tapir.model.config import TapirConfig
from online_tapir.model.coordinates import Size
from online_tapir.model.estimate import visibility
from online_tapir.model.taps import Patches, Sight
from online_tapir.records import Correlations, Inspection, Stage
from tapir_kernels import PATCH_RADIUS


class Answers(NamedTuple):
    """Positions of N points, and their probabilities."""

    xy: NDArray[np.float32]  # [N, 2] image pixels
    visible: NDArray[np.bool_]  # [N]
    occlusion: NDArray[np.float32]  # [N] probability that the point is hidden
    uncertainty: NDArray[np.float32]  # [N] probability that the position is off


def answers(values: NDArray[np.float32], config: TapirConfig, size: Size) -> Answers:
    """The answers in values [N, 4] (see `estimate.packed`), for a frame of `size`."""
    occlusion, distance = values[:, 2].copy(), values[:, 3].copy()
    xy = coordinates.rescale(torch.from_numpy(values[:, :2]), config.initial_resolution, size)
    return Answers(
        xy.contiguous().numpy(),
        visibility(torch.from_numpy(occlusion), torch.from_numpy(distance), config.visible_above).numpy(),
        _probability(occlusion),
        _probability(distance),
    )


def inspection(id: int, sight: Sight, config: TapirConfig, size: Size) -> Inspection:
    """The inspection of point `id` on a frame of `size`; the sight's tensors are on the host."""
    stages = _stages(sight, config, size)
    heat = torch.softmax(sight.heat.flatten() * config.softmax_temperature, dim=0)
    refinements = zip(stages, stages[1:], sight.patches, strict=False)  # one more stage than patches
    return Inspection(
        id,
        sight.cost.numpy(),
        heat.view_as(sight.heat).numpy(),
        stages,
        tuple(_correlations(before, after, patches, size) for before, after, patches in refinements),
    )


def _stages(sight: Sight, config: TapirConfig, size: Size) -> tuple[Stage, ...]:
    told = answers(torch.stack(sight.estimates).numpy(), config, size)
    names = ["match"]
    for index, patches in enumerate(sight.patches):
        height, width = patches.resolution
        at = f"{width}x{height} " if len(sight.patches) > config.iterations else ""
        names.append(f"{at}refine {index % config.iterations + 1}")
    probabilities = zip(told.occlusion.tolist(), told.uncertainty.tolist(), told.visible.tolist(), strict=True)
    return tuple(Stage(name, xy, *rest) for name, xy, rest in zip(names, told.xy, probabilities, strict=True))


def _correlations(before: Stage, after: Stage, patches: Patches, size: Size) -> Correlations:
    """Those of the refinement that produced stage `after`; samples are one cell of their level apart."""
    cells = np.array([(size[1] / width, size[0] / height) for height, width in patches.grids])  # [L, 2] image pixels
    recent = None if patches.recent is None else _squares(patches.recent)
    reach = np.asarray(PATCH_RADIUS * cells, np.float32)
    return Correlations(after.name, before.xy, _squares(patches.query), recent, reach)


def _squares(patches: torch.Tensor) -> NDArray[np.float32]:
    """Patches [L, 49] as [L, 7, 7], y before x."""
    side = 2 * PATCH_RADIUS + 1
    squares: NDArray[np.float32] = patches.view(len(patches), side, side).numpy()
    return squares


def _probability(logit: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-logit.clip(-80, 80))), np.float32)
