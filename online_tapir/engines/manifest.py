"""What the manifest of an exported model says: written by `export`, read where there may be no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from online_tapir.engines.runtimes import RUNTIMES, Session, missing
from online_tapir.errors import ConfigError
from online_tapir.model.config import Size

MANIFEST = "manifest.json"
FORMAT, VERSION = "online-tapir/graphs", 1


@dataclass(frozen=True, slots=True)
class Exported:
    """What the manifest of an exported folder says."""

    folder: Path
    model: str
    graphs: dict[str, str]  # file by stage
    size: Size  # of the input
    points: int  # slots
    visible_above: float
    state: dict[str, tuple[int, ...]]  # shapes of the step's inputs, without the grids
    found: tuple[str, ...]  # what a query returns
    following: tuple[str, ...]  # of the state, what a step returns
    begin: dict[str, str]  # what a slot begins as

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises ConfigError for a folder that `online-tapir export` did not write, or of another version."""
        path = folder / MANIFEST
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            found = (told["format"], told["version"])
            if found != (FORMAT, VERSION):
                raise ConfigError(
                    f"{path} is {found[0]!r} of version {found[1]!r}, not {FORMAT} {VERSION}; export anew"
                )
            step = told["tensors"]["step"]
            shapes = {name: tuple(shape) for name, shape in step["inputs"].items() if name in told["begin"]}
            files = [Path(name) for name in told["graphs"].values()]
            files += [file.with_suffix(".bin") for file in files if file.suffix == ".xml"]  # OpenVINO's weights
            lacking = [file for file in files if not (folder / file).is_file()]
            if lacking:
                raise ConfigError(f"{folder} has no {lacking[0]}; export anew")
            return cls(
                folder,
                told["model"],
                told["graphs"],
                (told["input"]["height"], told["input"]["width"]),
                told["points"],
                told["visible_above"],
                shapes,
                tuple(told["tensors"]["query"]["outputs"]),
                tuple(name.removeprefix("next.") for name in list(step["outputs"])[1:]),
                told["begin"],
            )
        except OSError as error:
            raise ConfigError(f"{folder} is no exported model: {path} cannot be read ({error.strerror})") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{path} is damaged: {type(error).__name__} {error}; export anew") from error

    def open(self, stage: str, threads: int) -> Session:
        """One of its graphs. ConfigError if the runtime for its format is not installed."""
        path = self.folder / self.graphs[stage]
        runtime = next((one for one in RUNTIMES.values() if one.suffix == path.suffix), None)
        if runtime is None:
            raise ConfigError(f"no runtime here opens {path.name}; export as onnx or openvino")
        if missing([runtime.name]):
            raise ConfigError(f"{path.name} needs {runtime.name}; pip install {runtime.name}")
        return runtime.open(path, "float32", threads, None)
