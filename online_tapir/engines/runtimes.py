"""The runtimes that can run an exported graph: what each is called, whether it is here, and how it is opened."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from online_tapir.errors import ConfigError
from online_tapir.model.config import Size

Array = NDArray[Any]
# Of /proc/cpuinfo, on x86 and Arm.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
TILES = {"amx_bf16"}  # with them bfloat16 is as fast as int8
INT8_FLAGS = {"avx512_vnni", "avx_vnni"}


class Session(Protocol):
    """A compiled graph."""

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs, in the graph's order. They are valid until the next call."""
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """A way to run exported graphs."""

    name: str
    packages: tuple[str, ...]  # that it imports, to export and to run
    install: str  # what installs them
    suffix: str  # of a graph's file
    precisions: tuple[str, ...]  # that an encoder may be computed in
    open: Callable[[Path, str, int, Size | None], Session]  # file, precision, threads, another size of its picture

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return missing(self.packages)

    def require(self, what: str | None = None) -> None:
        """ConfigError, with the line that installs it, unless it is here. `what` needs it: its engine, by default."""
        if self.missing:
            raise ConfigError(f"{what or f'--engine {self.name}'} needs {' and '.join(self.missing)}; {self.install}")


def missing(packages: Sequence[str]) -> list[str]:
    """Those that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def openvino() -> Any:
    """The package, without the one that tells OpenVINO's makers of every import: this program reports to nobody."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    import openvino as package

    return package


class _OpenVino:
    def __init__(self, path: Path, precision: str, threads: int, size: Size | None) -> None:
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",  # int8: what is not quantised
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # flow and the sinks use the same cores
        }
        core = openvino().Core()
        graph = core.read_model(str(path))
        if size is not None:
            graph.reshape([1, 3, *size])
        compiled = core.compile_model(graph, "CPU", hints)
        self._request = compiled.create_infer_request()
        self._outputs = compiled.outputs

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        found = self._request.infer(list(inputs), share_inputs=True, share_outputs=True)
        return [found[output] for output in self._outputs]


class _OnnxRuntime:
    def __init__(self, path: Path, precision: str, threads: int, size: Size | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # flow uses the same cores
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [one.name for one in self._session.get_inputs()]

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        return list(self._session.run(None, dict(zip(self._names, inputs, strict=True))))


OPENVINO = Runtime(
    "openvino", ("openvino",), "pip install openvino", ".xml", ("float32", "bfloat16", "int8"), _OpenVino
)  # fmt: skip
ONNXRUNTIME = Runtime(
    "onnxruntime",
    ("onnxruntime", "onnx", "onnxscript"),
    "pip install 'online-tapir[onnx]'",
    ".onnx",
    ("float32",),
    _OnnxRuntime,
)
RUNTIMES = {runtime.name: runtime for runtime in (OPENVINO, ONNXRUNTIME)}


@cache
def processor_flags() -> frozenset[str]:
    """What this processor has, as Linux names it; empty elsewhere."""
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:  # not Linux
        return frozenset()
