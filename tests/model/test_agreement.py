"""The numbers of the public causal checkpoints, through the real loader and the streaming tracker, at every stage."""

import json
import os
import runpy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from online_tapir import Tracker, load_model
from online_tapir.model import public
from online_tapir.model.config import PRESETS, TapirConfig
from online_tapir.model.estimate import Estimate
from online_tapir.model.matching import Match
from online_tapir.model.state import TrackState
from online_tapir.model.tapir import FeaturePyramid, Tapir
from online_tapir.model.taps import Taps
from online_tapir.tracking.tracker import Resolution
from tests.model.plain_tapir import Plain, refinement_sizes, track

_HERE = Path(__file__).parent
REFERENCE = Path(os.environ.get("ONLINE_TAPIR_REFERENCE", _HERE.parents[1].parent / "shared" / "reference"))
TRACKS_PX, LOGITS = 1e-3, 1e-4
ROOM = 40  # more slots than any case has points

TINY_PUBLIC = TapirConfig(
    name="tiny_public",
    stem_width=8,
    widths=(8, 16, 24, 24),
    extra_convs=2,
    match_width=4,
    mixer_width=32,
    mixer_depth=3,
    iterations=3,
    pyramid_levels=2,
    initial_resolution=(64, 64),
    softmax_temperature=13.0,
)


@dataclass(frozen=True)
class Case:
    """Frames, the points on the first, those that take over slots later, and every stage's numbers."""

    frames: NDArray[np.uint8]  # [T, H, W, 3]
    xy: NDArray[np.float32]  # [N, 2]
    replaced: Mapping[int, tuple[Sequence[int], NDArray[np.float32]]]  # frame: slots [P], their new points [P, 2]
    tracks: NDArray[np.float32]  # [T, S, N, 2] pixels of the frame
    occlusion: NDArray[np.float32]  # [T, S, N] logits
    expected_distance: NDArray[np.float32]  # [T, S, N] logits


def followed(
    model: Tapir, case: Case, resolution: Resolution, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[list[Estimate], list[int]]]:
    """Streams a case; gives, for each frame, the estimates of every stage and the row of each slot."""
    match, refine = model.match, model.refine
    stages: list[Estimate] = []

    def watched_match(pyramid: FeaturePyramid, state: TrackState, taps: Taps | None) -> Match:
        found = match(pyramid, state, taps)
        stages[:] = [found.estimate]
        return found

    def watched_refine(
        pyramid: FeaturePyramid, first: Estimate, state: TrackState, phase: int, taps: Taps | None
    ) -> list[Estimate]:
        refined = refine(pyramid, first, state, phase, taps)
        stages.extend(refined)
        return refined

    monkeypatch.setattr(model, "match", watched_match)
    monkeypatch.setattr(model, "refine", watched_refine)
    tracker = Tracker(model, max_points=ROOM, window=4, resolution=resolution)
    slots = tracker.add(case.xy)
    for number, frame in enumerate(case.frames):
        if number in case.replaced:
            places, xy = case.replaced[number]
            tracker.remove(slots[places])
            slots[places] = tracker.add(xy)
        tracker.step(frame)
        row_of = {point: row for row, point in enumerate(tracker._points.rows.tolist())}
        yield stages, [row_of[point] for point in slots.tolist()]


def assert_agrees(model: Tapir, case: Case, resolution: Resolution, monkeypatch: pytest.MonkeyPatch) -> None:
    height, width = case.frames.shape[1:3]
    initial_height, initial_width = model.config.initial_resolution
    to_frame = np.array([width / initial_width, height / initial_height])
    for number, (stages, rows) in enumerate(followed(model, case, resolution, monkeypatch)):
        assert len(stages) == case.tracks.shape[1]
        for index, stage in enumerate(stages):
            where = f"frame {number}, stage {index}"
            for found, expected, tolerance in (
                (stage.xy[0].numpy()[rows] * to_frame, case.tracks, TRACKS_PX),
                (stage.occlusion[0].numpy()[rows], case.occlusion, LOGITS),
                (stage.expected_distance[0].numpy()[rows], case.expected_distance, LOGITS),
            ):
                np.testing.assert_allclose(found, expected[number, index], atol=tolerance, rtol=0, err_msg=where)


