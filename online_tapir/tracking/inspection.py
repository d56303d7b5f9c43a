"""What the model saw of one point, as a record."""

import numpy as np
import torch
from numpy.typing import NDArray

from online_tapir.model.config import Size, TapirConfig
from online_tapir.model.taps import Patches, Sight
from online_tapir.records import Correlations, Inspection, Stage
from online_tapir.tracking.answers import answers
from tapir_kernels import PATCH_RADIUS


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
    told = answers(torch.stack(sight.estimates).numpy(), config.initial_resolution, config.visible_above, size)
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
