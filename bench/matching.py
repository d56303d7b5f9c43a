"""How well features alone know a point again: by cosine on the coarse grid, between warped views of photographs.

No search head and no refinement: the share of points whose best match lies within 8 pixels, for pairs of views that
differ by a scale, a turn, or little.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
from cyclopts import Parameter
from numpy.typing import NDArray

from bench.command import BenchError, Count, JsonFile, run
from bench.report import finish
from online_tapir.model.checkpoint import load_model
from online_tapir.model.grids import describe
from online_tapir.model.tapir import Tapir
from online_tapir.scenes.textures import photograph_paths
from tapir_kernels import cost_volume

SIDE = 256  # pixels of a view
WITHIN_PX = 8.0
CHANGES = {
    "as it is": (1.0, 5.0),
    "x2": (2.0, 0.0),
    "x0.5": (0.5, 0.0),
    "45 degrees": (1.0, 45.0),
    "90 degrees": (1.0, 90.0),
    "180 degrees": (1.0, 180.0),
}
INTERVAL = "no times are measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is matched."""

    photos: Annotated[Path | None, Parameter(help="Folder of photographs.")] = None
    models: Annotated[tuple[str, ...], Parameter(help="Presets or .safetensors files.")] = ("small",)
    points: Annotated[int, Parameter(help="Points of a pair of views.", validator=Count)] = 100
    pictures: Annotated[int, Parameter(help="Photographs.", validator=Count)] = 40


def main(settings: Annotated[Settings, Parameter(name="*")] = Settings(), *, json: JsonFile = None) -> None:
    """Print the share of points that each model's features find again, change by change."""
    if settings.photos is None:
        raise BenchError("--photos names no folder; give one of photographs that the model was not trained on")
    paths = photograph_paths(settings.photos)[: settings.pictures]
    pictures = [np.ascontiguousarray(np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR))[..., ::-1]) for path in paths]
    shares = {
        name: {change: matched(load_model(name), pictures, settings.points, *how) for change, how in CHANGES.items()}
        for name in settings.models
    }
    for name, found in shares.items():
        print(f"{name}: " + ", ".join(f"{change} {100 * share:.0f} %" for change, share in found.items()))
    finish("matching", settings, {"within_px": WITHIN_PX, "shares": shares}, json, interval=INTERVAL)


@torch.inference_mode()
def matched(model: Tapir, pictures: list[NDArray[np.uint8]], points: int, scale: float, degrees: float) -> float:
    """The share of points of a view whose best match on the changed view is right to within WITHIN_PX."""
    rng = np.random.default_rng(7)
    right = total = 0
    for picture in pictures:
        height, width = picture.shape[:2]
        middle = (width / 2, height / 2)
        first = _view(picture, middle, min(height, width) / SIDE * 0.5, 0.0)
        second = _view(picture, middle, min(height, width) / SIDE * 0.5 / scale, degrees)
        xy = rng.uniform(0.1 * SIDE, 0.9 * SIDE, (points, 2))
        turn = np.deg2rad(degrees)
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        truth = (xy - SIDE / 2) @ rotation.T * scale + SIDE / 2
        inside = ((truth > 4) & (truth < SIDE - 4)).all(axis=1)
        images = torch.from_numpy(np.stack([first, second])).permute(0, 3, 1, 2).float() / 127.5 - 1
        grids = model.backbone(images)
        frame = torch.zeros(points, dtype=torch.long)
        queries = describe(grids, frame, torch.from_numpy(xy.astype(np.float32)), grids.size)
        channels = grids.coarse.shape[3]
        cost = cost_volume(queries[None, :, -channels:], grids.coarse[1:])[0]  # [N, H, W]
        best = cost.flatten(1).argmax(dim=1).numpy()
        cells = cost.shape[2]
        found = (np.stack([best % cells, best // cells], axis=1).astype(np.float64) + 0.5) * (SIDE / cells)
        error = np.linalg.norm(found - truth, axis=1)
        right += int((error < WITHIN_PX)[inside].sum())
        total += int(inside.sum())
    return right / max(total, 1)


def _view(picture: NDArray[np.uint8], middle: tuple[float, float], scale: float, degrees: float) -> NDArray[np.uint8]:
    """SIDE x SIDE pixels about the middle, each `scale` pixels of the picture wide, the picture turned by `degrees`."""
    blurred = cv2.GaussianBlur(picture, (0, 0), 0.5 * scale) if scale > 1 else picture
    matrix = np.asarray(cv2.getRotationMatrix2D(middle, degrees, 1 / scale), np.float64)
    matrix[:, 2] += SIDE / 2 - np.array(middle)
    return np.asarray(cv2.warpAffine(blurred, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR), np.uint8)


if __name__ == "__main__":
    run(main)
