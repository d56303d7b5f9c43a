"""A taught backbone learns, resumes, folds to the same numbers, and its heads are the teacher's where they fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from online_tapir.model.config import TapirConfig
from online_tapir.model.lean import LeanBackbone
from online_tapir.scenes.views import Photographs
from online_tapir.testing import sliding_pictures, tiny_config, tiny_model
from online_tapir.train.config import DistilConfig
from online_tapir.train.distil import distil, folded, transplanted, with_norms

TEACHER = tiny_config(described_by=(0, 1, 3), extra_convs=0, recent_inputs=True, iterations=1)
LEAN = tiny_config(
    trunk="lean", grid_widths=(16, 32), described_by=(1, 3), extra_convs=0, recent_inputs=True, iterations=1
)


def photographs() -> Photographs:
    return Photographs([np.repeat(np.repeat(rgb, 2, 0), 2, 1) for rgb in sliding_pictures(2, 160, 200)])


def teaching(**changes: Any) -> DistilConfig:
    return DistilConfig(**({"steps": 4, "pairs": 1, "points": 16, "report_every": 2, "checkpoint_every": 2} | changes))


def test_it_learns_and_says_how_far_it_is(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    distil(tiny_model(TEACHER), LEAN, teaching(steps=12, report_every=4), photographs(), tmp_path, records.append)
    assert [record["step"] for record in records] == [4, 8, 12]
    assert records[-1]["regression"] < records[0]["regression"]


def test_a_stopped_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    steps: list[int] = []
    model = tiny_model(TEACHER)
    distil(model, LEAN, teaching(), photographs(), tmp_path, lambda record: None)
    distil(model, LEAN, teaching(steps=6), photographs(), tmp_path, lambda record: steps.append(record["step"]))
    assert steps == [6]


def test_folding_the_norms_changes_no_grid() -> None:
    torch.manual_seed(0)
    student = with_norms(LeanBackbone(LEAN))
    assert isinstance(student, LeanBackbone)
    student.train()
    for _ in range(3):
        student.features(torch.randn(2, 3, 64, 96))
    plain = LeanBackbone(LEAN)
    plain.load_state_dict(folded(student))
    image = torch.randn(1, 3, 64, 96)
    for found, expected in zip(plain.features(image), student.eval().features(image), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", [LEAN])
def test_the_mixer_sees_and_moves_what_it_learnt_to(config: TapirConfig) -> None:
    """Inputs that mean the same give the same outputs: the new channels weigh nothing at first."""
    teacher = tiny_model(TEACHER)
    model = transplanted(teacher, config, LeanBackbone(config).state_dict())
    old, new = teacher.refiner.mixer, model.refiner.mixer
    fine, known = teacher.config.described_channels[1:]
    skipped, channels = teacher.config.described_channels[0], model.config.described_channels
    old_in = torch.randn(1, old.enter.in_features)
    old_in[:, 4 : 4 + skipped] = 0  # what the finest grid says
    patches = 49 + 2
    start = 4 + teacher.config.feature_channels
    for _ in range(2):
        old_in[:, start : start + 49] = 0
        start += 49 * teacher.config.grids
        old_in[:, start : start + 2] = 0
        start += 2 * teacher.config.grids
    parts = [old_in[:, :4], old_in[:, 4 + skipped : 4 + skipped + fine], old_in[:, 4 + skipped + fine :][:, :known]]
    parts.append(torch.randn(1, channels[1] - known))  # channels that the teacher has not
    start = 4 + teacher.config.feature_channels
    for _ in range(2):
        for numbers in (49, 2):
            parts.append(old_in[:, start + numbers : start + numbers * teacher.config.grids])
            start += numbers * teacher.config.grids
    parts.append(old_in[:, start:])
    torch.testing.assert_close(new.enter(torch.cat(parts, dim=1)), old.enter(old_in))
    assert patches * model.config.grids == sum(part.shape[1] for part in parts[4:6])
    hidden = torch.randn(1, old.leave.in_features)
    left = new.leave(hidden)
    torch.testing.assert_close(left[:, :4], old.leave(hidden)[:, :4])
    assert not left[:, 4 + channels[0] + known :].any()
