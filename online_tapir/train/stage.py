"""What tells one training stage from another, so that none goes on from another's checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from online_tapir.errors import ConfigError
from online_tapir.model.config import TapirConfig
from online_tapir.model.digest import digest
from online_tapir.model.tapir import Tapir
from online_tapir.train.config import DistilConfig, TrainConfig

MAY_CHANGE = ("steps", "validate_every", "checkpoint_every", "report_every", "compile")  # of a stage that is resumed


def stage_of(start: Tapir, model: TapirConfig, settings: TrainConfig | DistilConfig) -> str:
    """All that a stage depends on: the weights it begins with, the model it makes, and how that learns."""
    told = {name: value for name, value in asdict(settings).items() if name not in MAY_CHANGE}
    if told.get("optimizer") == "adamw":  # the only one of older checkpoints, which do not tell it
        del told["optimizer"]
    return json.dumps({"weights": digest(start), "model": asdict(model), **told})


def check_stage(path: Path, saved: Mapping[str, Any], stage: str) -> None:
    """Raises ConfigError where the checkpoint `saved` is of another stage."""
    if saved.get("stage") != stage:
        raise ConfigError(f"{path} is of another stage: it began with other weights or settings; name a new folder")
