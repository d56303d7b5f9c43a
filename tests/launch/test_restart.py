"""What a command that is started again, and a camera that joins, take over: their own points and files, no others'."""

from pathlib import Path
from typing import Any

import pytest

from online_tapir.launch import build, streams
from online_tapir.launch.config import LiveConfig, OutputConfig, PointsConfig, ViewerConfig, at_home
from online_tapir.launch.tables import joining
from online_tapir.points.placement import NOWHERE, Grid


def test_the_same_command_again_places_no_points_beside_those_it_saved() -> None:
    asked, state = PointsConfig(points="grid:3"), Path("points")
    again = OutputConfig(save_state=state, resume=state)
    assert isinstance(streams._points(asked, None, again), Grid), "the first run"
    assert streams._points(asked, state, again) is NOWHERE
    other = OutputConfig(save_state=Path("other"), resume=state)
    assert isinstance(streams._points(asked, state, other), Grid), "a run that goes on from another's points, with more"


def test_a_camera_that_joins_writes_into_files_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONLINE_TAPIR_SAVE_STATE", str(tmp_path / "points"))
    monkeypatch.setenv("ONLINE_TAPIR_RESUME", str(tmp_path / "points"))
    opened: list[LiveConfig] = []

    class Opener:
        def __init__(self) -> None:
            self.names: set[str] = set()

        def open(self, config: LiveConfig, cameras: int) -> None:
            opened.append(config)

    opener: Any = Opener()
    settings = {"camera": "demo:7", "save_csv": str(tmp_path / "mine.csv")}
    build._joining("door", settings, joining, opener, LiveConfig())
    first = LiveConfig(viewer=ViewerConfig(rerun=f"save={tmp_path / 'run.rrd'}"))
    (tmp_path / "run.rrd").touch()  # the run writes it
    build._joining("yard", {"camera": "demo", "inspect": 3}, joining, opener, first)
    config, inspecting = opened
    assert inspecting.viewer == first.viewer
    assert config.output.save_state == config.output.resume == tmp_path / "points-door"
    assert config.output.save_csv == tmp_path / "mine.csv"


def test_paths_begin_at_home_wherever_they_are_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = LiveConfig(output=OutputConfig(record=Path("~/runs"), save_csv=Path("a/~b.csv")))
    found = at_home(asked)
    assert found.output.record == tmp_path / "runs"
    assert found.output.save_csv == Path("a/~b.csv")
    assert at_home(found) == found
