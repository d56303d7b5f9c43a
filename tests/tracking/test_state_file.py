"""A tracker that goes on from a saved state gives the tracks it would have given; no other file is taken for one."""

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from online_tapir import load_model
from online_tapir.errors import QueryError, StateError
from online_tapir.model.config import TapirConfig
from online_tapir.model.digest import digest
from online_tapir.model.tapir import Tapir
from online_tapir.records import Frame, ObjectReference, Tracks
from online_tapir.tracking import state_file
from online_tapir.tracking.persistence import Persistence
from online_tapir.tracking.tracker import Resolution, Tracker

Pictures = list[NDArray[np.uint8]]
MakeModel = Callable[..., Tapir]
MakeFrames = Callable[..., Pictures]
HEIGHT, WIDTH, ROOM = 130, 161, 16
CUP = {"ids": [0, 3], "xy": [[1, 2], [3, 4]], "corners": [0, 3], "size": [640, 480], "lens": [1.5]}
HOSTILE = settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def own_inputs(config: TapirConfig) -> TapirConfig:
    """With every part that `small` has."""
    return replace(config, described_by=(0, 1, 3), iterations=1, extra_convs=0, recent_inputs=True, neighbour_grids=1)


def public_inputs(config: TapirConfig) -> TapirConfig:
    """As the public checkpoints are: several refinements, and nothing that they do not see."""
    return replace(config, iterations=3, peak_inputs=False, motion_inputs=False)


@pytest.fixture
def model(make_model: MakeModel, tiny_config: TapirConfig) -> Tapir:
    return make_model(own_inputs(tiny_config))


@pytest.fixture
def saved(tmp_path: Path, model: Tapir, make_frames: MakeFrames) -> Path:
    """Three points, the ids of which are 0, 1 and 3, after three frames."""
    tracker = started(model)
    tracker.remove([2])
    for frame in make_frames(3, HEIGHT, WIDTH):
        tracker.step(frame)
    tracker.save_state(tmp_path / "points")
    return tmp_path / "points"


def started(model: Tapir, points: int = 4, resolution: Resolution = None) -> Tracker:
    tracker = Tracker(model, ROOM, window=4, resolution=resolution)
    tracker.add(scattered(points))
    return tracker


def scattered(count: int, seed: int = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).random((count, 2)) * (WIDTH, HEIGHT)).astype(np.float32)


