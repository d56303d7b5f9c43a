"""What people and Prometheus are told of a fleet."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from online_tapir.cli.fleet import picture, read_cameras
from online_tapir.errors import ConfigError
from online_tapir.fleet.metrics import FleetMetrics
from online_tapir.fleet.notes import new_notes
from online_tapir.fleet.view import places
from online_tapir.wire.directory import CameraEntry, Directory, RigEntry

NOW = Directory(
    "lab",
    cameras=(
        CameraEntry("door", "rig-a", "tcp://10.0.0.1:5", 3, "streaming", "", 29.5, 21.0, 16, 2),
        CameraEntry("yard", state="waiting", reason="no rig is up"),
    ),
    rigs=(RigEntry("rig-a", "10.0.0.1", "up", "", 8, 1, 0.5, 2),),
    moves=4,
    notes=("rig-a was restarted",),
)


def test_prometheus_gets_every_figure() -> None:
    registry = CollectorRegistry()
    registry.register(FleetMetrics(lambda: NOW))
    text = generate_latest(registry).decode()
    for line in (
        'online_tapir_fleet_cameras{node="10.0.0.1",state="streaming"} 1.0',
        'online_tapir_fleet_cameras{node="",state="waiting"} 1.0',
        'online_tapir_fleet_latency_seconds{camera="door",rig="rig-a"} 0.021',
        'online_tapir_fleet_camera_restarts_total{camera="door"} 2.0',
        'online_tapir_fleet_rig_load{node="10.0.0.1",rig="rig-a"} 0.5',
        "online_tapir_fleet_moves_total 4.0",
    ):
        assert line in text


def test_before_the_first_directory_prometheus_gets_nothing() -> None:
    registry = CollectorRegistry()
    registry.register(FleetMetrics(lambda: None))
    assert generate_latest(registry) == b""


def test_the_status_names_cameras_rigs_and_what_happened() -> None:
    console = Console(width=120)
    with console.capture() as said:
        console.print(picture(NOW))
    text = said.get()
    for word in ("door", "waiting: no rig is up", "1/8", "0.50", "4 moves", "rig-a was restarted"):
        assert word in text
    assert "| door | rig-a | 10.0.0.1 | streaming | 2 |" in places(NOW)


@pytest.mark.parametrize(
    ("told", "notes", "new"),
    [
        ((), ("a", "b"), ["a", "b"]),
        (("a", "b"), ("a", "b"), []),
        (("a", "b"), ("b", "c"), ["c"]),
        (("a", "a"), ("a", "a", "a"), ["a"]),
        (("a", "b"), ("x", "y"), ["x", "y"]),
    ],
)
def test_a_note_is_told_once(told: tuple[str, ...], notes: tuple[str, ...], new: list[str]) -> None:
    assert new_notes(told, notes) == new


def test_a_file_of_cameras_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cameras.toml"
    path.write_text('points = "grid:3"\n[[camera]]\nname = "door"\nsource = "0"\n[[camera]]\ncamera = "1"\nfps = 15\n')
    assert read_cameras(path) == (
        {"points": "grid:3"},
        {"door": {"camera": "0"}, "1": {"camera": "1", "fps": 15}},
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[camera]]\nname = "a"\n[[camera]]\nname = "a"\n', "two cameras are called 'a'"),
        ("[camera]\n", "with two brackets"),
        ("[[camera", "cannot be read"),
    ],
)
def test_a_bad_file_of_cameras_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "cameras.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_cameras(path)
