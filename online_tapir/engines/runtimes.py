"""The runtimes that can run an exported graph: what each is called, whether it is here, and how it is opened."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from online_tapir.errors import ConfigError

Array = NDArray[Any]
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # of /proc/cpuinfo, on x86 and Arm


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
    open: Callable[[Path, str, int], Session]  # file, precision, threads

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]

    def require(self, what: str | None = None) -> None:
        """ConfigError, with the line that installs it, unless it is here. `what` needs it: its engine, by default."""
        if self.missing:
            raise ConfigError(f"{what or f'--engine {self.name}'} needs {' and '.join(self.missing)}; {self.install}")


class _OpenVino:
    def __init__(self, path: Path, precision: str, threads: int) -> None:
        import openvino

        hints = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # flow and the sinks use the same cores
        }
        compiled = openvino.Core().compile_model(str(path), "CPU", hints)
        self._request = compiled.create_infer_request()
        self._outputs = compiled.outputs

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        found = self._request.infer(list(inputs), share_inputs=True, share_outputs=True)
        return [found[output] for output in self._outputs]


class _OnnxRuntime:
    def __init__(self, path: Path, precision: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # flow uses the same cores
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [one.name for one in self._session.get_inputs()]

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        return list(self._session.run(None, dict(zip(self._names, inputs, strict=True))))


OPENVINO = Runtime(
    "openvino", ("openvino",), "pip install openvino", ".xml", ("float32", "bfloat16"), _OpenVino
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
def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 numbers itself; elsewhere they are slower than float32."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:  # not Linux
        return False
    return bool(words & BFLOAT16_FLAGS)
