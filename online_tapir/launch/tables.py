"""The configuration of one camera from a table of settings, as it stands in a file or comes in a request."""

from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError
from cyclopts.config import Dict, Env

from online_tapir.errors import ConfigError
from online_tapir.launch.config import (
    LiveConfig,
    ModelConfig,
    NetworkConfig,
    OutputConfig,
    PointsConfig,
    SourceConfig,
    ViewerConfig,
)


def joining(table: Mapping[str, Any]) -> LiveConfig:
    """The configuration of a camera that joins a run: its table's settings, then the environment's.

    Raises ConfigError for a setting that does not exist or has no such value.
    """
    app = App(
        config=[
            Dict(dict(table), source="the request", use_commands_as_keys=False),
            Env("ONLINE_TAPIR_", command=False),
        ]
    )
    app.default(_configured)
    try:
        _, bound, _ = app.parse_args([], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        unknown = next((key for key in table if key.replace("-", "_") not in _KEYS), None)
        if unknown is not None:
            near = get_close_matches(unknown.replace("-", "_"), _KEYS, n=1)
            meant = f"; did you mean {near[0].replace('_', '-')!r}?" if near else ""
            raise ConfigError(f"a camera has no setting {unknown!r}{meant}") from error
        raise ConfigError(" ".join(str(error).split())) from error
    config: LiveConfig = bound.arguments.get("config", LiveConfig())
    return config


def own_outputs(output: OutputConfig, key: str, table: Mapping[str, Any]) -> OutputConfig:
    """Outputs of one of several cameras: paths that its table does not name get its key, with no colon in it."""
    key = key.replace(":", "-")  # Windows has no such names, and ffmpeg takes what is before one for a protocol

    def keyed(flag: str, path: Path | None, *, folder: bool = False) -> Path | None:
        if path is None or flag in table or flag.replace("_", "-") in table:
            return path
        return path / key if folder else path.with_name(f"{path.stem}-{key}{path.suffix}")

    return replace(
        output,
        record=keyed("record", output.record, folder=True),
        save_video=keyed("save_video", output.save_video),
        save_csv=keyed("save_csv", output.save_csv),
        save_state=keyed("save_state", output.save_state),
        resume=keyed("resume", output.resume),
    )


_GROUPS = (SourceConfig, PointsConfig, ModelConfig, ViewerConfig, OutputConfig, NetworkConfig)
_KEYS = {field.name for group in _GROUPS for field in fields(group)}  # of a table


def _configured(config: LiveConfig = LiveConfig()) -> None:  # noqa: B008  frozen
    """What a table's settings are read for."""
