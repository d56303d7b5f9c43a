"""All GPU measurements in one command with a time budget, on a machine with little more than torch.

Measures, most important first: the step at several numbers of points (with CUDA graphs, with two frames in flight, and
kernel by kernel), every op against its reference and its lower bound, the drift of half precision, the public code if
given, and the kernels' tests on the device. The document lists the parts that the budget left no time for. A part that
fails is recorded with its error, and the rest continues.

Needs torch, triton, numpy, opencv, safetensors, pytest and this checkout. `--rehearse` runs the same parts with a tiny
model on any machine; without a GPU the kernels are interpreted, and the times mean nothing.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.cases import op_cases, timed
from bench.rates import Limits
from online_tapir.model.checkpoint import load_model
from online_tapir.model.config import PRESETS, TapirConfig
from online_tapir.model.tapir import Tapir
from online_tapir.tracking.rig import Rig
from online_tapir.tracking.tracker import Tracker
from tapir_kernels import backend

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "triton", "numpy", "opencv-python", "opencv-python-headless", "safetensors")
STAGES = ("upload", "encode", "match", "refine", "download")
FRAME = (480, 640)
MIB = 2**20
WARM_UP = 20  # frames
AIMS_MS = {256: 1.0, 1024: 2.0}  # by points, for bootstapir in bfloat16
INTERVAL = (
    "a frame: from the image in memory to the positions in memory, without camera or sinks; with two frames in flight, "
    "from one result to the next. Stages are timed by the device. Warm-up frames are excluded"
)
TINY = TapirConfig(
    name="tiny", stem_width=16, widths=(16, 16, 16, 16), blocks=(1, 1, 1, 1), extra_convs=1, match_width=4,
    mixer_width=32, mixer_depth=1, iterations=1, initial_resolution=(64, 64),
)  # fmt: skip

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, in full or in a rehearsal."""

    models: dict[str, TapirConfig]
    points: tuple[int, ...]  # those with an aim first
    dtype: torch.dtype
    warm_up: int  # frames
    seconds: float  # per measurement
    frame: tuple[int, int]  # height, width
    tests: tuple[str, ...]  # arguments for pytest
    rigs: tuple[tuple[int, int], ...]  # lanes, and points of each


FULL = Plan(
    {name: PRESETS[name] for name in ("bootstapir", "small")}, (256, 1024, 64, 8, 4096), torch.bfloat16, WARM_UP, 1.0,
    FRAME, ("tests/kernels", "--ignore", "tests/kernels/test_compiled.py"),
    ((1, 256), (4, 256), (16, 256)),
)  # fmt: skip
REHEARSAL = Plan(
    {"tiny": TINY},
    (3,),
    torch.float32,
    1,
    0.0,
    (48, 64),
    ("tests/kernels/test_l2_normalize.py", "-k", "zero or nan"),
    ((2, 3),),
)