def assert_identical(one: Tracks, other: Tracks) -> None:
    for name in ("ids", "xy", "visible", "occlusion", "uncertainty"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name


def change_points(tracker: Tracker, index: int) -> None:
    """What happens in a run before frame `index`: rows are filled, emptied and permuted."""
    if index == 0:
        tracker.add(scattered(9))
    if index in (2, 5):
        tracker.remove(tracker.ids[[0, 3]])
    if index in (3, 6):
        tracker.add(scattered(2, seed=index))


CASES: dict[str, tuple[Callable[[TapirConfig], TapirConfig], torch.dtype, Resolution]] = {
    "own inputs": (own_inputs, torch.float32, None),
    "public inputs": (public_inputs, torch.float32, None),
    "several resolutions": (public_inputs, torch.float32, "frame"),
    "own inputs, several resolutions": (own_inputs, torch.float32, "frame"),
    "half precision": (own_inputs, torch.bfloat16, (96, 64)),
}


@pytest.mark.parametrize("frames", [1, 3, 4])
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_split_gives_the_same_tracks_to_the_bit(
    tmp_path: Path, make_model: MakeModel, make_frames: MakeFrames, tiny_config: TapirConfig, case: str, frames: int
) -> None:
    configure, dtype, resolution = CASES[case]
    model = make_model(configure(tiny_config)).to(dtype)
    pictures = make_frames(8, HEIGHT, WIDTH)
    whole, first = (Tracker(model, ROOM, window=4, resolution=resolution) for _ in range(2))
    expected = []
    for index, picture in enumerate(pictures):
        change_points(whole, index)
        expected.append(whole.step(picture))
    for index, picture in enumerate(pictures[:frames]):
        change_points(first, index)
        first.step(picture)
    first.save_state(tmp_path / "points")
    second = Tracker(model, ROOM, window=4, resolution=resolution)
    second.load_state(tmp_path / "points")
    for index, picture in enumerate(pictures[frames:], frames):
        change_points(second, index)
        assert_identical(second.step(picture), expected[index])


def test_the_embedded_model_goes_on_to_the_bit_from_an_odd_and_from_an_even_frame(
    tmp_path: Path, make_frames: MakeFrames
) -> None:
    model = load_model("small", device="cpu")
    pictures = make_frames(6, HEIGHT, WIDTH)
    whole = started(model, 7)
    expected = []
    for index, picture in enumerate(pictures):
        expected.append(whole.step(picture))
        if index in (2, 3):
            whole.save_state(tmp_path / f"{index}")
    for index in (2, 3):
        second = Tracker(model, ROOM, window=4)
        second.load_state(tmp_path / f"{index}")
        for picture, tracks in zip(pictures[index + 1 :], expected[index + 1 :], strict=True):
            assert_identical(second.step(picture), tracks)


def test_saving_changes_nothing_in_the_run_that_goes_on(tmp_path: Path, model: Tapir, make_frames: MakeFrames) -> None:
    plain, saving = started(model), started(model)
    for picture in make_frames(5, HEIGHT, WIDTH):
        assert_identical(plain.step(picture), saving.step(picture))
        saving.save_state(tmp_path / "points")


def test_points_that_wait_are_saved_too_late_ones_caught_up(
    tmp_path: Path, model: Tapir, make_frames: MakeFrames
) -> None:
    pictures = make_frames(6, HEIGHT, WIDTH)
    whole, first = started(model), started(model)
    for tracker in (whole, first):
        for picture in pictures[:4]:
            tracker.step(picture)
        tracker.add(scattered(2, seed=1), frame_id=1)
        tracker.add(scattered(3, seed=2))
    assert first.save_state(tmp_path / "points").points == 9
    second = Tracker(model, ROOM, window=4)
    second.load_state(tmp_path / "points")
    assert second.ids.tolist() == whole.ids.tolist() == list(range(9))
    for picture in pictures[4:]:
        assert_identical(second.step(picture), whole.step(picture))


def test_ids_go_on_where_they_ended_though_the_last_was_removed(
    tmp_path: Path, model: Tapir, make_frames: MakeFrames
) -> None:
    tracker = started(model)
    tracker.step(make_frames(1, HEIGHT, WIDTH)[0])
    tracker.remove([1, 3])
    tracker.save_state(tmp_path / "points")
    again = Tracker(model, ROOM)
    again.load_state(tmp_path / "points")
    assert again.ids.tolist() == [0, 2]
    assert again.add(scattered(2)).tolist() == [4, 5]


def test_points_may_be_removed_and_added_before_the_first_frame(
    saved: Path, model: Tapir, make_frames: MakeFrames
) -> None:
    tracker, plain = Tracker(model, ROOM), Tracker(model, ROOM)
    for one in (tracker, plain):
        one.load_state(saved)
    tracker.remove([0])
    tracker.add(scattered(1))
    picture = make_frames(1, HEIGHT, WIDTH)[0]
    mine, theirs = tracker.step(picture), plain.step(picture)
    assert mine.ids.tolist() == [1, 3, 4]
    np.testing.assert_allclose(mine.xy[:2], theirs.xy[1:], atol=1e-4, rtol=0)


def test_a_new_camera_counts_from_nought_and_old_frames_cannot_be_named(
    saved: Path, model: Tapir, make_frames: MakeFrames
) -> None:
    tracker = Tracker(model, ROOM, window=4)
    assert tracker.load_state(saved).frame_id == 2
    with pytest.raises(QueryError, match="before any frame was tracked"):
        tracker.add([[1, 1]], frame_id=2)
    assert tracker.step(Frame(0, 0, 0, make_frames(1, HEIGHT, WIDTH)[0])).frame_id == 0
    with pytest.raises(QueryError, match="frame 2 has not been tracked yet"):
        tracker.add([[1, 1]], frame_id=2)


def test_a_state_fits_a_tracker_with_more_room_and_a_camera_of_another_size(
    saved: Path, model: Tapir, make_frames: MakeFrames
) -> None:
    tracker = Tracker(model, 3 * ROOM)
    tracker.load_state(saved)
    tracks = tracker.step(make_frames(1, 64, 96)[0])
    assert (tracks.ids.tolist(), tracks.width) == ([0, 1, 3], 96)


def test_points_that_wait_are_where_they_were_in_proportion_on_a_camera_of_another_size(
    tmp_path: Path, model: Tapir, make_frames: MakeFrames
) -> None:
    tracker = Tracker(model, ROOM)
    tracker.step(make_frames(1, HEIGHT, WIDTH)[0])
    corner, middle = (WIDTH, HEIGHT), (WIDTH / 2, HEIGHT / 2)
    tracker.add([corner, middle])
    tracker.save_state(tmp_path / "points")
    for height, width in ((HEIGHT // 2, WIDTH // 2), (2 * HEIGHT, 2 * WIDTH)):
        again = Tracker(model, ROOM)
        again.load_state(tmp_path / "points")
        waiting = again._points.queries[0].on(width, height)
        assert waiting.xy.tolist() == [[width, height], [width / 2, height / 2]]
        assert len(again.step(make_frames(1, height, width)[0]).ids) == 2


def test_a_run_without_points_is_saved_for_its_ids(tmp_path: Path, model: Tapir, make_frames: MakeFrames) -> None:
    tracker = started(model)
    tracker.step(make_frames(1, HEIGHT, WIDTH)[0])
    tracker.clear()
    tracker.save_state(tmp_path / "points")
    again = Tracker(model, ROOM)
    assert again.load_state(tmp_path / "points").points == 0
    assert again.add(scattered(1)).tolist() == [4]
    assert again.step(make_frames(1, HEIGHT, WIDTH)[0]).ids.tolist() == [4]


def test_a_point_that_overflowed_is_left_out(tmp_path: Path, model: Tapir, make_frames: MakeFrames) -> None:
    tracker = started(model)
    tracker.step(make_frames(1, HEIGHT, WIDTH)[0])
    assert tracker.lanes.state is not None
    with torch.inference_mode():
        tracker.lanes.state.memory[..., 2, 0] = torch.inf
    assert tracker.save_state(tmp_path / "points").ids.tolist() == [0, 1, 3]
    Tracker(model, ROOM).load_state(tmp_path / "points")


def test_weights_are_known_by_what_they_are_and_not_by_how_they_lie(make_model: MakeModel) -> None:
    one, other = make_model(), make_model()
    other.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert digest(one) == digest(other)
    other.refiner.mixer.enter.bias[0] += 1e-3
    assert digest(one) != digest(other)


def test_nothing_is_saved_before_a_frame_and_nothing_loaded_after_one(
    saved: Path, model: Tapir, make_frames: MakeFrames
) -> None:
    tracker = Tracker(model, ROOM)
    with pytest.raises(StateError, match="no frame has been tracked yet"):
        tracker.save_state(saved)
    tracker.load_state(saved)
    with pytest.raises(StateError, match="no frame has been tracked yet"):
        tracker.save_state(saved)
    for used in (tracker, started(model)):
        with pytest.raises(StateError, match="make another"):
            used.load_state(saved)


def refusal(tracker: Tracker, path: Path) -> str:
    """What a file is refused with; the tracker is as it was."""
    with pytest.raises(StateError) as refused:
        tracker.load_state(path)
    assert len(tracker.ids) == 0
    return str(refused.value)


def test_what_is_another_is_said(
    saved: Path, make_model: MakeModel, tiny_config: TapirConfig, make_frames: MakeFrames
) -> None:
    config = own_inputs(tiny_config)
    own = make_model(config)
    for tracker, said in [
        (Tracker(make_model(replace(config, name="other"))), "a state of model 'tiny', but this is 'other'"),
        (Tracker(make_model(replace(config, iterations=2))), "with iterations 1, but here it is 2"),
        (Tracker(make_model(replace(config, widths=(8, 16, 24, 32)))), "with widths [8, 16, 24, 24]"),
        (Tracker(make_model(config).to(torch.bfloat16)), "'float32', but this computes in 'bfloat16'"),
        (Tracker(make_model(config, seed=1)), "other weights of model 'tiny'"),
        (Tracker(own, resolution=(64, 64)), "refined at 96x64, but here at 64x64"),
        (Tracker(own, max_points=2), "has 3 points, but there is room for 2; raise --max-points"),
    ]:
        assert said in refusal(tracker, saved)
    tracker = Tracker(own, resolution="frame")
    tracker.load_state(saved)
    for _ in range(2):  # it is known with the first frame, and stays so
        with pytest.raises(StateError, match=r"but here at 96x64, .*follows the camera's size"):
            tracker.step(make_frames(1, 300, 400)[0])


def taken_apart(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def put_together(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor], *, honest: bool = True) -> None:
    if honest:
        metadata = {**metadata, "crc32": state_file._checksum(metadata["run"], tensors)}
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))


def with_run(path: Path, **changes: Any) -> None:
    metadata, tensors = taken_apart(path)
    metadata["run"] = json.dumps({**json.loads(metadata["run"]), **changes})
    put_together(path, metadata, tensors)


def test_a_higher_version_and_other_files_are_refused(tmp_path: Path, saved: Path, model: Tapir) -> None:
    metadata, tensors = taken_apart(saved)
    put_together(saved, {**metadata, "version": "2"}, tensors)
    assert "has format version 2, this program reads 1; upgrade it" in refusal(Tracker(model), saved)
    put_together(saved, {**metadata, "format": "online-tapir/weights"}, tensors)
    assert "is a safetensors file, but not a saved state" in refusal(Tracker(model), saved)
    assert "there is no saved state" in refusal(Tracker(model), tmp_path / "gone")
    for path, content in ((tmp_path / "empty", b""), (tmp_path / "text", b"not a state at all, and long enough")):
        path.write_bytes(content)
        assert "is not a valid state" in refusal(Tracker(model), path)
    assert "is not a valid state" in refusal(Tracker(model), tmp_path)


def test_a_field_that_the_model_got_later_is_as_it_is_by_default(
    saved: Path, model: Tapir, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata, tensors = taken_apart(saved)
    run = json.loads(metadata["run"])
    del run["config"]["softmax_temperature"]
    put_together(saved, {**metadata, "run": json.dumps(run)}, tensors)
    Tracker(model).load_state(saved)
    with_run(saved, config={**run["config"], "of_tomorrow": True})
    assert "with of_tomorrow True, but here it is None" in refusal(Tracker(model), saved)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("memory", lambda t: t.fill_(torch.nan), "not finite"),
        ("recent.age", lambda t: t.fill_(torch.inf), "not finite"),
        ("previous_xy", lambda t: t.fill_(torch.inf), "not finite"),
        ("memory", lambda t: t[..., :2, :], "its memory is ('F32', "),
        ("memory", lambda t: t.half(), "its memory is ('F16', "),
        ("ids", lambda t: t[:2], "not ('F32', (2,"),
        ("ids", lambda t: t[None], "it has no ids"),
        ("ids", lambda t: t.long(), "its ids is ('I64', "),
        ("ids", lambda t: t.fill_(1), "its ids are repeated or out of range"),
        ("ids", lambda t: t - 1, "its ids are repeated or out of range"),
        ("ids", lambda t: t + 1, "its ids are repeated or out of range"),
        ("waiting_ids", lambda t: torch.ones(ROOM, dtype=torch.int32), "19 points, but there is room for 16"),
        ("something", lambda t: torch.ones(3), "its something is ('F32', (3,)), not there"),
        ("match_queries", None, "its match_queries is missing"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_though_its_checksum_is_right(
    saved: Path, model: Tapir, name: str, change: Callable[[Tensor], Tensor] | None, said: str
) -> None:
    metadata, tensors = taken_apart(saved)
    held = tensors.pop(name, torch.empty(0))
    if change is not None:
        tensors[name] = change(held)
    put_together(saved, metadata, tensors)
    assert said in refusal(Tracker(model, ROOM), saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"next_id": 2**31},
        {"next_id": -1},
        {"next_id": True},
        {"frames": 2**63},
        {"frames": 1.5},
        {"frame_id": None},
        {"resolutions": []},
        {"resolutions": [[64, 96]] * 17},
        {"resolutions": 7},
        {"resolutions": [[64]]},
        {"config": []},
        {"config": [[1, 2]]},
        {"config": 7},
        {"weights": [[]]},
        {"dtype": "float64"},
        {"objects": {"cup": {}}},
        {"objects": {"cup": {**CUP, "xy": [[1, 2]]}}},
        {"objects": {"cup": {**CUP, "xy": [[1, 2], [3, 10**400]]}}},
        {"objects": {"cup": {**CUP, "xy": [[1, 2], [3, float("nan")]]}}},
        {"objects": {"cup": {**CUP, "ids": [3, 3]}}},
        {"objects": {"cup": {**CUP, "corners": [-1]}}},
        {"objects": {"cup": {**CUP, "size": [640]}}},
        {"objects": {"cup": {**CUP, "lens": ["wide"]}}},
        {"objects": {"cup": {**CUP, "color": "red"}}},
        {"objects": 7},
    ],
    ids=str,
)
def test_a_run_that_is_none_is_refused(saved: Path, model: Tapir, changes: dict[str, Any]) -> None:
    with_run(saved, **changes)
    refusal(Tracker(model, ROOM), saved)


def test_objects_are_read_as_they_were_written_and_older_files_have_none(saved: Path, model: Tapir) -> None:
    origin = Persistence(model).origin(None)
    before = state_file.read(saved, origin, ROOM)
    assert before.objects == {}
    xy = np.random.default_rng(0).uniform(0, 640, (3, 2)).astype(np.float32)
    cup = ObjectReference((0, 1, 7), xy, (0, 1, 2, 3), (640, 480), (600.1, 0.1 + 0.2))
    state_file.write(saved, replace(before, objects={"cup": cup}))
    [(name, back)] = state_file.read(saved, origin, ROOM).objects.items()
    assert (name, back.ids, back.corners, back.size, back.lens) == ("cup", cup.ids, cup.corners, cup.size, cup.lens)
    assert back.xy.tobytes() == xy.tobytes()
    metadata, tensors = taken_apart(saved)
    run = json.loads(metadata["run"])
    del run["objects"]
    put_together(saved, {**metadata, "run": json.dumps(run)}, tensors)
    assert state_file.read(saved, origin, ROOM).objects == {}


def test_a_header_nested_too_deep_is_refused(saved: Path, model: Tapir) -> None:
    metadata, tensors = taken_apart(saved)
    for deep in (100_000, 900):
        put_together(saved, {**metadata, "run": '{"config": {"name": ' + "[" * deep + "]" * deep + "}}"}, tensors)
        refusal(Tracker(model, ROOM), saved)


def test_every_byte_counts(saved: Path, model: Tapir) -> None:
    """One that is another, or a cut anywhere, is noticed."""
    whole = saved.read_bytes()
    start = whole.index(b'{"__metadata__"')
    for at in range(start, len(whole), 97):
        spoilt = bytearray(whole)
        spoilt[at] ^= 1
        saved.write_bytes(spoilt)
        with suppress(StateError):  # an unknown key of the metadata would be no harm; nothing that is read is another
            found = Tracker(model, ROOM)
            found.load_state(saved)
            assert_same_state(found, whole, saved, model)
        saved.write_bytes(whole[:at])
        refusal(Tracker(model, ROOM), saved)


def assert_same_state(found: Tracker, whole: bytes, path: Path, model: Tapir) -> None:
    path.write_bytes(whole)
    wanted = Tracker(model, ROOM)
    wanted.load_state(path)
    mine, theirs = found._lane, wanted._lane
    assert mine.loaded is not None
    assert theirs.loaded is not None
    assert (mine.points.next_id, mine.frames) == (theirs.points.next_id, theirs.frames)
    assert found.ids.tolist() == wanted.ids.tolist()
    for name, tensor in mine.loaded[1].tensors.items():
        assert torch.equal(tensor.nan_to_num(), theirs.loaded[1].tensors[name].nan_to_num())


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)


