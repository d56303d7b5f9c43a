"""What trades accuracy for time on the command line reaches the model and the tracker, or is refused by its flag."""

from typing import Any

import pytest
import torch

from online_tapir.cli.app import main
from online_tapir.launch import plan
from online_tapir.model.config import PRESETS
from online_tapir.model.tapir import Tapir
from online_tapir.tracking import tracker

DEMO = ("--camera", "demo", "--size", "160x96", "--fps", "0", "--frames", "2", "--points", "grid:2")
SILENT = ("--rerun", "off", "--publish", "off", "--quiet", "--device", "cpu", "--threads", "1")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tapir, Any]]:
    """The model and the resolution of every tracker that is made."""
    trackers: list[tuple[Tapir, Any]] = []

    class Watched(tracker.Tracker):
        def __init__(self, model: Tapir, *more: Any, **settings: Any) -> None:
            super().__init__(model, *more, **settings)
            trackers.append((model, settings.get("resolution", more[2] if more else None)))

    monkeypatch.setattr(plan, "Tracker", Watched)
    return trackers


def test_without_a_choice_the_model_is_as_it_was_trained(made: list[tuple[Tapir, Any]]) -> None:
    main([*DEMO, *SILENT])
    model, resolution = made[-1]
    assert (model.config.iterations, next(model.parameters()).dtype, resolution) == (
        PRESETS["small"].iterations,
        torch.float32,
        None,
    )


@pytest.mark.parametrize(("given", "meant"), [("frame", "frame"), ("96x64", (64, 96))])
def test_every_choice_reaches_what_it_is_for(made: list[tuple[Tapir, Any]], given: str, meant: Any) -> None:
    main([*DEMO, *SILENT, "--iterations", "1", "--dtype", "bfloat16", "--resolution", given])
    model, resolution = made[-1]
    assert (model.config.iterations, next(model.parameters()).dtype, resolution) == (1, torch.bfloat16, meant)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--iterations", "0"), "iterations"),
        (("--iterations", "5"), "iterations"),
        (("--dtype", "float64"), "bfloat16"),
        (("--resolution", "big"), "--resolution 'big' is not WIDTHxHEIGHT"),
        (("--resolution", "100x96"), "is not a multiple of 8"),
    ],
)
def test_a_choice_that_cannot_be_met_is_refused(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([*DEMO, *SILENT, *words])
    assert left.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())
