"""Laws of the losses: a perfect answer costs nothing, and what must not count does not."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from online_tapir.model.estimate import Estimate
from online_tapir.scenes.clips import Clips
from online_tapir.train.losses import LossWeights, Truth, estimate_loss, heat_loss

CERTAIN = 30.0


def truth(frames: int = 5, points: int = 7) -> Truth:
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(frames, points, 2, generator=generator) * 64
    visible = torch.rand(frames, points, generator=generator) < 0.7
    never = torch.zeros(frames, points, dtype=torch.bool)
    return Truth(xy, visible, torch.arange(frames)[:, None] >= torch.arange(points) % 3, never)


def answer(wanted: Truth) -> Estimate:
    """Right in all three, and sure of it."""
    occlusion = torch.where(wanted.visible, -CERTAIN, CERTAIN)
    return Estimate(wanted.xy.clone(), occlusion, torch.full_like(occlusion, -CERTAIN))


def loss(estimate: Estimate, wanted: Truth) -> float:
    return float(estimate_loss(estimate, wanted, LossWeights()))


def moved(estimate: Estimate, rows: Tensor, by: float) -> Estimate:
    return replace(estimate, xy=estimate.xy + by * rows[..., None])


def test_a_perfect_answer_costs_nothing() -> None:
    assert loss(answer(truth()), truth()) < 1e-4


def test_a_larger_error_costs_more_up_to_the_cap() -> None:
    wanted = truth()
    costs = [loss(moved(answer(wanted), wanted.visible, by), wanted) for by in (0.5, 1.0, 2.0, 4.0)]
    assert costs == sorted(costs)
    assert costs[0] > 0.01
    far, farther = (loss(moved(answer(wanted), wanted.visible, by), wanted) for by in (30.0, 60.0))
    assert far == pytest.approx(farther)


def test_positions_of_hidden_points_and_of_frames_before_the_query_cost_nothing() -> None:
    wanted = truth()
    ignored = ~(wanted.visible & wanted.tracked)
    assert ignored.any()
    assert loss(moved(answer(wanted), ignored, 5.0), wanted) == pytest.approx(loss(answer(wanted), wanted))


def test_calling_a_visible_point_hidden_costs() -> None:
    wanted = truth()
    shy = replace(answer(wanted), occlusion=torch.full_like(answer(wanted).occlusion, CERTAIN))
    assert loss(shy, wanted) > 1


def test_trusting_a_wrong_position_costs() -> None:
    wanted = truth()
    wrong = moved(answer(wanted), wanted.visible, 20.0)
    doubting = replace(wrong, expected_distance=torch.full_like(wrong.expected_distance, CERTAIN))
    assert loss(wrong, wanted) > loss(doubting, wanted) + 1


def test_an_error_costs_more_where_a_point_has_been_hidden() -> None:
    wanted = truth()
    seen = wanted.visible & wanted.tracked
    row = torch.zeros_like(seen)
    row[4] = seen[4]
    wrong = moved(answer(wanted), row, 3.0)
    back = replace(wanted, returned=row)
    assert loss(wrong, back) > 1.5 * loss(wrong, wanted)
    assert float(estimate_loss(wrong, back, LossWeights(returned=1.0))) == pytest.approx(loss(wrong, wanted))


def test_a_point_is_back_once_it_is_seen_after_it_was_hidden_since_its_query() -> None:
    visible = torch.tensor([[[1, 1, 0, 1, 1], [0, 1, 1, 1, 1], [0, 1, 0, 0, 0]]]).bool()  # B, N, T
    clips = Clips(torch.zeros(1, 5, 3, 16, 16), torch.zeros(1, 3, 5, 2), visible, torch.tensor([[0, 1, 1]]))
    assert Truth.of(clips).returned.T.tolist() == [[0, 0, 0, 1, 1], [0] * 5, [0] * 5]


def test_a_heat_map_that_peaks_at_the_truth_costs_least() -> None:
    yes = torch.ones(1, 1, dtype=torch.bool)
    wanted = Truth(torch.tensor([[[20.0, 12.0]]]), yes, yes, ~yes)
    costs = []
    for x in range(8):
        heat = torch.zeros(1, 1, 4, 8)
        heat[0, 0, 1, x] = 10
        cost = heat_loss(heat, wanted, (32, 64), LossWeights())  # cells of 8 pixels: the truth is the centre of (2, 1)
        costs.append(float(cost))
    assert min(range(8), key=costs.__getitem__) == 2
    assert costs[2] < 0.01


def test_a_clip_s_truth_is_laid_out_as_the_estimates_are() -> None:
    xy = torch.arange(2 * 3 * 4 * 2, dtype=torch.float32).view(2, 3, 4, 2)  # B, N, T
    clips = Clips(
        torch.zeros(2, 4, 3, 16, 16), xy, torch.ones(2, 3, 4, dtype=torch.bool), torch.tensor([[0, 1, 3]] * 2)
    )
    laid_out = Truth.of(clips)
    assert torch.equal(laid_out.xy[4 * 1 + 2, 1], xy[1, 1, 2])
    assert laid_out.tracked[4:].tolist() == [[t >= q for q in (0, 1, 3)] for t in range(4)]
