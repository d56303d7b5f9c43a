"""The cost of saving a run's points and of resuming from them: the copy between two frames, then the disk.

In the program, tracking waits only for the copy; writing, including `fsync`, happens in its own thread. Loading is what
a run does before its first frame: the digest of the model's weights, reading and checking.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypeVar

from cyclopts import Parameter

from bench.command import Count, JsonFile, run
from bench.report import MIB, Spread, finish, print_table
from online_tapir.camera.demo import DemoScene
from online_tapir.model.checkpoint import load_model
from online_tapir.model.digest import digest
from online_tapir.points.placement import Corners
from online_tapir.tracking import state_file
from online_tapir.tracking.tracker import Tracker

T = TypeVar("T")
INTERVAL = (
    "step: a frame of 640x480; copy: of the state to the host; write: until the file is on the disk; load: until the "
    "first frame can be tracked"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to save, and where."""

    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"
    points: Annotated[int, Parameter(help="Points to save.", validator=Count)] = 256
    rounds: Annotated[int, Parameter(help="Number of saves and loads.", validator=Count)] = 50
    folder: Annotated[Path | None, Parameter(help="On the disk to test. [default: the system's temporary one]")] = None
    device: Annotated[str, Parameter(help="auto, cpu, cuda, ...")] = "auto"


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
) -> None:
    """Measure how long saving a run's points delays it, and how long saving and loading take in all."""
    scene = DemoScene()
    model = load_model(settings.model, device=settings.device)
    tracker = Tracker(model, max_points=settings.points)
    tracker.add(Corners(settings.points).place(scene.render(0)))
    kinds: dict[str, list[float]] = {"step": [], "copy": [], "write": [], "load": []}
    with TemporaryDirectory(dir=settings.folder) as folder:
        path = Path(folder) / "points"
        for t in range(settings.rounds):
            kinds["step"].append(timed(partial(tracker.step, scene.render(t)))[0])
            took_ms, saved = timed(tracker.saved_state)
            kinds["copy"].append(took_ms)
            kinds["write"].append(timed(partial(state_file.write, path, saved))[0])
            kinds["load"].append(timed(partial(Tracker(model, max_points=settings.points).load_state, path))[0])
        size_mib = path.stat().st_size / MIB
    spreads = {kind: Spread.of(values) for kind, values in kinds.items()}
    facts = {
        "copy_of_a_step": round(spreads["copy"].p50 / spreads["step"].p50, 4),
        "file_mib": round(size_mib, 3),
        "digest_ms": round(timed(partial(digest, model))[0], 2),
    }
    print_table(f"{settings.model}, {settings.points} points; ms", spreads, facts)
    finish("state", settings, {"ms": spreads, **facts}, json, interval=INTERVAL)


def timed(act: Callable[[], T]) -> tuple[float, T]:
    """The milliseconds that `act` took, and its result."""
    begun_ns = time.perf_counter_ns()
    result = act()
    return (time.perf_counter_ns() - begun_ns) / 1e6, result


if __name__ == "__main__":
    run(main)
