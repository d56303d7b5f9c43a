"""What a command that is started again, and a camera that joins, take over: their own points and files, no others'."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.launch import build, streams
from online_tapir.launch.config import LiveConfig, OutputConfig, PointsConfig, ViewerConfig, at_home
from online_tapir.launch.tables import joining
from online_tapir.model.tapir import Tapir
from online_tapir.points.objects import Objects
from online_tapir.points.placement import NOWHERE, Grid
from online_tapir.tracking.tracker import Tracker


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


def test_a_run_that_is_started_again_knows_where_its_objects_were_first_seen(
    tmp_path: Path, make_model: Callable[..., Tapir], make_frames: Callable[..., list[NDArray[np.uint8]]]
) -> None:
    path, notes, pictures = tmp_path / "points", list[str](), make_frames(2)
    output = OutputConfig(save_state=path, resume=path)

    def run(saved: Path | None, picture: NDArray[np.uint8]) -> Objects:
        objects, tracker = Objects(), Tracker(make_model(), max_points=9)
        streams._resume(tracker, objects, saved, output, notes.append)
        if saved is None:
            tracker.add([[5, 5], [20, 20], [9, 30], [31, 7]], group="cup")
        keeper = streams._keeper(output, tracker, objects, notes.append, None)
        assert keeper is not None
        with keeper:
            tracks = tracker.step(picture)
            objects.follow(replace(tracks, visible=np.ones(4, np.bool_)))
        return objects

    first, again = run(None, pictures[0]), run(path, pictures[1])
    assert first.references["cup"].ids == again.references["cup"].ids == (0, 1, 2, 3)
    np.testing.assert_array_equal(again.references["cup"].xy, first.references["cup"].xy)
