"""Laws of the training loop: it learns, it goes on where it was stopped, and its variations keep the truth."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from online_tapir.errors import ConfigError
from online_tapir.model.config import TapirConfig
from online_tapir.model.tapir import Tapir
from online_tapir.scenes.clips import Clips, SceneConfig, make_clips
from online_tapir.scenes.textures import TextureBank
from online_tapir.scenes.views import Photographs
from online_tapir.testing import sliding_pictures
from online_tapir.train import loop
from online_tapir.train.config import Kind, TrainConfig
from online_tapir.train.loop import learning_rate_share, train, validate

MakeModel = Callable[..., Tapir]
SHORT = TrainConfig(
    steps=4, size=64, frames=3, clips=2, points=8, warmup=1, validate_every=2, checkpoint_every=2, cooldown=0.0
)


@pytest.fixture(scope="module")
def textures() -> TextureBank:
    return TextureBank.procedural(4, seed=0, size=96)


@pytest.fixture(scope="module")
def validation(textures: TextureBank) -> Clips:
    return make_clips([7, 8], SceneConfig(height=64, width=64, frames=4, points=8), textures)


@pytest.fixture
def learner(make_model: MakeModel, tiny_config: TapirConfig) -> Callable[[], Tapir]:
    return lambda: make_model(replace(tiny_config, initial_resolution=(64, 64))).requires_grad_(True)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    learner: Callable[[], Tapir], textures: TextureBank, validation: Clips, tmp_path: Path, kind: Kind
) -> None:
    config = replace(SHORT, optimizer=kind)
    whole = train(learner(), config, textures, None, validation, tmp_path / "whole", lambda record: None)
    stopped = replace(config, steps=2)
    train(learner(), stopped, textures, None, validation, tmp_path / "parts", lambda record: None)
    again = train(learner(), config, textures, None, validation, tmp_path / "parts", lambda record: None)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, msg=name)
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4]
    assert not list(tmp_path.rglob("*.partial"))


def test_the_checkpoint_of_another_stage_is_refused(
    learner: Callable[[], Tapir], make_model: MakeModel, textures: TextureBank, validation: Clips, tmp_path: Path
) -> None:
    train(learner(), SHORT, textures, None, validation, tmp_path, lambda record: None)
    other = make_model(learner().config, seed=1).requires_grad_(True)
    for start, config in ((other, SHORT), (learner(), replace(SHORT, size=128)), (learner(), replace(SHORT, seed=5))):
        with pytest.raises(ConfigError, match="another stage"):
            train(start, replace(config, steps=6), textures, None, validation, tmp_path, lambda record: None)


def test_the_averaged_weights_are_laid_out_as_kernels_want_them(learner: Callable[[], Tapir]) -> None:
    kernels = [p for p in loop._begin(learner(), SHORT).averaged.backbone.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_training_on_the_same_clips_lowers_their_loss(learner: Callable[[], Tapir], validation: Clips) -> None:
    torch.manual_seed(0)
    config = replace(SHORT, steps=40, warmup=5)
    progress = loop._begin(learner(), config)
    losses = []
    for _ in range(40):
        losses.append(loop._step(progress, config, validation))
        progress.step += 1
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(
    learner: Callable[[], Tapir], validation: Clips
) -> None:
    progress = loop._begin(learner(), SHORT)
    before = {name: tensor.clone() for name, tensor in progress.model.state_dict().items()}
    poisoned = replace(validation, frames=validation.frames * torch.nan)
    assert np.isnan(loop._step(progress, SHORT, poisoned))
    for name, tensor in progress.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_learning_rate_rises_holds_and_falls() -> None:
    config = TrainConfig(steps=100, warmup=10, cooldown=0.5, final_rate=0.1)
    shares = [learning_rate_share(step, config) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:51] == pytest.approx([1.0] * 42)
    assert shares[50:] == sorted(shares[50:], reverse=True)
    assert shares[-1] == pytest.approx(0.118)


def test_variations_keep_every_point_on_its_own_colours(textures: TextureBank) -> None:
    scene = SceneConfig(height=64, width=96, frames=3, points=12).clean()
    clips = make_clips([3], scene, textures)
    for seed in range(8):
        varied = loop._vary(clips, np.random.default_rng(seed))
        assert torch.equal(sorted_pixels(varied), sorted_pixels(clips))
        assert varied.visible[0].gather(1, varied.query_frame[0][:, None]).all()


def sorted_pixels(clips: Clips) -> torch.Tensor:
    """The colours under each point at its query, in order of brightness; flips and channel swaps change neither."""
    colours = []
    for point, frame in enumerate(clips.query_frame[0].tolist()):
        x, y = clips.xy[0, point, frame].floor().long().tolist()
        at = (frame, slice(None), min(y, clips.frames.shape[3] - 1), min(x, clips.frames.shape[4] - 1))
        colours.append(clips.frames[0][at].sort().values)
    return torch.stack(colours)


def test_validation_scores_are_tap_vid_s(learner: Callable[[], Tapir], validation: Clips) -> None:
    scores = validate(learner().eval(), validation)
    assert 0 <= scores.average_jaccard <= 1
    assert scores.position_accuracy == tuple(sorted(scores.position_accuracy))


def test_pairs_of_views_teach_the_features_to_match(learner: Callable[[], Tapir], validation: Clips) -> None:
    torch.manual_seed(0)
    photographs = Photographs([np.repeat(np.repeat(rgb, 2, 0), 2, 1) for rgb in sliding_pictures(2, 160, 200)])
    config = replace(SHORT, matching=2, learning_rate=1e-2)
    progress = loop._begin(learner(), config)
    pairs = loop._pairs(config, photographs, 0)
    assert pairs is not None
    before = loop._matching_loss(progress.model, pairs, config).item()
    for _ in range(10):
        loop._step(progress, config, validation, pairs)
        progress.step += 1
    assert loop._matching_loss(progress.model, pairs, config).item() < before


def test_sides_vary_within_their_share_in_multiples_of_eight() -> None:
    sides = np.array([loop._sides(replace(SHORT, size=256, vary=1.5), seed) for seed in range(200)])
    assert (sides % 8 == 0).all()
    assert sides.min() >= 256 / 1.5 - 4
    assert sides.max() <= 256 * 1.5 + 4
    assert len(np.unique(sides, axis=0)) > 100
    assert loop._sides(replace(SHORT, size=256), 3) == (256, 256)
