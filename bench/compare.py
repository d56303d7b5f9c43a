"""Time per frame of a published architecture, by stage, compared with the public PyTorch code if a checkout is given.

Both track the same points on the same frames with the same weights. They alternate frame by frame, so that other load
on the machine affects both equally. A frame is timed from the image in memory to the positions in memory; warm-up
frames are excluded. Without --weights the weights are random, which changes neither the times nor how well the two
sides agree.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import torch
from cyclopts import Parameter
from cyclopts.validators import Number
from numpy.typing import NDArray
from torch import Tensor

from bench.command import BenchError, Count, JsonFile, PlotFile, run
from bench.report import Spread, commit, finish, print_table
from online_tapir.model import haiku, public
from online_tapir.model.checkpoint import load_model, read_tensors
from online_tapir.model.config import TapirConfig, preset
from online_tapir.model.tapir import Tapir
from online_tapir.tracking.tracker import Tracker

SIDE = 256  # the public code samples incorrectly on non-square frames
MARGIN = 16  # least distance of a point from the frame's border, pixels
STAGES = ("upload", "encode", "match", "refine", "download")
INTERVAL = "a frame: from the image in memory to the positions in memory; warm-up frames are excluded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to run, and for how long."""

    model: Annotated[Literal["bootstapir", "tapir"], Parameter(help="A published architecture.")] = "bootstapir"
    weights: Annotated[Path | None, Parameter(help="Its checkpoint. [default: random weights]")] = None
    public: Annotated[Path | None, Parameter(help="A checkout of the public PyTorch code to compare with.")] = None
    points: Annotated[
        tuple[int, ...], Parameter(help="Numbers of points to track, one run each.", consume_multiple=True, negative=())
    ] = (
        8,
        64,
        256,
    )
    frames: Annotated[int, Parameter(help="Frames to measure per run.", validator=Count)] = 10
    warm_up: Annotated[int, Parameter(help="Warm-up frames before measuring.", validator=Number(gte=0))] = 2
    threads: Annotated[int, Parameter(help="CPU threads.", validator=Count)] = 2


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Positions of the points on one frame, and the time taken."""

    xy: NDArray[np.float32]  # [N, 2] pixels
    occlusion: NDArray[np.float32]  # [N] probability
    ms: dict[str, float]  # by stage; `frame` is the total


Step = Callable[[NDArray[np.uint8]], Answer]


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Time a frame of a published model by stage on the CPU; with --public PATH, time the public code as well."""
    torch.set_num_threads(settings.threads)
    config = preset(settings.model)
    state = made_up(config) if settings.weights is None else public_state(settings.weights, config)
    model = ours(settings.model, state)
    theirs = public_model(settings.public, config, state) if settings.public is not None else None
    runs = []
    for points in settings.points:
        result = compare(model, theirs, points, settings)
        print_table(f"{settings.model}, {points} points, {SIDE}x{SIDE}, {settings.threads} threads; ms", *result)
        runs.append({"points": points, "ms": result[0], **result[1]})
    results: dict[str, object] = {"runs": runs}
    if settings.public is not None:
        results["public_commit"] = commit(settings.public)
    finish("compare", settings, results, json, plot, interval=INTERVAL)


def compare(model: Tapir, theirs: Any, points: int, settings: Settings) -> tuple[dict[str, Spread], dict[str, object]]:
    """Times our model, and theirs if given, alternating frame by frame; returns stage times and differences."""
    xy = scattered(points)
    step, other = our_step(model, xy), public_step(theirs, xy) if theirs is not None else None
    mine: list[Answer] = []
    others: list[Answer] = []
    for rgb in sliding_texture(settings.warm_up + settings.frames):
        mine.append(step(rgb))
        if other is not None:
            others.append(other(rgb))
    mine, others = mine[settings.warm_up :], others[settings.warm_up :]
    spreads = spreads_ms("", mine)
    if not others:
        return spreads, {}
    spreads |= spreads_ms("public ", others)
    return spreads, {
        "times_faster": round(spreads["public frame"].p50 / spreads["frame"].p50, 2),
        "difference_px": largest_difference([a.xy for a in mine], [a.xy for a in others]),
        "difference_occlusion": largest_difference([a.occlusion for a in mine], [a.occlusion for a in others]),
    }


def our_step(model: Tapir, xy: NDArray[np.float32]) -> Step:
    tracker = Tracker(model, max_points=len(xy))
    tracker.add(xy)

    def step(rgb: NDArray[np.uint8]) -> Answer:
        start = time.perf_counter_ns()
        tracks = tracker.step(rgb)
        frame_ms = (time.perf_counter_ns() - start) / 1e6
        stages = {stage: ns / 1e6 for stage, ns in asdict(tracks.times).items() if stage in STAGES}
        return Answer(tracks.xy, tracks.occlusion, {**stages, "frame": frame_ms})

    return step


