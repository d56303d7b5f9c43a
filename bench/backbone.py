"""What a model's backbone costs on one frame: parameters, arithmetic and time, models side by side.

The models take turns, so that a busy machine slows all of them alike.
"""

import time
from dataclasses import dataclass
from statistics import median
from typing import Annotated

import torch
from cyclopts import Parameter
from torch.utils.flop_counter import FlopCounterMode

from bench.command import Count, JsonFile, run
from bench.report import finish
from online_tapir.model.checkpoint import load_model
from online_tapir.model.tapir import Tapir

WARM_UP = 3  # runs of each model, excluded from the times
INTERVAL = "one frame through the backbone, at the model's initial resolution; the first runs are excluded"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured."""

    models: Annotated[tuple[str, ...], Parameter(help="Presets or .safetensors files.")] = ("small",)
    repeats: Annotated[int, Parameter(help="Timed runs of each model and dtype.", validator=Count)] = 30


def main(settings: Annotated[Settings, Parameter(name="*")] = Settings(), *, json: JsonFile = None) -> None:
    """Print the parameters, GFLOP per frame and median milliseconds of each model's backbone."""
    models = {name: load_model(name) for name in settings.models}
    results = {
        name: {"parameters": sum(tensor.numel() for tensor in model.parameters()), "gflop": gflop(model)}
        for name, model in models.items()
    }
    for dtype_name, dtype in DTYPES.items():
        found = timed({name: model.to(dtype) for name, model in models.items()}, dtype, settings.repeats)
        for name, milliseconds in found.items():
            results[name][f"{dtype_name}_ms"] = round(milliseconds, 2)
    for name, figures in results.items():
        print(f"{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in figures.items()))
    finish("backbone", settings, results, json, interval=INTERVAL)


def image(model: Tapir, dtype: torch.dtype) -> torch.Tensor:
    """A blank frame [1, 3, H, W] at the model's initial resolution."""
    return torch.zeros(1, 3, *model.config.initial_resolution, dtype=dtype)


@torch.inference_mode()
def gflop(model: Tapir) -> float:
    """Arithmetic of the backbone on one frame, a multiplication and an addition counted as two."""
    with FlopCounterMode(display=False) as counter:
        model.backbone(image(model, next(model.parameters()).dtype))
    return float(counter.get_total_flops()) / 1e9


@torch.inference_mode()
def timed(models: dict[str, Tapir], dtype: torch.dtype, repeats: int) -> dict[str, float]:
    """Median milliseconds of each backbone on one frame; the models take turns."""
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(WARM_UP + repeats):
        for name, model in models.items():
            frame = image(model, dtype)
            started = time.perf_counter_ns()
            model.backbone(frame)
            taken[name].append((time.perf_counter_ns() - started) / 1e6)
    return {name: median(all_of_them[WARM_UP:]) for name, all_of_them in taken.items()}


if __name__ == "__main__":
    run(main)
