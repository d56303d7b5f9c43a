"""An engine: a model's stages, exported for a runtime, kept in the cache folder and compiled for some threads."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from online_tapir.engines import export, quantized
from online_tapir.engines.runtimes import Array, Runtime, Session
from online_tapir.errors import ConfigError
from online_tapir.model.config import Size
from online_tapir.model.digest import digest as digest_of_weights
from online_tapir.model.graphs import CHANGING
from online_tapir.model.grids import Grids
from online_tapir.model.state import TrackState, row_axis
from online_tapir.model.tapir import FeaturePyramid, Tapir
from online_tapir.model.weights_store import cache_folder

ROWS = 64  # of a step; more points take several steps, fewer leave rows empty
GRAPHS = "3"  # raise it whenever the graphs change in a way that the model's weights do not show

UNCALIBRATED = (
    "there is no int8 encoder of these weights; make one with `online-tapir quantize`, or leave out --precision int8"
)

logger = logging.getLogger(__name__)
Report = Callable[[str], None]


@dataclass(slots=True)
class Engine:
    """How a model's stages are run on a CPU. One engine serves any number of trackers, one at a time."""

    runtime: Runtime
    precision: str  # of the encoder; the step, which positions come from, is always computed in float32
    threads: int
    report: Report = logger.info
    _compiled: dict[tuple[str, Size], "Compiled"] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.runtime.name if self.precision == "float32" else f"{self.runtime.name} {self.precision}"

    def compiled(self, model: Tapir, size: Size) -> "Compiled":
        """The stages for frames of `size`; exported on the first use on this machine."""
        key = digest(model, size)
        if (key, size) not in self._compiled:
            self._compiled[key, size] = Compiled(model, size, *self._sessions(model, size, key))
        return self._compiled[key, size]

    def use(self, threads: int) -> None:
        """From now on compiles for this many threads."""
        if threads != self.threads:
            self.threads = threads
            self._compiled.clear()

    def _sessions(self, model: Tapir, size: Size, key: str) -> tuple[Session, Session]:
        folder = cache_folder() / "engines" / f"{self.runtime.name}-{key}"
        calibrated = self._calibrated(model)  # refused before anything is prepared
        names = ["encoder", "step"] if calibrated is None else ["step"]
        paths = {name: folder / f"{name}{self.runtime.suffix}" for name in names}
        if all(path.is_file() for path in paths.values()):
            try:
                return self._opened(paths, calibrated, size)
            except RuntimeError:  # a file that was cut, as by a power failure: once more
                for path in paths.values():
                    path.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # of several programs that begin at once, one prepares
            self._prepare(model, size, paths)
        return self._opened(paths, calibrated, size)

    def _prepare(self, model: Tapir, size: Size, paths: dict[str, Path]) -> None:
        """Exports the stages whose files are missing."""
        missing = [name for name, path in paths.items() if not path.is_file()]
        if not missing:
            return
        kept = paths[missing[0]].parent
        self.report(f"preparing {model.config.name} at {size[1]}x{size[0]} for {self.runtime.name}; kept in {kept}")
        for stage in export.stages(model, size, ROWS):
            if stage.name in missing:
                export.write(stage, paths[stage.name])

    def _opened(self, paths: dict[str, Path], calibrated: Path | None, size: Size) -> tuple[Session, Session]:
        if calibrated is None:
            encoder = self.runtime.open(paths["encoder"], self.precision, self.threads, None)
        else:
            encoder = self.runtime.open(calibrated, self.precision, self.threads, size)
        return encoder, self.runtime.open(paths["step"], "float32", self.threads, None)

    def _calibrated(self, model: Tapir) -> Path | None:
        """The encoder in int8, if that is the precision. Raises ConfigError if there is none of these weights."""
        if self.precision != "int8":
            return None
        found = quantized.find(model)
        if found is None:
            raise ConfigError(UNCALIBRATED)
        return found


class Compiled:
    """The stages of one model at one size. Not for two threads at once: buffers are reused."""

    def __init__(self, model: Tapir, size: Size, encoder: Session, step: Session) -> None:
        self._size = size
        self._pooled = model.config.pyramid_levels
        self._encoder = encoder
        self._step = step
        self._buffer = TrackState.empty(model.config, 1, ROWS, torch.device("cpu"), torch.float32)

    def encode(self, image: Tensor) -> FeaturePyramid:
        """The features of image [1, 3, H, W], valid until the next call."""
        levels = self._encoder([image.contiguous().numpy()])
        return FeaturePyramid((Grids(self._size, tuple(map(torch.from_numpy, levels)), self._pooled),), 0)

    def step(self, pyramid: FeaturePyramid, state: TrackState, phase: int) -> Tensor:
        """Every row's best estimate (see `estimate.packed`); `state` advances by one frame of parity `phase`."""
        levels = [level.numpy() for level in pyramid.match.levels]
        rows = len(state.match_queries)
        spans = [(start, min(start + ROWS, rows)) for start in range(0, rows, ROWS)]
        return torch.cat([self._advance(levels, state.rows(*span), phase) for span in spans] or [torch.zeros(0, 4)])

    def _advance(self, levels: Sequence[Array], state: TrackState, phase: int) -> Tensor:
        count, buffer = len(state.match_queries), self._buffer
        buffer.rows(0, count).copy_(state)
        buffer.memory[..., :count, :] = state.memory[:, :, :, _oldest_first(phase)]
        inputs = [*levels, *(tensor.numpy() for tensor in buffer.tensors.values())]
        estimates, *changed = map(torch.from_numpy, self._step(inputs))
        mine, theirs = state.tensors, buffer.rows(0, count).tensors
        for name, tensor in zip((name for name in theirs if name in CHANGING), changed, strict=True):
            kept = tensor.narrow(row_axis(name), 0, count)
            if name == "memory":
                for index, place in enumerate(_oldest_first(1 - phase)):
                    mine[name][:, :, :, place] = kept[:, :, :, index]
            else:
                mine[name].copy_(kept)
        return estimates[:count].clone()


def _oldest_first(phase: int) -> list[int]:
    """The rows of `mixer_step`'s memory in the order of `mixer_advance`'s."""
    return [phase, 1 - phase, 2 + phase, 3 - phase]


def digest(model: Tapir, size: Size) -> str:
    """What the graph files of a model at a size depend on, as a short hexadecimal digest."""
    config = replace(model.config, visible_above=0.0)  # which no graph knows
    told = f"{GRAPHS} {version('torch')} {size} {ROWS} {config} {digest_of_weights(model)}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]
