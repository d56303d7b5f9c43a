"""Runs `online-tapir eval`, `train`, `distil` and `scenes` after their command lines are parsed."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console

from online_tapir.errors import ConfigError
from online_tapir.evaluation.baselines import DenseFlow, LucasKanade, LucasKanadeWithRecovery
from online_tapir.evaluation.compare import (
    MakeTracker,
    Report,
    Video,
    as_dict,
    compare,
    hard_videos,
    report_table,
    still_videos,
    validation_videos,
)
from online_tapir.evaluation.tapvid import query_first_videos, strided_videos
from online_tapir.files import make_folder
from online_tapir.model.checkpoint import choose_device, load_model, save_weights
from online_tapir.model.config import LEAN_SMALL, PRESETS
from online_tapir.model.tapir import Tapir
from online_tapir.recording.mp4 import Mp4Writer
from online_tapir.scenes.clips import SceneConfig, make_clips
from online_tapir.scenes.contact_sheet import contact_sheet, draw_truth
from online_tapir.scenes.textures import TextureBank
from online_tapir.scenes.views import Photographs
from online_tapir.tracking.tracker import Tracker
from online_tapir.train.config import DistilConfig, TrainConfig
from online_tapir.train.distil import distil
from online_tapir.train.loop import train, validation_clips
from online_tapir.train.transplant import grown

PROCEDURAL_TEXTURES = 96
VALIDATION_CLIPS = 12
STILL_CLIPS = 2
SCENES_FPS = 10
SHEET_FRAME = 256  # pixels of a frame's longer side, to which smaller ones are enlarged
SHEET_QUALITY = 90  # of its JPEG: a PNG of noisy frames is ten times as large
REPORT_COLUMNS = 120  # of a table printed to a file or pipe
POINTS_AT_ONCE = 256


def evaluate_models(
    models: list[str],
    photos: Path | None,
    dataset: Path | None,
    *,
    strided: bool = False,
    clips: int,
    frames: int,
    device: str,
) -> list[dict[str, Any]]:
    """Scores models and OpenCV's trackers; prints the scores as tables and returns them as plain values.

    Scores on validation scenes: textured with `photos` (if given), procedural, hard ones (half as many, twice as long,
    that turn, grow and hide more), and still. With `dataset`, scores on
    that TAP-Vid file instead, query-first or `strided`. Raises ConfigError for `strided` without `dataset`.
    """
    if strided and dataset is None:
        raise ConfigError("strided queries need a data set; name a TAP-Vid file with --dataset")
    trackers: dict[str, MakeTracker] = {name: _streaming(load_model(name, device=device)) for name in models}
    trackers |= {
        "LK": LucasKanade,
        "LK, recovering": LucasKanadeWithRecovery,
        "DIS flow": DenseFlow,
    }
    console = Console() if sys.stdout.isatty() else Console(width=REPORT_COLUMNS)
    reports: list[Report] = []
    for name, videos in _data(photos, dataset, strided, clips, frames):
        with console.status(f"scoring on {name}"):
            found = compare(trackers, videos, data=name, points_at_once=POINTS_AT_ONCE)
        console.print(report_table(found))
        reports += found
    return [as_dict(report) for report in reports]


def _streaming(model: Tapir) -> MakeTracker:
    return lambda: Tracker(model, max_points=POINTS_AT_ONCE, window=1)


def _data(
    photos: Path | None, dataset: Path | None, strided: bool, clips: int, frames: int
) -> Iterator[tuple[str, Iterator[Video]]]:
    if dataset is not None:
        protocol, read = ("strided", strided_videos) if strided else ("query-first", query_first_videos)
        yield f"{dataset.stem}, {protocol}", read(dataset)
        return
    if photos is not None:
        yield f"photographs, {clips} x {frames} frames", iter(validation_videos(photos, clips, frames))
    yield f"procedural, {clips} x {frames} frames", iter(validation_videos(None, clips, frames))
    hard = (max(1, clips // 2), 2 * frames)
    kind = "procedural" if photos is None else "photographs"
    yield f"hard {kind}, {hard[0]} x {hard[1]} frames", iter(hard_videos(photos, *hard))
    yield f"still, {STILL_CLIPS} x 200 frames", iter(still_videos(photos, STILL_CLIPS))


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
    `start` the grids of the next `small`. Raises ConfigError for `width` together with `start`, as those weights have
    their own width, and for `grow` without a lean `start`.
    """
    if grow and start is None:
        raise ConfigError("--grow adds grids to the weights of --start; name them")
    if start is not None and width != 1.0:
        raise ConfigError(f"--width {width:g} conflicts with {start}, which has its own width; leave out one of them")
    if config.matching and textures is None:
        raise ConfigError("--matching needs photographs to take views of; give a folder of them with --textures")
    make_folder(out)
    torch.manual_seed(config.seed)
    target = choose_device(device)
    model = Tapir(PRESETS["small"].scaled(width)) if start is None else load_model(start, device="cpu")
    if grow:
        if model.config.trunk != LEAN_SMALL.trunk:
            raise ConfigError(f"--grow adds grids to a lean backbone, and {start} has a {model.config.trunk}")
        model = grown(model, LEAN_SMALL)
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
