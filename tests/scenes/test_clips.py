"""Clips keep their promises: seeds decide them, the truth is where the picture says it is, what is hidden is hidden."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from online_tapir.errors import ConfigError
from online_tapir.scenes.clips import Clips, SceneConfig, make_clips
from online_tapir.scenes.contact_sheet import contact_sheet
from online_tapir.scenes.layers import make_layers
from online_tapir.scenes.motion import clock
from online_tapir.scenes.sensor import jpeg
from online_tapir.scenes.textures import TextureBank

ODD = SceneConfig(height=96, width=161, frames=5, points=33)


@pytest.fixture(scope="module")
def textures() -> TextureBank:
    return TextureBank.procedural(21, seed=0, size=200)


def colours_at(clips: Clips, xy: Tensor) -> Tensor:
    """The frames' colours [B, N, T, 3] at xy [B, N, T, 2] image pixels."""
    batch, frames, _, height, width = clips.frames.shape
    grid = (xy / torch.tensor([width, height]) * 2 - 1).transpose(1, 2).flatten(0, 1)[:, None]  # [B T, 1, N, 2]
    colours = F.grid_sample(clips.frames.flatten(0, 1), grid, padding_mode="border", align_corners=False)
    return colours[:, :, 0].reshape(batch, frames, 3, -1).permute(0, 3, 1, 2)


def on_query_frame(per_frame: Tensor, clips: Clips) -> Tensor:
    """What per_frame [B, N, T, ...] has on each point's query frame: [B, N, ...]."""
    batch, points = clips.query_frame.shape
    return per_frame[torch.arange(batch)[:, None], torch.arange(points), clips.query_frame]


def test_a_seed_gives_its_clip_whatever_else_is_in_the_batch(textures: TextureBank) -> None:
    together, alone = make_clips([7, 8, 9], ODD, textures), make_clips([9], ODD, textures)
    assert torch.equal(together.frames[2:], alone.frames)
    assert torch.equal(together.xy[2:], alone.xy)
    assert torch.equal(together.visible[2:], alone.visible)
    assert torch.equal(together.query_frame[2:], alone.query_frame)
    assert not torch.equal(together.frames[0], together.frames[1])


def test_clips_do_not_disturb_the_callers_random_numbers(textures: TextureBank) -> None:
    before = torch.get_rng_state()
    make_clips([1], ODD, textures)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [(128, 128), (96, 161), (17, 33)])
def test_clips_have_the_shapes_and_ranges_they_promise(textures: TextureBank, size: tuple[int, int]) -> None:
    clips = make_clips([0, 1, 2], replace(ODD, height=size[0], width=size[1]), textures)
    assert clips.frames.shape == (3, 5, 3, *size)
    assert (clips.xy.shape, clips.visible.shape, clips.query_frame.shape) == ((3, 33, 5, 2), (3, 33, 5), (3, 33))
    assert (clips.frames.dtype, clips.xy.dtype) == (torch.float32, torch.float32)
    assert (clips.visible.dtype, clips.query_frame.dtype) == (torch.bool, torch.int64)
    assert clips.frames.abs().max() <= 1
    steps = (clips.frames + 1) * 127.5
    assert torch.allclose(steps, steps.round(), atol=1e-3)
    assert clips.xy.isfinite().all()


def test_every_point_is_visible_and_in_the_frame_on_its_query_frame(textures: TextureBank) -> None:
    crowded = replace(
        ODD, points=150, frames=4, sprites=(12, 40), sprite_radius=(0.2, 0.9), max_speed=0.5, still_layer=0
    )
    for config in (ODD, crowded, replace(ODD, height=16, width=16, frames=1, sprites=(0, 0))):
        clips = make_clips(range(8), config, textures)
        assert clips.xy.shape[1] == config.points
        assert on_query_frame(clips.visible, clips).all()
        inside = (clips.xy >= 0) & (clips.xy < torch.tensor([config.width, config.height]))
        assert inside.all(-1)[clips.visible].all()


