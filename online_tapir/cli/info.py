"""Describes this installation: versions, devices and which kernels each runs, presets and their weights.

Downloads nothing and opens no camera.
"""

import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from json import dumps
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from online_tapir.engines.runtimes import missing

PACKAGES = (
    *("online-tapir", "torch", "triton", "numpy", "opencv-python", "safetensors"),
    *("openvino", "onnxruntime", "msgpack", "pyzmq", "rerun-sdk", "cyclopts", "rich"),
)
GIB = 2**30


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device that a model can be loaded on."""

    name: str  # as `--device` takes it
    description: str
    kernels: str  # triton or reference
    why: str
    memory_gib: float | None = None  # None for a CPU
    free_gib: float | None = None


@dataclass(frozen=True, slots=True)
class PresetInfo:
    """A model that `--model` takes by name."""

    name: str
    weights: str  # embedded, fetched or not here
    where: str  # a file, or the command that fetches it


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What `--engine auto` takes for a model on a device."""

    preset: str
    device: str
    engine: str
    precision: str  # of the encoder
    input: str  # what `--input auto` may take
    why: str


@dataclass(frozen=True, slots=True)
class Info:
    """Everything that `online-tapir info` prints."""

    python: str
    system: str
    versions: dict[str, str | None]  # None: not installed
    devices: list[DeviceInfo]
    presets: list[PresetInfo]
    engines: list[EngineInfo]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def gather() -> Info:
    """Queries every device, which launches a small kernel on each GPU; without torch, there are only versions."""
    with_torch = not missing(["torch"])
    return Info(
        platform.python_version(),
        f"{platform.system()} {platform.release()} {platform.machine()}",
        {name: _version(name) for name in PACKAGES},
        list(devices()) if with_torch else [],
        list(presets()) if with_torch else [],
        list(engines()) if with_torch else [],
    )


def devices() -> Iterable[DeviceInfo]:
    """The CPU, then every GPU."""
    import torch

    from tapir_kernels import backend

    on_cpu = backend("cpu")
    threads = f"{torch.get_num_threads()} threads"
    yield DeviceInfo("cpu", f"{platform.processor() or platform.machine()}, {threads}", on_cpu.name, on_cpu.why)
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        name = f"cuda:{index}"
        found = backend(name)
        free, total = torch.cuda.mem_get_info(index)
        major, minor = torch.cuda.get_device_capability(index)
        described = f"{torch.cuda.get_device_name(index)}, compute capability {major}.{minor}"
        yield DeviceInfo(name, described, found.name, found.why, round(total / GIB, 1), round(free / GIB, 1))


def presets() -> Iterable[PresetInfo]:
    """The presets, and whether their weights are on this machine."""
    from online_tapir.model.checkpoint import EMBEDDED
    from online_tapir.model.config import PRESETS
    from online_tapir.model.weights_store import RELEASES, cached

    for name in PRESETS:
        path = cached(RELEASES[name]) if name in RELEASES else None
        if name in EMBEDDED:
            yield PresetInfo(name, "embedded", "inside the package")
        elif path is not None:
            yield PresetInfo(name, "fetched", str(path))
        else:
            yield PresetInfo(name, "not here", f"online-tapir weights get {name}")


def engines() -> Iterable[EngineInfo]:
    """What `--engine auto` and `--input auto` take for every preset on the CPU and on the first GPU."""
    import torch

    from online_tapir.engines import quantized
    from online_tapir.engines.choose import choose
    from online_tapir.launch.pace import FREE_INPUT, SIDES
    from online_tapir.model.config import PRESETS

    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for name, config in PRESETS.items():
            found = choose("auto", name, device, "float32", calibrated=quantized.embedded(name))
            height, width = config.initial_resolution
            free = name in FREE_INPUT and device == "cpu"
            size = f"what keeps up, to {SIDES[0]}" if free else f"{width}x{height}"
            yield EngineInfo(name, device, found.name, found.precision, size, found.why)


def show(info: Info, console: "Console") -> None:
    """Prints four tables: packages, devices, models, and what `auto` takes; without torch, the first alone."""
    from rich.table import Table

    packages = Table("", "version", title="installed", title_justify="left")
    packages.add_row("python", f"{info.python}, {info.system}")
    for name, found in info.versions.items():
        packages.add_row(name, found or "not installed")
    if not info.devices:
        console.print(packages)
        console.print("without torch, --model takes a folder that `online-tapir export` wrote on another machine")
        return
    devices = Table("device", "", "memory, GiB", "kernels", "why", title="devices", title_justify="left")
    for device in info.devices:
        memory = "" if device.memory_gib is None else f"{device.free_gib} of {device.memory_gib} free"
        devices.add_row(device.name, device.description, memory, device.kernels, device.why)
    presets = Table("preset", "weights", "", title="models", title_justify="left")
    for preset in info.presets:
        presets.add_row(preset.name, preset.weights, preset.where)
    engines = Table("preset", "device", "engine", "encoder", "input", "why", title="auto", title_justify="left")
    for engine in info.engines:
        engines.add_row(engine.preset, engine.device, engine.engine, engine.precision, engine.input, engine.why)
    for table in (packages, devices, presets, engines):
        console.print(table)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def info(*, json: Annotated[bool, Parameter(help="As JSON.", negative=())] = False) -> None:
    """Show versions, devices and which kernels each runs, and which models are on this machine."""
    found = gather()
    if json:
        print(dumps(found.as_dict()))
    else:
        show(found, Console(highlight=False))


def cameras() -> None:
    """List the cameras of this machine."""
    from online_tapir.camera import list_cameras

    console = Console(highlight=False)
    found = list_cameras()
    for camera in found:
        console.print(str(camera))
    if not found:
        console.print("no cameras here; `online-tapir --camera demo` needs none")
