"""A taught backbone learns, resumes and folds to the same numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from online_tapir.errors import ConfigError
from online_tapir.model.lean import LeanBackbone
from online_tapir.scenes.views import Photographs
from online_tapir.testing import sliding_pictures, tiny_config, tiny_model
from online_tapir.train.config import DistilConfig
from online_tapir.train.distil import distil, folded, with_norms

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
    with pytest.raises(ConfigError, match="another stage"):
        distil(tiny_model(TEACHER, seed=1), LEAN, teaching(steps=8), photographs(), tmp_path, lambda record: None)


def test_a_run_in_two_parts_learns_what_one_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = distil(tiny_model(TEACHER), LEAN, teaching(steps=4), photographs(), tmp_path / "whole", lambda record: None)
    torch.manual_seed(0)

    def stop(record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil(
            tiny_model(TEACHER), LEAN, teaching(steps=4, report_every=2, checkpoint_every=2), photographs(),
            tmp_path / "parts", stop,
        )  # fmt: skip
    torch.manual_seed(1)  # what is drawn at the start is replaced by the checkpoint
    again = distil(tiny_model(TEACHER), LEAN, teaching(steps=4), photographs(), tmp_path / "parts", lambda record: None)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, msg=name)


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
