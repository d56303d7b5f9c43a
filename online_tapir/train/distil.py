"""Distils an older backbone's grids into a lean one, and trains it to match points across rotation and scale.

Two losses on pairs of views of photographs. The fine grid and the first channels of the coarse one are regressed to the
teacher's unit features. The whole coarse grid, and separately the channels that the teacher lacks, learn to find points
of the first view in the second, by cross-entropy over its cells (InfoNCE, arXiv 1807.03748). During training, a batch
norm follows every inner convolution; at the end it is folded into the convolution.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from online_tapir.files import replacing
from online_tapir.model.backbone import Backbone
from online_tapir.model.config import TapirConfig
from online_tapir.model.lean import Conv, LeanBackbone
from online_tapir.model.tapir import Tapir
from online_tapir.scenes.views import Photographs, ViewPairs
from online_tapir.train.config import DistilConfig
from online_tapir.train.losses import matching_loss
from online_tapir.train.stage import check_stage, stage_of
from online_tapir.train.transplant import transplanted

CHECKPOINT = "distil.pt"
TAUGHT = 0.8  # share of a coarse vector's squared length for the teacher's channels
UNNORMED = ("finest", "lateral4", "fine", "coarse")  # the last convolutions, whose outputs are the grids
REGRESSED = 8.0  # weight of the regression, relative to the cross-entropies


def distil(
    teacher: Tapir,
    config: TapirConfig,
    teaching: DistilConfig,
    photographs: Photographs,
    out: Path,
    report: Callable[[dict[str, Any]], None],
) -> Tapir:
    """A model of `config`: its backbone is distilled from `teacher`'s grids, its heads are the teacher's.

    Resumes from the checkpoint in `out`. `report` gets a record every `report_every` steps.
    """
    out.mkdir(parents=True, exist_ok=True)
    student = with_norms(LeanBackbone(config)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert isinstance(student, LeanBackbone)
    assert isinstance(teacher.backbone, Backbone)
    optimizer = torch.optim.AdamW(student.parameters(), lr=teaching.learning_rate, weight_decay=1e-3, betas=(0.9, 0.98))
    step, seconds = 0, 0.0
    stage = stage_of(teacher, config, teaching)
    if (out / CHECKPOINT).exists():
        saved = torch.load(out / CHECKPOINT, weights_only=True)
        check_stage(out / CHECKPOINT, saved, stage)
        student.load_state_dict(saved["student"])
        optimizer.load_state_dict(saved["optimizer"])
        step, seconds = saved["step"], saved["seconds"]
    losses: list[dict[str, float]] = []
    clock = time.monotonic()
    while step < teaching.steps:
        pairs = photographs.pairs(np.random.default_rng([teaching.seed, step]), teaching.pairs, teaching.points)
        for group in optimizer.param_groups:
            group["lr"] = teaching.learning_rate * _rate(step, teaching.steps)
        losses.append(_step(student, teacher.backbone, optimizer, pairs, teacher.config.softmax_temperature))
        step += 1
        seconds += time.monotonic() - clock
        clock = time.monotonic()
        if step % teaching.checkpoint_every == 0 or step == teaching.steps:
            saved = {"student": student.state_dict(), "optimizer": optimizer.state_dict()}
            with replacing(out / CHECKPOINT) as partial:
                torch.save({**saved, "stage": stage, "step": step, "seconds": seconds}, partial)
        if step % teaching.report_every == 0 or step == teaching.steps:
            means = {name: float(np.mean([one[name] for one in losses])) for name in losses[0]}
            record = {"step": step, "hours": round(seconds / 3600, 3), **{k: round(v, 4) for k, v in means.items()}}
            with (out / "distil.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            report(record)
            losses.clear()
    return transplanted(teacher, config, folded(student))


def _rate(step: int, steps: int) -> float:
    """A linear rise over 100 steps, then half a cosine down to 1 %."""
    return min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _step(
    student: LeanBackbone, teacher: Backbone, optimizer: torch.optim.Optimizer, pairs: ViewPairs, temperature: float
) -> dict[str, float]:
    student.train()
    images = torch.cat([pairs.first, pairs.second]).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        taught = teacher(images.to(next(teacher.parameters()).dtype))
    wanted = [level.float() for level in taught.describing[-2:]]  # [2B, h, w, C]
    with torch.autocast("cpu", torch.bfloat16):
        features = student.features(images)[-2:]  # a grid at stride 2 is left to `train`
    fine, coarse = (x.float().permute(0, 2, 3, 1) for x in features)
    known = wanted[1].shape[3]
    whole = F.normalize(coarse, dim=-1)
    regression = (1 - (F.normalize(fine, dim=-1) * wanted[0]).sum(-1)).mean() + (
        (whole[..., :known] - math.sqrt(TAUGHT) * wanted[1]).square().sum(-1).mean()
    )
    found = matching_loss(whole, pairs, temperature)
    new = matching_loss(F.normalize(coarse[..., known:], dim=-1), pairs, temperature)
    loss = REGRESSED * regression + found + 0.5 * new
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), 2.0)
    optimizer.step()
    return {"regression": regression.item(), "found": found.item(), "found_by_new": new.item()}


def with_norms(module: nn.Module) -> nn.Module:
    """`module` with a batch norm after every inner convolution, in place."""
    for name, child in module.named_children():
        if isinstance(child, Conv) and name not in UNNORMED:
            setattr(module, name, nn.Sequential(child, nn.BatchNorm2d(child.out_channels)))
        else:
            with_norms(child)
    return module


def folded(student: LeanBackbone) -> dict[str, Tensor]:
    """The weights of a backbone with its norms folded into the convolutions."""
    convs: dict[str, nn.Conv2d] = {}
    for name, module in student.eval().named_modules():
        if isinstance(module, nn.Sequential) and isinstance(module[0], Conv) and isinstance(module[1], nn.BatchNorm2d):
            convs[name] = fuse_conv_bn_eval(module[0], module[1])
        elif isinstance(module, Conv) and name in UNNORMED:
            convs[name] = module
    return {f"{name}.{key}": weight for name, conv in convs.items() for key, weight in conv.state_dict().items()}