def test_a_visible_point_looks_the_same_on_every_frame_and_its_neighbourhood_does_not(textures: TextureBank) -> None:
    clips = make_clips(range(12), replace(ODD, height=128, width=150).clean(), textures)
    query = on_query_frame(colours_at(clips, clips.xy), clips)[:, :, None]
    at_truth = (colours_at(clips, clips.xy) - query).abs().mean(-1)[clips.visible]
    aside = (colours_at(clips, clips.xy + torch.tensor([5.0, -4.0])) - query).abs().mean(-1)[clips.visible]
    assert at_truth.median() < 0.01
    assert at_truth.mean() < 0.03
    assert aside.mean() > 6 * at_truth.mean()


@pytest.mark.parametrize("turned", [0.0, 1.0])
def test_the_truth_is_not_half_a_pixel_off(textures: TextureBank, turned: float) -> None:
    config = replace(ODD, elastic=0, max_scale=1, turned=turned, max_growth=1)
    clips = make_clips(range(12), config.clean(), textures)
    query = on_query_frame(colours_at(clips, clips.xy), clips)[:, :, None]
    errors = {
        (dx, dy): (colours_at(clips, clips.xy + torch.tensor([dx, dy])) - query).abs()[clips.visible].mean().item()
        for dx in (-0.5, 0.0, 0.5)
        for dy in (-0.5, 0.0, 0.5)
    }
    query_aside = [error for shift, error in errors.items() if shift != (0.0, 0.0)]
    assert errors[0.0, 0.0] < 0.5 * min(query_aside)


def test_a_hidden_point_in_the_frame_mostly_shows_something_else(textures: TextureBank) -> None:
    clips = make_clips(range(30), ODD.clean(), textures)
    inside = ((clips.xy > 1) & (clips.xy < torch.tensor([ODD.width, ODD.height]) - 1)).all(-1)
    query = on_query_frame(colours_at(clips, clips.xy), clips)[:, :, None]
    strange = (colours_at(clips, clips.xy) - query).abs().mean(-1)
    covered = inside & ~clips.visible
    assert covered.sum() > 100
    assert strange[covered].mean() > 10 * strange[clips.visible].mean()


def test_from_the_image_to_a_layer_and_back_is_the_same_place(textures: TextureBank) -> None:
    config = replace(ODD, elastic=1.0, max_ripple=0.39, turned=1.0)
    xy = np.random.default_rng(0).uniform(0, (161, 96), (50, 1, 2)).repeat(5, 1)  # [N, T, 2]
    for seed in range(5):
        for layer in make_layers(np.random.default_rng(seed), config, textures, np.arange(5.0)):
            for frame in range(5):
                q = layer.picture_points(xy)[:, frame]
                assert np.abs(layer.image_points(q)[:, frame] - xy[:, frame]).max() < 1e-3


def test_nothing_moves_in_a_still_scene_but_the_noise(textures: TextureBank) -> None:
    still = replace(ODD, still=True).clean()
    clips = make_clips([3, 4], still, textures)
    noisy = make_clips([3, 4], replace(still, noise=1.0), textures)
    assert torch.equal(clips.frames, clips.frames[:, :1].expand_as(clips.frames))
    for still_clips in (clips, noisy):
        assert torch.equal(still_clips.xy, still_clips.xy[:, :, :1].expand_as(still_clips.xy))
        assert still_clips.visible.all()
    assert (noisy.frames - noisy.frames[:, :1]).abs().max() > 0


def test_a_repeated_frame_has_the_picture_and_the_truth_of_the_one_before(textures: TextureBank) -> None:
    clips = make_clips(range(8), replace(ODD, frames=12, stutter=1.0, still_camera=0, noise=1.0), textures)
    same_picture = (clips.frames[:, 1:] == clips.frames[:, :-1]).flatten(2).all(-1)  # [B, T - 1]
    same_truth = (clips.xy[:, :, 1:] == clips.xy[:, :, :-1]).all(-1).all(1)
    assert 3 < same_picture.sum() < 40
    assert torch.equal(same_picture, same_truth)


