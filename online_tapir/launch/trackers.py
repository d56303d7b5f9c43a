"""What makes the trackers of a run's cameras: the model itself, or one that was exported and needs no torch."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from online_tapir.engines.manifest import MANIFEST, Exported
from online_tapir.errors import ConfigError
from online_tapir.files import expanded
from online_tapir.launch import pace
from online_tapir.launch.config import LiveConfig, ModelConfig
from online_tapir.launch.outputs import Report
from online_tapir.launch.pace import Needs
from online_tapir.launch.threads import usable_cpus
from online_tapir.tracking.exported import ExportedTracker
from online_tapir.tracking.templates import Templates

if TYPE_CHECKING:
    from online_tapir.tracking.tracker import Tracker


class Trackers(Protocol):
    """Makes trackers; one for all cameras of a run. Thread-safe but for `make`, which is called in turn."""

    def check(self, found: Templates) -> None:
        """Raises an error unless points can be found by these templates."""
        ...

    def make(self, config: LiveConfig, needs: Needs, held: ExitStack, report: Report) -> "Tracker | ExportedTracker":
        """The tracker of a camera, warmed up; what it holds is given back with what is `held`.

        Raises ConfigError for settings that do not go together.
        """
        ...


def trackers(config: ModelConfig) -> Trackers:
    """Loads the model that a configuration names. Raises WeightsError or ConfigError."""
    folder = expanded(config.model)
    if (folder / MANIFEST).is_file():
        return ExportedTrackers(Exported.read(folder))
    try:
        from online_tapir.launch.plan import ModelTrackers, loaded
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ConfigError(
            f"--model {config.model} needs torch, which is not installed: pip install torch; or give a folder that "
            f"`online-tapir export` wrote on another machine"
        ) from error
    return ModelTrackers(loaded(config))


@dataclass(frozen=True, slots=True)
class ExportedTrackers:
    """Those of an exported model (see `Trackers`)."""

    exported: Exported

    def check(self, found: Templates) -> None:
        raise ConfigError("--templates needs the model itself, not an exported one")

    def make(self, config: LiveConfig, needs: Needs, held: ExitStack, report: Report) -> ExportedTracker:
        if given := _given(config):
            raise ConfigError(f"{given[0]} needs the model itself, not an exported one; leave it out")
        (height, width), points = self.exported.size, self.exported.points
        threads = config.model.threads or usable_cpus()
        ms = pace.step_ms(self._tracker(config, threads), self.exported.size, points)
        if needs.paced and config.model.threads is None and not pace.keeps_up(ms, needs.fps or 0):
            threads = max(1, usable_cpus() - 1)
        name = f"{self.exported.model} at {width}x{height} from {self.exported.folder}"
        report(f"model {name}: {ms:.0f} ms for {points} points")
        return self._tracker(config, threads)

    def _tracker(self, config: LiveConfig, threads: int) -> ExportedTracker:
        return ExportedTracker(self.exported, config.points.window_frames, threads, config.model.visible_above)


def _given(config: LiveConfig) -> list[str]:
    """The flags that were given and that an exported model cannot follow."""
    model, usual = config.model, ModelConfig()
    decided = ("weights", "dtype", "iterations", "resolution", "input", "engine", "precision", "require_kernels")
    given = {f"--{name.replace('_', '-')}": getattr(model, name) != getattr(usual, name) for name in decided}
    given |= {
        "--device": model.device not in ("auto", "cpu"),
        "--templates": config.points.templates is not None,
        "--inspect": config.points.inspect is not None,
        "--save-state": config.output.save_state is not None,
        "--resume": config.output.resume is not None,
    }
    return [flag for flag, there in given.items() if there]
