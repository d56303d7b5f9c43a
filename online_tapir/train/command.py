"""Runs `online-tapir train`, `distil` and `scenes` after their command lines are parsed."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console

from online_tapir.errors import ConfigError
from online_tapir.files import make_folder
from online_tapir.model.checkpoint import choose_device, load_model, save_weights
from online_tapir.model.config import LEAN_SMALL, PRESETS, TapirConfig
from online_tapir.model.tapir import Tapir
from online_tapir.recording.mp4 import Mp4Writer
from online_tapir.scenes.clips import SceneConfig, make_clips
from online_tapir.scenes.contact_sheet import contact_sheet, draw_truth
from online_tapir.scenes.textures import TextureBank
from online_tapir.scenes.views import Photographs
from online_tapir.train.config import DistilConfig, TrainConfig
from online_tapir.train.distil import distil
from online_tapir.train.loop import train, validation_clips
from online_tapir.train.transplant import grown

PROCEDURAL_TEXTURES = 96
VALIDATION_CLIPS = 12
SCENES_FPS = 10
SHEET_FRAME = 256  # pixels of a frame's longer side, to which smaller ones are enlarged
SHEET_QUALITY = 90  # of its JPEG: a PNG of noisy frames is ten times as large


def train_model(
    out: Path,
    config: TrainConfig,
    start: str | None,
    textures: Path | None,
    validation: Path | None,
    device: str,
    width: float = 1.0,
    grow: bool = False,
) -> None:
    """Trains one stage; writes its averaged weights to `out`/small.safetensors and a log to `out`/log.jsonl.

    Without `start`, trains `small` with `width` times its channels from random weights. `grow` gives the weights of
    `start` what later versions of `small` have in addition. Raises ConfigError for `width` together with `start`, as
    those weights have their own width, and for `grow` without a `small` or a lean one to start from.
    """
    if grow and start is None:
        raise ConfigError("--grow adds to the weights of --start; name them")
    if start is not None and width != 1.0:
        raise ConfigError(f"--width {width:g} conflicts with {start}, which has its own width; leave out one of them")
    if config.matching and textures is None:
        raise ConfigError("--matching needs photographs to take views of; give a folder of them with --textures")
    make_folder(out)
    torch.manual_seed(config.seed)
    target = choose_device(device)
    model = Tapir(PRESETS["small"].scaled(width)) if start is None else load_model(start, device="cpu")
    if grow:
        model = grown(model, _next(model.config))
    model.requires_grad_(True).to(target)
    model.backbone.requires_grad_(not config.freeze_backbone)
    model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        model.backbone.compile()
    bank = TextureBank.procedural(PROCEDURAL_TEXTURES, seed=0)
    held_out = TextureBank.procedural(PROCEDURAL_TEXTURES, seed=1)
    if textures is not None:
        bank = TextureBank.from_folder(textures) + bank
    if validation is not None:
        held_out = TextureBank.from_folder(validation)
    console = Console(highlight=False)
    clips = validation_clips(held_out, VALIDATION_CLIPS, target)
    photographs = Photographs.from_folder(textures) if config.matching and textures is not None else None
    averaged = train(model, config, bank, photographs, clips, out, lambda record: console.print(_in_words(record)))
    save_weights(
        out / "small.safetensors", averaged, {"stage": json.dumps({"steps": config.steps, "size": config.size})}
    )
    console.print(f"weights written to {out / 'small.safetensors'}; use them with --model")


def _next(config: TapirConfig) -> TapirConfig:
    """The configuration that `--grow` makes of this one."""
    if config.trunk == LEAN_SMALL.trunk:
        return LEAN_SMALL
    if not (config.peak_inputs and config.recent_inputs):
        raise ConfigError(f"--grow adds to a small model or a lean one, and {config.name} is neither")
    return replace(config, neighbour_grids=PRESETS["small"].neighbour_grids)


def distil_model(out: Path, config: DistilConfig, teacher: str, textures: Path) -> None:
    """Distils the grids of `teacher` into a lean backbone, on photographs; writes `out`/small.safetensors."""
    make_folder(out)
    torch.manual_seed(config.seed)
    console = Console(highlight=False)
    model = distil(
        load_model(teacher, device="cpu", dtype=torch.bfloat16),
        LEAN_SMALL,
        config,
        Photographs.from_folder(textures),
        out,
        lambda record: console.print("  ".join(f"{name} {value:g}" for name, value in record.items())),
    )
    save_weights(out / "small.safetensors", model, {"stage": json.dumps({"distilled": config.steps})})
    console.print(f"weights written to {out / 'small.safetensors'}; continue with `online-tapir train --start`")


def draw_scenes(out: Path, textures: Path | None, scene: SceneConfig, clips: int, seed: int) -> None:
    """Draws training clips with their truth: all frames to `out`/scenes.jpg, a video to `out`/scenes.mp4."""
    make_folder(out)
    bank = TextureBank.procedural(PROCEDURAL_TEXTURES, seed=0)
    if textures is not None:
        bank = TextureBank.from_folder(textures) + bank
    rendered = make_clips(range(seed, seed + clips), scene, bank)
    scale = max(1, SHEET_FRAME // max(scene.height, scene.width))
    sheet = cv2.cvtColor(contact_sheet(rendered, scale=scale), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(out / "scenes.jpg"), sheet, [cv2.IMWRITE_JPEG_QUALITY, SHEET_QUALITY])
    pictures = np.concatenate([draw_truth(rendered, index) for index in range(clips)])  # [T, h, w, 3]
    height, width = pictures.shape[1:3]
    video = Mp4Writer(out / "scenes.mp4", SCENES_FPS, width, height)
    with closing(video):
        for picture in pictures:
            video.write(picture)


def _in_words(record: dict[str, Any]) -> str:
    return (
        f"step {record['step']}  {record['hours']:.2f} h  loss {record['loss']:.3f}  "
        f"AJ {100 * record['average_jaccard']:.1f}  occlusion {100 * record['occlusion_accuracy']:.1f} %  "
        f"median error {record['median_error']:.2f} px"
    )