def test_a_camera_s_imperfections_do_not_move_the_truth_of_a_layer(textures: TextureBank) -> None:
    harsh = replace(ODD, shadows=1, exposure=1, defocus=1, noise=1, jpeg=1, motion_blur=1)
    clips = make_clips(range(10), replace(harsh, max_noise=0.02), textures)
    query = on_query_frame(colours_at(clips, clips.xy), clips)[:, :, None]
    at_truth = (colours_at(clips, clips.xy) - query).abs().mean(-1)[clips.visible].mean()
    aside = (colours_at(clips, clips.xy + torch.tensor([6.0, -5.0])) - query).abs().mean(-1)[clips.visible].mean()
    assert aside > 1.3 * at_truth


def test_some_points_get_hidden_and_without_sprites_and_motion_none_do(textures: TextureBank) -> None:
    clips = make_clips(range(20), replace(ODD, frames=10), textures)
    assert 0.05 < (~clips.visible).float().mean().item() < 0.5
    assert (~clips.visible).any(-1).float().mean() > 0.2
    none = make_clips(range(4), replace(ODD, sprites=(0, 0), still=True), textures)
    assert none.visible.all()


def test_points_prefer_places_with_texture() -> None:
    half_plain = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    half_plain[..., :32] = 128
    bank = TextureBank(half_plain, torch.ones(1))
    contrast = []
    for plain_points in (0.02, 1.0):
        config = replace(ODD, sprites=(0, 0), plain_points=plain_points)
        clips = make_clips(range(10), config.clean(), bank)
        steps = colours_at(clips, clips.xy) - colours_at(clips, clips.xy + 2)
        contrast.append(on_query_frame(steps, clips).abs().mean().item())
    assert contrast[0] > 1.2 * contrast[1]


def test_jpeg_keeps_a_flat_picture_and_hurts_more_at_low_quality() -> None:
    flat = torch.full((1, 3, 9, 17), 128 / 255)
    assert torch.allclose(jpeg(flat, 50), flat, atol=0.03)
    noise = torch.rand(2, 3, 33, 40, generator=torch.Generator().manual_seed(0))
    loss = [(jpeg(noise, quality) - noise).abs().mean().item() for quality in (10, 50, 95)]
    assert loss[0] > loss[1] > loss[2]
    assert loss[2] < 0.03


def test_a_contact_sheet_has_every_frame_and_draws_in_it(textures: TextureBank) -> None:
    clips = make_clips([0, 1], replace(ODD, frames=7), textures)
    sheet = contact_sheet(clips, columns=4, scale=2)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * 2 * (2 * 96 + 4), 4 * (2 * 161 + 4), 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 15}, {"frames": 0}, {"points": 0}, {"sprites": (3, 2)}, {"sprite_radius": (0.0, 0.1)},
        {"max_growth": 0.5}, {"max_ripple": 0.4}, {"max_perspective": 0.5}, {"max_scale": 0.5},
    ],
)  # fmt: skip
def test_a_scene_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        SceneConfig(**wrong)  # type: ignore[arg-type]


def test_clips_without_seeds_are_refused(textures: TextureBank) -> None:
    with pytest.raises(ConfigError, match="seeds"):
        make_clips([], ODD, textures)
    with pytest.raises(ConfigError, match="seeds"):
        make_clips([-1], ODD, textures)


def test_a_pace_spreads_the_moments_of_a_clip_within_its_range() -> None:
    steady = SceneConfig(frames=5, stutter=0.0)
    moments, shown = clock(np.random.default_rng(0), replace(steady, pace=(2.0, 2.0)))
    assert moments.tolist() == [0, 2, 4, 6, 8]
    assert shown.tolist() == [0, 1, 2, 3, 4]
    spans = [clock(np.random.default_rng(seed), replace(steady, pace=(1.0, 3.0)))[0][-1] for seed in range(50)]
    assert 4 <= min(spans) < 6 < 10 < max(spans) <= 12


def test_an_impossible_pace_is_refused() -> None:
    with pytest.raises(ConfigError, match="pace"):
        SceneConfig(pace=(2.0, 1.0))