@HOSTILE
@given(noise=st.binary(max_size=300), keep=st.integers(0, 400))
def test_any_bytes_are_refused_by_name(saved: Path, model: Tapir, noise: bytes, keep: int) -> None:
    whole = saved.read_bytes()
    other = saved.with_name("other")
    other.write_bytes(whole[:keep] + noise)
    refusal(Tracker(model, ROOM), other)


@HOSTILE
@given(
    name=st.sampled_from(["config", "weights", "dtype", "resolutions", "frames", "next_id", "labels", "objects"]),
    value=NESTED,
)
def test_any_run_is_read_or_refused_by_name(saved: Path, model: Tapir, name: str, value: Any) -> None:
    other = saved.with_name("other")
    other.write_bytes(saved.read_bytes())
    with_run(other, **{name: value})
    with suppress(StateError):
        Tracker(model, ROOM).load_state(other)


@HOSTILE
@given(
    name=st.sampled_from(["ids", "memory", "recent.age", "waiting_xy", "__metadata__"]),
    part=st.sampled_from(["dtype", "shape", "data_offsets", "run", "crc32"]),
    value=NESTED | st.sampled_from(["F4", "F8_E8M0", "U64", "C64", "BOOL", [2**63], [0, 2**62], [-1]]),
)
def test_any_header_is_refused_by_name(saved: Path, model: Tapir, name: str, part: str, value: Any) -> None:
    whole = saved.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    header[name][part] = value
    packed = json.dumps(header).encode()
    other = saved.with_name("other")
    other.write_bytes(len(packed).to_bytes(8, "little") + packed + whole[end:])
    with suppress(StateError):
        Tracker(model, ROOM).load_state(other)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_leaves_what_was_there(
    saved: Path, model: Tapir, make_frames: MakeFrames, tmp_path: Path
) -> None:
    whole = saved.read_bytes()
    tracker = started(model)
    tracker.step(make_frames(1, HEIGHT, WIDTH)[0])
    with files_no_larger_than(1000), pytest.raises(StateError, match=r"cannot be saved to .*File too large"):
        tracker.save_state(saved)
    assert saved.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["points"]
    with pytest.raises(StateError, match="No such file or directory"):
        tracker.save_state(tmp_path / "gone" / "points")


def test_a_state_is_put_in_place_once_it_is_whole_and_on_the_disk(
    saved: Path, model: Tapir, make_frames: MakeFrames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = saved.read_bytes(), list[bytes]()

    def fsync(file: int) -> None:
        seen.append(saved.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    tracker = started(model)
    tracker.step(make_frames(1, HEIGHT, WIDTH)[0])
    tracker.save_state(saved)
    new = saved.read_bytes()
    assert new != whole
    assert seen == [whole, new]  # of the file beside it, then of the folder
    assert [path.name for path in tmp_path.iterdir()] == ["points"]


def test_a_place_is_checked_before_there_is_anything_to_write(tmp_path: Path, saved: Path) -> None:
    state_file.check_place(saved)
    state_file.check_place(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["points"]
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path / "notes.txt", tmp_path, Path()):
        with pytest.raises(StateError, match="exists and is not a saved state"):
            state_file.check_place(path)
    for path in (tmp_path / "gone" / "points", tmp_path / ("long" * 100)):
        with pytest.raises(StateError, match="cannot be saved to"):
            state_file.check_place(path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StateError, match="Permission denied"):
        state_file.check_place(tmp_path / "points")
