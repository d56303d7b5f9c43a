"""The arithmetic that the bench counts is what one works out by hand, and every model is timed as often."""

import torch

from bench import backbone
from online_tapir.testing import tiny_config, tiny_model


def test_a_wider_trunk_costs_more_and_the_count_is_that_of_its_convolutions() -> None:
    config = tiny_config(initial_resolution=(32, 32))
    model = tiny_model(config)
    counted = 0.0

    def count(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal counted
        assert isinstance(layer, torch.nn.Conv2d)
        counted += 2 * output.numel() * layer.weight[0].numel() / 1e9

    for layer in model.backbone.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    found = backbone.gflop(model)
    assert abs(found - counted) < 1e-9
    assert backbone.gflop(tiny_model(tiny_config(initial_resolution=(32, 32), widths=(8, 16, 48, 48)))) > found


def test_every_model_has_a_time() -> None:
    config = tiny_config(initial_resolution=(32, 32))
    times = backbone.timed({"a": tiny_model(config), "b": tiny_model(config)}, torch.float32, 3)
    assert set(times) == {"a", "b"}
    assert min(times.values()) > 0