class Session:
    """The time that is left, and the results so far."""

    def __init__(self, budget_s: float) -> None:
        self._end = time.monotonic() + budget_s
        self.results: dict[str, Any] = {}
        self.skipped: list[str] = []
        self.failed: list[str] = []

    @property
    def left_s(self) -> float:
        return self._end - time.monotonic()

    def do(self, name: str, needs_s: float, work: Callable[[], Any]) -> None:
        """Records the result of `work`, or its error; skips it, and records that, if less than `needs_s` is left."""
        if self.left_s < needs_s:
            self.skipped.append(name)
            return
        started = time.monotonic()
        try:
            self.results[name] = work()
        except Exception as error:  # GPU machines are rare: one failure must not lose the other figures
            self.results[name] = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
            self.failed.append(name)
        print(f"[{time.monotonic() - started:6.1f} s] {name}: {_brief(self.results[name])}", flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Measures, prints and writes the document; returns 1 if a part failed, 2 if there is no GPU."""
    settings = _settings(words)
    if settings.rehearse and settings.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
    device, plan = torch.device(settings.device), REHEARSAL if settings.rehearse else FULL
    if device.type == "cuda" and not torch.cuda.is_available():
        print("torch finds no GPU here; --device cpu --rehearse runs the same parts without one", file=sys.stderr)
        return 2
    session = Session(settings.budget)
    facts = {"device": _device_facts(device), "backend": asdict(backend(device))}
    print(json.dumps(facts), flush=True)
    with torch.inference_mode():
        _measure(session, plan, device, settings.public)
    document = {
        "bench": "gpu",
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "machine": {"system": f"{platform.system()} {platform.release()}", "usable_cpus": os.cpu_count(), **facts},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "settings": {**vars(settings), "public": settings.public and settings.public.name},
        "interval": INTERVAL,
        "results": session.results,
        "skipped": session.skipped,
        "failed": session.failed,
    }
    line = json.dumps(document, default=_plain)
    path = settings.json or ROOT / "bench" / "results" / f"{_file_name(facts)}-{time.strftime('%Y-%m-%d')}.json"
    path.write_text(line + "\n", encoding="utf-8")
    print(line)
    return 1 if session.failed else 0


def _settings(words: Sequence[str] | None) -> argparse.Namespace:
    # the other benches use cyclopts, which a bare machine lacks
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu for a rehearsal")
    parser.add_argument("--budget", type=float, default=450.0, help="total seconds")
    parser.add_argument("--public", type=Path, help="a checkout of the public PyTorch code to compare with")
    parser.add_argument("--rehearse", action="store_true", help="run the same parts with a tiny model")
    parser.add_argument("--json", type=Path, help="file for the document, instead of one in bench/results")
    settings = parser.parse_args(words)
    if settings.device == "cpu" and not settings.rehearse:
        parser.error("--device cpu works only with --rehearse")
    return settings


def _measure(session: Session, plan: Plan, device: torch.device, public: Path | None) -> None:
    kernels = backend(device).name == "triton" or plan is REHEARSAL
    for name, config in plan.models.items():
        for points in plan.points:
            case = f"step {name} {points}"
            session.do(case, 20 * plan.seconds, lambda c=config, n=points: steps(c, n, plan, device))  # type: ignore[misc]
    session.do("limits", 5 * plan.seconds, lambda: Limits.measured(device, plan.dtype, plan.seconds / 4))
    limits = session.results.get("limits")
    if isinstance(limits, Limits):
        for name, config in plan.models.items():
            for points in plan.points[:2]:
                session.do(
                    f"ops {name} {points}", 20 * plan.seconds,
                    lambda c=config, n=points: ops(c, n, plan, device, limits, kernels),  # type: ignore[misc]
                )  # fmt: skip
    session.do("rig", 30 * plan.seconds, lambda: rigs(plan, device))
    session.do("drift", 30 * plan.seconds, lambda: drift(plan, device))
    if public is not None:
        for points in plan.points[:2]:
            session.do(
                f"public {points}", 30 * plan.seconds,
                lambda n=points: public_steps(public, n, plan, device),  # type: ignore[misc]
            )  # fmt: skip
    session.do("tests", 60 * plan.seconds, lambda: tests(plan, device, session.left_s))


def steps(config: TapirConfig, points: int, plan: Plan, device: torch.device) -> dict[str, Any]:
    """Times a tracker with random weights: with graphs, pipelined with graphs, and kernel by kernel."""
    model = random_model(config, device, plan.dtype)
    found: dict[str, Any] = {"dtype": str(plan.dtype).removeprefix("torch."), "aim_ms": None}
    if config.name == "bootstapir":
        found["aim_ms"] = AIMS_MS.get(points)
    for way, graphs, frames in (
        ("graphs", True, one_by_one),
        ("graphs_pipelined", True, two_under_way),
        ("kernel_by_kernel", False, one_by_one),
    ):
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        tracker = Tracker(model, max_points=points, window=8, graphs=graphs)
        tracker.add(np.random.default_rng(0).uniform(0, plan.frame[::-1], (points, 2)))
        pictures = cycle(noise(8, plan.frame))
        started = time.perf_counter()
        tracker.step(next(pictures))
        ready_s = time.perf_counter() - started
        for _ in range(plan.warm_up):
            tracker.step(next(pictures))
        frame_ms, stages = frames(tracker, pictures, plan.seconds)
        memory = torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else None
        found[way] = {
            "ms": spread(frame_ms),
            "stages_ms": {stage: round(float(np.median(times)), 4) for stage, times in stages.items()},
            "first_frame_s": round(ready_s, 2),
            "peak_mib": memory and round(memory, 1),
            "bytes_per_point": tracker.bytes_per_point,
        }
    return found


def rigs(plan: Plan, device: torch.device) -> dict[str, Any]:
    """Times a batch of every lane of a rig, and of every second one."""
    config = list(plan.models.values())[-1]
    found: dict[str, Any] = {}
    for lanes, points in plan.rigs:
        rig = Rig(random_model(config, device, plan.dtype), lanes, points, window=8, batch=True)
        trackers = [rig.take() for _ in range(lanes)]
        for tracker in trackers:
            tracker.add(np.random.default_rng(0).uniform(0, plan.frame[::-1], (points, 2)))
        pictures = cycle(noise(8, plan.frame))
        for name, served in (("all", trackers), ("every second", trackers[::2])):
            times: list[float] = []
            end = time.monotonic() + plan.seconds
            while len(times) < 3 + plan.warm_up or time.monotonic() < end:
                batch = {tracker: next(pictures) for tracker in served}
                start = time.perf_counter_ns()
                rig.step(batch)
                times.append((time.perf_counter_ns() - start) / 1e6)
            found[f"{config.name}, {lanes} lanes x {points} points, {name} of them"] = spread(times[plan.warm_up :])
    return found


def one_by_one(tracker: Tracker, pictures: Iterator[Picture], seconds: float) -> tuple[list[float], dict[str, Any]]:
    """Milliseconds of each step, and of its stages."""
    frame_ms: list[float] = []
    stages: dict[str, list[float]] = {stage: [] for stage in STAGES}
    end = time.monotonic() + seconds
    while len(frame_ms) < 3 or time.monotonic() < end:
        start = time.perf_counter_ns()
        tracks = tracker.step(next(pictures))
        frame_ms.append((time.perf_counter_ns() - start) / 1e6)
        for stage in STAGES:
            stages[stage].append(getattr(tracks.times, stage) / 1e6)
    return frame_ms, stages


def two_under_way(tracker: Tracker, pictures: Iterator[Picture], seconds: float) -> tuple[list[float], dict[str, Any]]:
    """Milliseconds from each result to the next; each frame is submitted before the previous one is collected."""
    frame_ms: list[float] = []
    tracker.submit(next(pictures))
    start = time.perf_counter_ns()
    end = time.monotonic() + seconds
    while len(frame_ms) < 3 or time.monotonic() < end:
        tracker.submit(next(pictures))
        tracker.collect()
        now = time.perf_counter_ns()
        frame_ms.append((now - start) / 1e6)
        start = now
    tracker.collect()
    return frame_ms, {}


def ops(
    config: TapirConfig, points: int, plan: Plan, device: torch.device, limits: Limits, kernels: bool
) -> list[dict[str, Any]]:
    """Times each op's kernel and reference, with its limit."""
    cases = op_cases(config, points, device, plan.dtype, plan.frame)
    return [asdict(timed(case, device, limits, plan.seconds / 10, kernels)) for case in cases]


def drift(plan: Plan, device: torch.device) -> dict[str, Any]:
    """Distances in pixels between `small` on the device, in each dtype, and on the CPU in float32."""
    from online_tapir.camera.demo import DemoScene
    from online_tapir.points.placement import Corners

    if "tiny" in plan.models:
        return {}
    scene, frames, points = DemoScene(), 24, 64
    pictures = [scene.render(number) for number in range(frames)]
    xy = Corners(points).place(pictures[0])

    def track(where: str, dtype: str) -> list[Any]:
        tracker = Tracker(load_model("small", device=where, dtype=dtype), max_points=points, window=1)
        tracker.add(xy)
        return [tracker.step(picture) for picture in pictures]

    exact = track("cpu", "float32")
    found = {}
    for dtype in ("float32", "bfloat16", "float16"):
        pairs = zip(exact, track(str(device), dtype), strict=True)
        distances = [np.linalg.norm(a.xy - b.xy, axis=1)[a.visible & b.visible] for a, b in pairs]
        found[dtype] = spread(np.concatenate(distances).tolist())
    return found


def tests(plan: Plan, device: torch.device, limit_s: float) -> dict[str, Any]:
    """Runs the kernels' tests, compiled, on the device. Raises RuntimeError with the end of their output on failure."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--no-header",
        "--tb=line",
        "-W",
        "default",
        *plan.tests,
    ]
    environment = {**os.environ, "TAPIR_TEST_DEVICE": device.type}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=max(1.0, limit_s - 5)
    )
    last = done.stdout.strip().splitlines()[-12:]
    if done.returncode != 0:
        raise RuntimeError(" | ".join([*last, *done.stderr.strip().splitlines()[-3:]]))
    return {"passed": True, "summary": last[-1] if last else ""}


def public_steps(folder: Path, points: int, plan: Plan, device: torch.device) -> dict[str, Any]:
    """Times the public causal BootsTAPIR with its initial weights, frame by frame as its own live demo runs it."""
    if not (folder / "tapnet" / "torch" / "tapir_model.py").is_file():
        raise FileNotFoundError(f"{folder} is not a checkout of tapnet: it has no tapnet/torch/tapir_model.py")
    if str(folder.resolve()) not in sys.path:
        sys.path.insert(0, str(folder.resolve()))
    module = import_module("tapnet.torch.tapir_model")
    model = module.TAPIR(pyramid_level=1, extra_convs=True, softmax_temperature=20.0, use_casual_conv=True)
    model = model.to(device).eval()
    queries = torch.rand(1, points, 3, device=device) * torch.tensor([0.0, 255.0, 255.0], device=device)
    described: Any = None
    memory: Any = None
    frame_ms: list[float] = []
    for number, rgb in enumerate(cycle(noise(8, (256, 256)))):
        start = time.perf_counter_ns()
        video = torch.from_numpy(rgb).to(device)[None, None].float() / 255 * 2 - 1  # [1, 1, H, W, 3]
        grids = model.get_feature_grids(video, is_training=False)
        if described is None:
            described = model.get_query_features(video, is_training=False, query_points=queries, feature_grids=grids)
            memory = model.construct_initial_causal_state(points, len(described.resolutions) - 1)
            memory = torch.utils._pytree.tree_map(lambda x: x.to(device), memory)
        found = model.estimate_trajectories(
            (256, 256), is_training=False, feature_grids=grids, query_features=described, query_points_in_video=None,
            query_chunk_size=64, causal_context=memory, get_causal_context=True,
        )  # fmt: skip
        memory = found["causal_context"]
        found["tracks"][-1].cpu()
        if number >= 5:
            frame_ms.append((time.perf_counter_ns() - start) / 1e6)
        if len(frame_ms) >= 3 and sum(frame_ms) > 2e3 * plan.seconds:
            break
    return {"dtype": "float32", "ms": spread(frame_ms)}


def random_model(config: TapirConfig, device: torch.device, dtype: torch.dtype) -> Tapir:
    """A model as `load_model` returns it, but with random weights."""
    torch.manual_seed(0)
    model = Tapir(config).requires_grad_(False).to(device, dtype)
    model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def noise(count: int, size: tuple[int, int]) -> list[Picture]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Like `bench.report.Spread`, which needs packages that a bare machine lacks."""
    ordered = sorted(values)
    ranks = {f"p{q}": ordered[max(0, -(-len(ordered) * q // 100) - 1)] for q in (50, 95, 99)}
    return {"count": len(ordered), **{name: round(value, 4) for name, value in {**ranks, "max": ordered[-1]}.items()}}


def _brief(result: Any) -> str:
    """A one-line summary of a result, for the terminal."""
    if isinstance(result, dict) and "graphs" in result:
        ways = {way: result[way]["ms"]["p50"] for way in ("graphs", "graphs_pipelined", "kernel_by_kernel")}
        return f"p50 ms {ways}, stages {result['graphs']['stages_ms']}"
    if isinstance(result, list):
        return "; ".join(f"{one['op']} {one['kernel_ms']}/{one['reference_ms']}/{one['limit_ms']}" for one in result)
    return str(result)[:400]


def _device_facts(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def _file_name(facts: dict[str, Any]) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in facts["device"]["name"].lower()).split())


def _commit() -> str | None:
    with suppress(OSError, subprocess.CalledProcessError):
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
        return head.stdout.strip()
    return None


def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return str(version(package))
    return None


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
