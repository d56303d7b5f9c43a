"""The lean backbone gives grids like the ResNet's, of any size, and is a third of its arithmetic."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from online_tapir import Tracker
from online_tapir.errors import ConfigError
from online_tapir.model.checkpoint import read_weights, save_weights
from online_tapir.model.config import LEAN_SMALL, PRESETS, TapirConfig
from online_tapir.model.lean import LeanBackbone, standardise
from online_tapir.model.tapir import Tapir
from online_tapir.testing import sliding_pictures, tiny_config, tiny_model


def lean_config(finest: bool = False) -> TapirConfig:
    return tiny_config(
        trunk="lean",
        grid_widths=(4, 8, 16) if finest else (8, 16),
        described_by=(0, 1, 3) if finest else (1, 3),
        extra_convs=0,
        recent_inputs=True,
        pyramid_levels=1,
    )


@pytest.mark.parametrize(("height", "width"), [(64, 96), (72, 104), (40, 56)])
@pytest.mark.parametrize("finest", [False, True])
def test_its_grids_have_strides_up_to_8_and_unit_features(height: int, width: int, finest: bool) -> None:
    model = tiny_model(lean_config(finest))
    grids = model.backbone(torch.randn(2, 3, height, width))
    expected = [(2, height // 2, width // 2, 4), (2, height // 4, width // 4, 8), (2, height // 8, width // 8, 16)]
    assert [tuple(level.shape) for level in grids.describing] == expected[0 if finest else 1 :]
    for level in grids.describing:
        torch.testing.assert_close(level.norm(dim=-1), torch.ones(level.shape[:3]))


def test_exposure_and_contrast_do_not_change_what_it_sees() -> None:
    image = torch.rand(1, 3, 33, 49) - 0.5
    torch.testing.assert_close(standardise(image), standardise(0.5 * image + 0.2), atol=1e-4, rtol=1e-4)
    black = standardise(torch.full((1, 3, 16, 16), -1.0))
    assert torch.isfinite(black).all()


def test_it_is_a_third_of_the_arithmetic_at_most() -> None:
    flops = []
    for config in (PRESETS["small"], LEAN_SMALL):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            Tapir(config).backbone(torch.zeros(1, 3, 256, 256))
        flops.append(counter.get_total_flops())
    assert flops[1] < 1.62e9
    assert flops[1] < flops[0] / 2.9


def test_it_tracks_and_its_weights_come_back_from_a_file(tmp_path) -> None:
    model = tiny_model(lean_config())
    save_weights(tmp_path / "lean.safetensors", model, {}, torch.float32)
    config, state = read_weights(tmp_path / "lean.safetensors")
    again = Tapir(config).eval().requires_grad_(False)
    again.load_state_dict(state)
    assert isinstance(again.backbone, LeanBackbone)
    tracks = []
    for one in (model, again):
        tracker = Tracker(one, max_points=4)
        tracker.add([[30, 20], [60, 40]])
        tracks.append([tracker.step(rgb) for rgb in sliding_pictures(3)][-1])
    assert tracks[0].xy.tobytes() == tracks[1].xy.tobytes()


@pytest.mark.parametrize(
    "changes", [{"trunk": "lean", "grid_widths": ()}, {"grid_widths": (8, 8)}, {"trunk": "pyramid"}]
)
def test_a_trunk_and_grids_that_do_not_go_together_are_refused(changes: dict) -> None:
    with pytest.raises(ConfigError, match="grids of"):
        replace(tiny_config(), **changes)
    with pytest.raises(ConfigError, match="all 2 of its grids"):
        replace(lean_config(), described_by=(0, 3))
