"""Heads moved to other grids compute what they computed before, as far as the grids are the same."""

from dataclasses import replace

import numpy as np
import torch

from online_tapir import Tracker
from online_tapir.model.clip import track_clip
from online_tapir.model.lean import LeanBackbone
from online_tapir.model.tapir import Tapir
from online_tapir.testing import sliding_pictures, tiny_config, tiny_model
from online_tapir.train.transplant import grown, transplanted

TEACHER = tiny_config(described_by=(0, 1, 3), extra_convs=0, recent_inputs=True, iterations=1, peak_inputs=True)
LEAN = tiny_config(
    trunk="lean",
    grid_widths=(16, 32),
    described_by=(1, 3),
    extra_convs=0,
    recent_inputs=True,
    iterations=1,
    peak_inputs=True,
)
GROWN = replace(LEAN, grid_widths=(8, 16, 32), described_by=(0, 1, 3))


def last_tracks(model: Tapir) -> torch.Tensor:
    tracker = Tracker(model, max_points=4)
    tracker.add([[30, 20], [60, 40]])
    return torch.from_numpy([tracker.step(rgb) for rgb in sliding_pictures(4)][-1].xy.copy())


def learnt_by(model: Tapir) -> torch.Tensor:
    """The gradient that a clip gives the mixer's first weights."""
    clip = torch.from_numpy(np.stack(sliding_pictures(4))).permute(0, 3, 1, 2)[None].float() / 127.5 - 1
    xy, named = torch.tensor([[[30.0, 20.0], [60.0, 40.0]]]), torch.zeros(1, 2, dtype=torch.long)
    enter = model.refiner.mixer.enter.requires_grad_(True)
    track_clip(model, clip, xy, named).refined[-1].xy.square().sum().backward()  # type: ignore[no-untyped-call]
    assert enter.weight.grad is not None
    return enter.weight.grad


def test_a_model_given_a_finer_grid_tracks_as_before() -> None:
    old = tiny_model(LEAN)
    new = grown(old, GROWN).eval().requires_grad_(False)
    assert new.config.grids == old.config.grids + 1
    torch.testing.assert_close(last_tracks(new), last_tracks(old), atol=1e-4, rtol=0)


def test_the_new_grid_can_be_learnt() -> None:
    """Its weights in the mixer are zero, but they get a gradient."""
    start = 4 + GROWN.feature_channels
    gradient = learnt_by(grown(tiny_model(LEAN), GROWN))
    assert (gradient[:, start : start + 49].abs().sum(dim=0) > 0).all()


def test_a_model_whose_queries_get_neighbours_tracks_as_before_and_can_learn_from_them() -> None:
    old = tiny_model(GROWN)
    new = grown(old, replace(GROWN, neighbour_grids=2)).eval().requires_grad_(False)
    torch.testing.assert_close(last_tracks(new), last_tracks(old), atol=1e-4, rtol=0)
    gradient = learnt_by(new)
    assert (gradient[:, old.refiner.mixer.enter.in_features :].abs().sum(dim=0) > 0).all()


def test_neighbours_on_a_grid_are_kept_when_those_on_another_come() -> None:
    old = tiny_model(replace(GROWN, neighbour_grids=1))
    new = grown(old, replace(GROWN, neighbour_grids=2)).eval().requires_grad_(False)
    torch.testing.assert_close(last_tracks(new), last_tracks(old), atol=1e-4, rtol=0)


def test_neighbours_are_kept_where_a_finer_grid_comes() -> None:
    old = tiny_model(replace(LEAN, neighbour_grids=1))
    new = grown(old, replace(GROWN, neighbour_grids=2)).eval().requires_grad_(False)
    torch.testing.assert_close(last_tracks(new), last_tracks(old), atol=1e-4, rtol=0)


def test_a_grid_that_is_there_already_is_kept() -> None:
    old = tiny_model(GROWN)
    assert torch.equal(last_tracks(grown(old, GROWN).eval().requires_grad_(False)), last_tracks(old))


def test_the_mixer_sees_and_moves_what_it_learnt_to() -> None:
    """Inputs that mean the same give the same outputs: the new channels weigh nothing at first."""
    teacher = tiny_model(TEACHER)
    model = transplanted(teacher, LEAN, LeanBackbone(LEAN).state_dict())
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