def public_step(model: Any, xy: NDArray[np.float32]) -> Step:
    """Steps the public model as its own live demo does; the points are queried on the first frame."""
    query = torch.from_numpy(np.concatenate([np.zeros((len(xy), 1), np.float32), xy[:, ::-1]], axis=1))[None]
    described: Any = None
    memory: Any = None

    @torch.inference_mode()
    def step(rgb: NDArray[np.uint8]) -> Answer:
        nonlocal described, memory
        start = time.perf_counter_ns()
        video = torch.from_numpy(rgb)[None, None].float() / 255 * 2 - 1  # [1, 1, H, W, 3]
        grids = model.get_feature_grids(video, is_training=False)
        encoded = time.perf_counter_ns()
        if described is None:
            described = model.get_query_features(video, is_training=False, query_points=query, feature_grids=grids)
            memory = model.construct_initial_causal_state(len(xy), len(described.resolutions) - 1)
        found = model.estimate_trajectories(
            video.shape[-3:-1],
            is_training=False,
            feature_grids=grids,
            query_features=described,
            query_points_in_video=None,
            query_chunk_size=64,
            causal_context=memory,
            get_causal_context=True,
        )
        memory = found["causal_context"]
        position, occlusion = found["tracks"][-1][0, :, 0].numpy(), torch.sigmoid(found["occlusion"][-1][0, :, 0])
        end = time.perf_counter_ns()
        stages = {"encode": encoded - start, "match and refine": end - encoded, "frame": end - start}
        return Answer(position, occlusion.numpy(), {stage: ns / 1e6 for stage, ns in stages.items()})

    return step


def ours(name: str, state: dict[str, Tensor], device: str = "cpu") -> Tapir:
    """Our model with a public state dict, loaded from a file as a user's checkpoint would be."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "public.pt"
        torch.save(state, path)
        return load_model(name, weights=path, device=device)


def public_model(folder: Path, config: TapirConfig, state: dict[str, Tensor]) -> Any:
    """The public model with the same weights. Raises BenchError if `folder` lacks its code or importing it fails."""
    if not (folder / "tapnet" / "torch" / "tapir_model.py").is_file():
        raise BenchError(f"--public {folder} is not a checkout of tapnet: it has no tapnet/torch/tapir_model.py")
    sys.path.insert(0, str(folder.resolve()))
    try:
        module = import_module("tapnet.torch.tapir_model")
    except ImportError as error:
        raise BenchError(f"the public code in {folder} cannot be imported: {error}; install what it needs") from error
    model = module.TAPIR(
        pyramid_level=config.pyramid_levels,
        extra_convs=config.extra_convs > 0,
        softmax_temperature=config.softmax_temperature,
        use_casual_conv=True,
    )
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def public_state(path: Path, config: TapirConfig) -> dict[str, Tensor]:
    """Reads a public checkpoint as a state dict with the public PyTorch names."""
    state = read_tensors(path)
    if haiku.is_haiku(state):
        state = haiku.to_public(state, config)
    if not public.is_public(state):
        raise BenchError(f"{path} is not a public checkpoint; give the published .pt or .npy")
    return state


def made_up(config: TapirConfig) -> dict[str, Tensor]:
    """A random public state dict, scaled so that activations stay of order one and heat maps have a peak."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Tapir(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in public.public_shapes(config, shapes).items():
        draw = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            state[name] = draw / 10 + (0 if name.endswith("bias") else 1)
        else:
            state[name] = draw / draw[0].numel() ** 0.5
    for name in ("hid1", "hid2"):  # a cell's own cost outweighs its neighbours'
        state[f"torch_cost_volume_track_mods.{name}.weight"][0, 0, 1, 1] += 2
    state["torch_pips_mixer.linear_1.weight"] /= 2
    return state


def scattered(points: int, width: int = SIDE, height: int = SIDE) -> NDArray[np.float32]:
    """Random positions [points, 2], at least MARGIN from the border of a width x height frame."""
    rng = np.random.default_rng(points)
    return rng.uniform(MARGIN, (width - MARGIN, height - MARGIN), (points, 2)).astype(np.float32)


def sliding_texture(count: int, width: int = SIDE, height: int = SIDE) -> Iterator[NDArray[np.uint8]]:
    """Frames of a smooth texture that moves two pixels per frame."""
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 256, (height // 8 + 1, (width + 2 * count) // 8 + 1, 3), dtype=np.uint8)
    texture = cv2.resize(cells, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    for number in range(count):
        yield np.ascontiguousarray(texture[:height, 2 * number : 2 * number + width])


def spreads_ms(side: str, answers: list[Answer]) -> dict[str, Spread]:
    return {f"{side}{stage}": Spread.of([answer.ms[stage] for answer in answers]) for stage in answers[0].ms}


def largest_difference(mine: list[NDArray[np.float32]], others: list[NDArray[np.float32]]) -> float:
    """Largest absolute difference between the two sides' values over all frames, to two digits."""
    worst = max(float(np.abs(a - b).max()) for a, b in zip(mine, others, strict=True))
    return float(f"{worst:.2g}")


if __name__ == "__main__":
    run(main)