@pytest.mark.parametrize(
    ("name", "preset", "resolution"),
    [
        ("causal_bootstapir_256", "bootstapir", None),
        ("causal_bootstapir_384x512_two_resolutions", "bootstapir", "frame"),
        ("causal_tapir_256", "tapir", None),
    ],
)
def test_the_public_model_gives_the_same_numbers(
    name: str, preset: str, resolution: Resolution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not REFERENCE.is_dir():
        pytest.skip("the cases are in ../shared/reference, which is not here")
    weights = tmp_path / "stand_in.pt"
    torch.save(stand_in_of_the_cases(f"causal_{preset}_shapes.json"), weights)
    assert_agrees(load_model(preset, weights=weights, device="cpu"), public_case(name), resolution, monkeypatch)


def public_case(name: str) -> Case:
    with np.load(REFERENCE / f"{name}.npz") as held:
        events = [int(number) for number in held["event_frames"]]
        replaced = {t: (held[f"event{t}_slots"].tolist(), held[f"event{t}_xy"]) for t in events}
        numbers = (held[key] for key in ("tracks", "occlusion", "expected_dist"))
        return Case(held["frames"], held["queries_xy"], replaced, *numbers)


def stand_in_of_the_cases(shapes: str) -> dict[str, Tensor]:
    reference_state = runpy.run_path(str(REFERENCE / "reference_weights.py"))["reference_state"]
    state = reference_state(json.loads((REFERENCE / shapes).read_text(encoding="utf-8")))
    return {name: torch.from_numpy(values) for name, values in state.items()}


@pytest.mark.parametrize(("size", "levels"), [((64, 64), 1), ((97, 130), 3), ((120, 72), 2)])
def test_a_plain_model_of_a_whole_clip_gives_the_same_numbers(
    size: tuple[int, int], levels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "stand_in.pt"
    state = stand_in(TINY_PUBLIC)
    torch.save(state, weights)
    monkeypatch.setitem(PRESETS, TINY_PUBLIC.name, TINY_PUBLIC)
    model = load_model(TINY_PUBLIC.name, weights=weights, device="cpu")
    case = own_case(state, size)
    assert case.tracks.shape[1] == 1 + levels * TINY_PUBLIC.iterations
    assert_agrees(model, case, "frame", monkeypatch)


@pytest.mark.parametrize("change", ["softmax_temperature", "iterations"])
def test_the_comparison_notices_another_model(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = stand_in(TINY_PUBLIC)
    torch.save(state, tmp_path / "stand_in.pt")
    other = replace(TINY_PUBLIC, **{change: getattr(TINY_PUBLIC, change) - 1})
    monkeypatch.setitem(PRESETS, TINY_PUBLIC.name, other)
    model = load_model(TINY_PUBLIC.name, weights=tmp_path / "stand_in.pt", device="cpu")
    with pytest.raises(AssertionError):
        assert_agrees(model, own_case(state, (64, 64)), "frame", monkeypatch)


def own_case(state: dict[str, Tensor], size: tuple[int, int]) -> Case:
    """Six frames; two of five points are replaced on the third, one of them again on the fifth."""
    rng = np.random.default_rng(sum(size))
    frames = sliding_texture(6, size, rng)

    def scattered(count: int) -> NDArray[np.float32]:
        return (rng.uniform(0.15, 0.85, (count, 2)) * size[::-1]).astype(np.float32)

    xy = scattered(5)
    replaced = {2: ([1, 4], scattered(2)), 4: ([4], scattered(1))}
    plain = Plain(
        TINY_PUBLIC.iterations,
        TINY_PUBLIC.pyramid_levels,
        TINY_PUBLIC.initial_resolution,
        TINY_PUBLIC.softmax_temperature,
    )
    refinement = refinement_sizes(plain.initial, size)

    def stages_from(start: int, points: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        found = track(state, plain, torch.from_numpy(frames[start:]), torch.from_numpy(points), refinement)
        return [part.numpy() for part in (found.tracks, found.occlusion, found.expected_distance)]

    numbers = stages_from(0, xy)
    for start, (slots, points) in replaced.items():  # a new point knows nothing of the frames before it
        for part, newer in zip(numbers, stages_from(start, points), strict=True):
            part[start:, :, slots] = newer
    return Case(frames, xy, replaced, *numbers)


def sliding_texture(count: int, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Frames [T, H, W, 3] of a coarse texture that moves by three pixels a frame."""
    height, width = size
    cells = rng.integers(0, 256, (height // 8 + 2, (width + 3 * count) // 8 + 2, 3), dtype=np.uint8)
    texture = cells.repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([texture[:height, 3 * t : 3 * t + width] for t in range(count)])


def stand_in(config: TapirConfig) -> dict[str, Tensor]:
    """Weights by public name, no trained model's: activations are of order one, every heat map has a peak."""
    with torch.device("meta"):
        ours = {name: tuple(tensor.shape) for name, tensor in Tapir(config).state_dict().items()}
    generator = torch.Generator().manual_seed(7)
    state = {}
    for name, shape in sorted(public.public_shapes(config, ours).items()):
        draw = torch.randn(shape, generator=generator)
        if name.endswith("bias"):
            state[name] = draw / 10
        elif len(shape) == 1:  # of a norm
            state[name] = 1 + draw / 10
        else:
            state[name] = draw / draw[0].numel() ** 0.5
    for name, gain in (("hid1", 2.0), ("hid2", 1.0)):  # a cell's own cost outweighs its neighbours'
        state[f"torch_cost_volume_track_mods.{name}.weight"][0, 0, 1, 1] += gain
    state["torch_pips_mixer.linear_1.weight"] /= 2
    return state
