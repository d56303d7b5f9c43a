"""The training loop: clips rendered on the training device, resumable checkpoints, averaged weights.

One run is one stage (a picture size, a clip length); a later stage starts from an earlier one's weights.
`command.train_model` publishes the weights.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from online_tapir.evaluation import scores as metrics
from online_tapir.files import replacing
from online_tapir.model.clip import track_clip
from online_tapir.model.estimate import visibility
from online_tapir.model.grids import Grids
from online_tapir.model.tapir import Tapir
from online_tapir.scenes.clips import Clips, SceneConfig, make_clips
from online_tapir.scenes.textures import TextureBank
from online_tapir.scenes.views import Photographs, ViewPairs
from online_tapir.train.config import VALIDATION_SEED, TrainConfig
from online_tapir.train.losses import LossWeights, Truth, clip_loss, matching_loss
from online_tapir.train.optimizer import Optimizer, make_optimizer
from online_tapir.train.stage import check_stage, stage_of

CHECKPOINT = "checkpoint.pt"
PAIRED_POINTS = 192


@dataclass(slots=True)
class Progress:
    """The state of training, as a checkpoint holds it."""

    model: Tapir
    averaged: Tapir
    optimizer: Optimizer
    stage: str = ""  # what the stage begins with and how it learns
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Replaces the checkpoint atomically: an interrupted save leaves the last one intact."""
        parts = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stage": self.stage,
            "step": self.step,
            "seconds": self.seconds,
        }
        with replacing(path) as partial:
            torch.save(parts, partial)

    def load(self, path: Path, device: torch.device) -> None:
        """Goes on from a checkpoint. Raises ConfigError for that of another stage."""
        saved = torch.load(path, map_location=device, weights_only=True)
        check_stage(path, saved, self.stage)
        self.model.load_state_dict(saved["model"])
        self.averaged.load_state_dict(saved["averaged"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.seconds = saved["step"], saved["seconds"]


def train(
    start: Tapir,
    config: TrainConfig,
    textures: TextureBank,
    photographs: Photographs | None,
    validation: Clips,
    out: Path,
    report: Callable[[dict[str, Any]], None],
) -> Tapir:
    """Trains from `start`, on its device, until `config.steps`; returns the averaged weights.

    `photographs` are what `config.matching` takes its views from. Resumes from the checkpoint in `out`. `report` gets a
    record at every validation; all go to `out`/log.jsonl.
    """
    device = next(start.parameters()).device
    out.mkdir(parents=True, exist_ok=True)
    progress = _begin(start, config)
    if (out / CHECKPOINT).exists():
        progress.load(out / CHECKPOINT, device)
    batches = _batches(config, textures, device, progress.step)
    losses: list[float] = []
    clock = time.monotonic()
    while progress.step < config.steps:
        pairs = _pairs(config, photographs, progress.step)
        losses.append(_step(progress, config, next(batches), pairs))
        progress.step += 1
        progress.seconds += time.monotonic() - clock
        clock = time.monotonic()
        last = progress.step == config.steps
        if last or progress.step % config.checkpoint_every == 0:
            progress.save(out / CHECKPOINT)
        if last or progress.step % config.validate_every == 0:
            record = _record(progress, losses, validation)
            losses.clear()
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            report(record)
    return progress.averaged


def _begin(start: Tapir, config: TrainConfig) -> Progress:
    averaged = Tapir(start.config).to(next(start.parameters()).device)
    averaged.load_state_dict(start.state_dict())
    averaged.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as the kernels want it
    optimizer = make_optimizer(start, config.optimizer, config.learning_rate, config.weight_decay)
    return Progress(start, averaged, optimizer, stage_of(start, start.config, config))


def _pairs(config: TrainConfig, photographs: Photographs | None, step: int) -> ViewPairs | None:
    """The pairs of views that the features also match at `step`."""
    if photographs is None or not config.matching:
        return None
    return photographs.pairs(np.random.default_rng([config.seed, step]), config.matching, PAIRED_POINTS)


def _step(progress: Progress, config: TrainConfig, clips: Clips, pairs: ViewPairs | None = None) -> float:
    """One optimiser step on one batch and, if given, pairs of views.

    Returns the loss, or NaN if a non-finite gradient made it skip the step.
    """
    model = progress.model.train()
    size = (clips.frames.shape[3], clips.frames.shape[4])
    xy = _at_query(clips)
    for group in progress.optimizer.param_groups:
        group["lr"] = config.learning_rate * learning_rate_share(progress.step, config)
    tracks = track_clip(model, clips.frames, xy, clips.query_frame, backbone_bf16=config.bf16)
    assert tracks.grids.size == size
    loss = clip_loss(tracks, Truth.of(clips), model.config.softmax_temperature, LossWeights())
    if pairs is not None:
        loss = loss + LossWeights().matching * _matching_loss(model, pairs, config)
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if not torch.isfinite(norm):
        return math.nan
    progress.optimizer.step()
    with torch.no_grad():
        decay = min(config.average, (1 + progress.step) / (10 + progress.step))
        averages: list[Tensor] = list(progress.averaged.parameters())
        weights: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)
    return loss.item()


def _matching_loss(model: Tapir, pairs: ViewPairs, config: TrainConfig) -> Tensor:
    """The matching loss of the model's coarse features on pairs of views."""
    device = next(model.parameters()).device
    images = torch.cat([pairs.first, pairs.second]).contiguous().to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
        grids: Grids = model.backbone(images)
    return matching_loss(grids.coarse.float(), pairs.to(device), model.config.softmax_temperature)


def learning_rate_share(step: int, config: TrainConfig) -> float:
    """The share of the peak learning rate at `step`: a linear rise, a plateau, a linear fall over the cooldown."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    left = (config.steps - step) / max(1.0, config.cooldown * config.steps)
    return rise * (config.final_rate + (1 - config.final_rate) * min(1.0, left))


def _at_query(clips: Clips) -> Tensor:
    """Where each point is on its query frame, [B, N, 2]."""
    index = clips.query_frame[..., None, None].expand(-1, -1, 1, 2)
    return clips.xy.gather(2, index)[:, :, 0]


def _batches(config: TrainConfig, textures: TextureBank, device: torch.device, step: int) -> Iterator[Clips]:
    """Yields batches of clips endlessly, each `reuse` times with random variations; starts at `step`."""
    scene = SceneConfig(frames=config.frames, points=config.points, pace=(1.0, config.fastest), turned=config.turned)
    batch, served = divmod(step, config.reuse)
    while True:
        first = config.seed + batch * config.clips
        height, width = _sides(config, first)
        sized = replace(scene, height=height, width=width)
        clips = make_clips(range(first, first + config.clips), sized, textures, device)
        for variation in range(served, config.reuse):
            yield _vary(clips, np.random.default_rng([first, variation])) if variation else clips
        batch, served = batch + 1, 0


def _sides(config: TrainConfig, seed: int) -> tuple[int, int]:
    """Height and width of a batch's clips, multiples of 8; those of `config.size` unless they vary."""
    reach = math.log(config.vary)
    height, width = config.size * np.exp(np.random.default_rng([seed, 1]).uniform(-reach, reach, 2))
    return round(height / 8) * 8, round(width / 8) * 8


def _vary(clips: Clips, rng: np.random.Generator) -> Clips:
    """The clips randomly mirrored, flipped, reversed in time and with colours permuted; the truth changes with them."""
    frames, xy, visible, query = clips.frames, clips.xy, clips.visible, clips.query_frame
    height, width = frames.shape[3:]
    frames = frames[:, :, torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.5:
        frames, xy = frames.flip(4), torch.stack([width - xy[..., 0], xy[..., 1]], dim=-1)
    if rng.random() < 0.5:
        frames, xy = frames.flip(3), torch.stack([xy[..., 0], height - xy[..., 1]], dim=-1)
    if rng.random() < 0.5:
        frames, xy, visible, query = frames.flip(1), xy.flip(2), visible.flip(2), frames.shape[1] - 1 - query
    return Clips(frames, xy, visible, query)


def validation_clips(textures: TextureBank, count: int, device: torch.device, frames: int = 12) -> Clips:
    """The clips that all stages are validated on: 256x256, always the same."""
    scene = SceneConfig(height=256, width=256, frames=frames, points=48)
    return make_clips(range(VALIDATION_SEED, VALIDATION_SEED + count), scene, textures, device)


@torch.no_grad()
def validate(model: Tapir, clips: Clips) -> metrics.TrackScores:
    """TAP-Vid's metrics, query-first, of `model` on clips at their own resolution, one clip at a time."""
    scores = []
    frames, points = clips.frames.shape[1], clips.xy.shape[1]
    for index in range(len(clips.frames)):
        clip = Clips(*(part[index : index + 1] for part in (clips.frames, clips.xy, clips.visible, clips.query_frame)))
        last = track_clip(model, clip.frames, _at_query(clip), clip.query_frame).refined[-1]
        visible = visibility(last.occlusion, last.expected_distance, model.config.visible_above)  # [T, N]
        xy = last.xy.view(frames, points, 2).transpose(0, 1).double().cpu().numpy()
        height, width = clip.frames.shape[3:]
        scores.append(
            metrics.score(
                metrics.scale_to_256(xy, width, height),
                visible.T.cpu().numpy(),
                metrics.scale_to_256(clip.xy[0].double().cpu().numpy(), width, height),
                clip.visible[0].cpu().numpy(),
                metrics.frames_after_query(clip.query_frame[0].cpu().numpy(), frames),
            )
        )
    return metrics.average(scores)


def _record(progress: Progress, losses: list[float], validation: Clips) -> dict[str, Any]:
    scores = validate(progress.averaged.eval(), validation)
    finite = [loss for loss in losses if math.isfinite(loss)]
    return {
        "step": progress.step,
        "hours": round(progress.seconds / 3600, 3),
        "loss": round(sum(finite) / max(1, len(finite)), 4),
        "skipped_steps": len(losses) - len(finite),
        **{name: value for name, value in asdict(scores).items() if isinstance(value, float)},
        "position_accuracy": scores.position_accuracy,
    }
