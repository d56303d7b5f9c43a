"""Memory that is too small, at every stage that can meet it: what is said then holds, and nothing is done in silence.

Stages are made to fail as torch fails, on a GPU and on a CPU; the last test runs into a real limit.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from online_tapir import load_model
from online_tapir.cli.app import main
from online_tapir.errors import ConfigError
from online_tapir.model import checkpoint
from online_tapir.model.config import PRESETS, TapirConfig
from online_tapir.model.memory import ENCODING, MIB, SHARE, Memory, Need, bytes_a_pixel, memory_of, what_would_fit
from online_tapir.model.tapir import Tapir
from online_tapir.tracking import lanes as lanes_module
from online_tapir.tracking.lanes import Lanes
from online_tapir.tracking.step import BATCHES
from online_tapir.tracking.tracker import Tracker

MakeModel = Callable[..., Tapir]
MakeFrames = Callable[..., list[NDArray[np.uint8]]]
CPU = torch.device("cpu")
ON_A_CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(ON_A_CPU),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    MemoryError("Unable to allocate 2.00 GiB for an array"),
]
NAMES = ["torch", "a CPU", "CUDA", "cuDNN", "numpy"]
DEMO = ("--camera", "demo", "--size", "64x64", "--fps", "0", "--points", "grid:2", "--threads", "1")
ALONE = ("--publish", "off", "--control", "off", "--rerun", "off")
REAL = """
import resource
import numpy as np
from online_tapir import Tracker, load_model
from online_tapir.errors import ConfigError

model = load_model("small")
frame = np.zeros((64, 64, 3), np.uint8)
Tracker(model, max_points=8, window=1).step(frame)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    Tracker(model, max_points=65_536, window=2).step(frame)
except ConfigError as error:
    print(error)
    fit = int(str(error).partition("about ")[2].split()[0])
    Tracker(model, max_points=fit, window=2).step(frame)
"""

every_error = pytest.mark.parametrize("error", ERRORS, ids=NAMES)


def scattered(count: int) -> NDArray[np.float32]:
    return (np.random.default_rng(0).random((count, 2)) * (96, 64)).astype(np.float32)


def failing(error: Exception, after: int = 0, then: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Does as `then` so many times, and raises `error` from then on."""
    calls = iter(range(10**9))

    def fail(*arguments: Any, **named: Any) -> Any:
        if next(calls) >= after or then is None:
            raise error
        return then(*arguments, **named)

    return fail


def free(monkeypatch: pytest.MonkeyPatch, mib: int) -> None:
    for module in (lanes_module, checkpoint):
        monkeypatch.setattr(module, "memory_of", lambda *_, **__: Memory(mib * MIB, 1024 * MIB))


@given(
    asked=st.integers(1, 5000), a_point=st.integers(1, 10**6), frames=st.integers(1, 300),
    side=st.integers(16, 2048), chosen=st.booleans(), mib=st.integers(0, 4096),
)  # fmt: skip
def test_what_is_said_to_fit_does_and_one_more_does_not(
    asked: int, a_point: int, frames: int, side: int, chosen: bool, mib: int
) -> None:
    fixed, pixels = 256 * 256, 256 * 256 + chosen * side * side
    need = Need(points=asked, a_point=a_point, frames=frames, a_pixel=58.0, pixels=pixels, fixed=fixed)

    def taken(points: int, frames: int, pixels: int = pixels) -> float:
        return points * a_point + (frames + ENCODING) * 58.0 * pixels

    room = SHARE * mib * MIB
    said = what_would_fit(need, Memory(mib * MIB, 4096 * MIB), (side, side))
    assert f"{mib} of 4096 MiB free" in said
    if found := re.search(r"about (\d+) points", said):
        count = int(found[1])
        assert taken(count, frames) <= room
        assert count < asked
        assert taken(count + 1, frames) > room or count == asked // 2
    elif found := re.search(r"about (\d+) frames", said):
        assert taken(1, frames) > room or asked == 1
        assert taken(asked, int(found[1])) <= room
    if found := re.search(r"--resolution (\d+)x(\d+)", said):
        assert chosen
        assert int(found[1]) < side
        assert taken(asked, frames, fixed + int(found[1]) * int(found[2])) <= room
    if "about" not in said:
        assert taken(1, frames) > room or asked == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["tiny", *PRESETS])
def test_the_features_of_a_frame_take_what_is_reckoned(
    make_model: MakeModel, tiny_config: TapirConfig, name: str, dtype: torch.dtype
) -> None:
    config = PRESETS.get(name, tiny_config)
    with torch.device("meta"):
        pyramid = Tapir(config).to(dtype).encode_resized([torch.zeros(1, 3, 256, 192, dtype=dtype)])
    taken = sum(level.nbytes for grids in pyramid.grids for level in grids.levels)
    assert taken == bytes_a_pixel(config, dtype) * 256 * 192


@every_error
@pytest.mark.parametrize("stage", ["encode_resized", "describe", "match", "refine"])
def test_a_frame_that_memory_does_not_do_for_ends_with_what_would_fit(
    make_model: MakeModel, make_frames: MakeFrames, monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception
) -> None:
    model, frames = make_model(), make_frames(2)
    tracker = Tracker(model, 33)
    tracker.step(frames[0])
    tracker.add(scattered(7))
    monkeypatch.setattr(model, stage, failing(error))
    free(monkeypatch, 12)
    with pytest.raises(ConfigError, match=r"cpu ran out of memory on a frame: 33 points .* 12 of 1024 MiB free; about"):
        tracker.step(frames[1])


@every_error
def test_a_point_on_a_past_frame_that_there_is_no_memory_to_carry_ends_so_too(
    make_model: MakeModel, make_frames: MakeFrames, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    model, frames = make_model(), make_frames(2)
    tracker = Tracker(model, 33)
    tracker.step(frames[0])
    tracker.add(scattered(7), frame_id=0)
    monkeypatch.setattr(model, "refine", failing(error))
    with pytest.raises(ConfigError, match=r"cpu ran out of memory on a frame: 33 points"):
        tracker.step(frames[1])


@every_error
@pytest.mark.parametrize("mib", [40, 400])
def test_no_room_at_the_start_says_how_many_points_have_it(
    make_model: MakeModel, make_frames: MakeFrames, monkeypatch: pytest.MonkeyPatch, error: Exception, mib: int
) -> None:
    monkeypatch.setattr(Lanes, "_make_step", failing(error))  # on a GPU, the capture of its graphs
    free(monkeypatch, mib)
    with pytest.raises(
        ConfigError, match=rf"making room: 4096 points .* {mib} of 1024 MiB free; about \d+ points"
    ) as said:
        Tracker(make_model(), 4096).step(make_frames(1)[0])
    fit = int(str(said.value).partition("about ")[2].split()[0])
    assert mib / 2 < fit * 0.25 < mib, "a point takes a quarter of a MiB to work on, and little more"


@every_error
def test_points_too_many_to_match_at_once_are_matched_in_batches_to_the_same_tracks(
    make_model: MakeModel,
    make_frames: MakeFrames,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    model, frames = make_model(), make_frames(3)
    roomy, narrow = Tracker(model, 33), Tracker(model, 33)
    for tracker in (roomy, narrow):
        tracker.add(scattered(33))
    expected = [roomy.step(frame) for frame in frames]
    asked: list[int] = []
    match = model.match

    def limited(pyramid: Any, state: Any, *more: Any) -> Any:
        asked.append(len(state.match_queries))
        if asked[-1] > 7:
            raise error
        return match(pyramid, state, *more)

    monkeypatch.setattr(model, "match", limited)
    for frame, wanted in zip(frames, expected, strict=True):
        found = narrow.step(frame)
        np.testing.assert_allclose(found.xy, wanted.xy, atol=1e-4, rtol=0)
        np.testing.assert_array_equal(found.visible, wanted.visible)
    assert asked == [33, 5, 5, 5, 5, 5, 5, 3] * 3, f"once at one go, once in {BATCHES} parts"
    assert caplog.text.count("out of memory while matching 33 points; matching them 5 at a time") == 3


def test_another_error_is_not_taken_for_memory(
    make_model: MakeModel, make_frames: MakeFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    tracker = Tracker(model, 33)
    tracker.add(scattered(7))
    calls: list[int] = []
    monkeypatch.setattr(model, "match", lambda *_: calls.append(1) or failing(RuntimeError("a kernel is broken"))())
    with pytest.raises(RuntimeError, match="a kernel is broken"):
        tracker.step(make_frames(1)[0])
    assert len(calls) == 1


@every_error
def test_a_model_that_does_not_fit_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(Tapir, "to", failing(error))
    free(monkeypatch, 3)
    with pytest.raises(ConfigError, match=r"'small' takes \d+\.\d MiB .* cpu has 3 of 1024 MiB free: .* --device"):
        load_model("small", device="cpu")


def test_a_device_that_has_no_memory_at_all_is_not_said_to_lack_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "zeros", failing(ERRORS[0]))
    with pytest.raises(ConfigError, match="cpu has no free memory; stop other programs that use it"):
        load_model("small", device="cpu")


@pytest.mark.parametrize(
    ("stage", "frames", "said"),
    [
        ("to", 0, "'small' takes"),
        ("encode_resized", 0, "cpu ran out of memory"),  # in the warm-up
        ("match", 15, "cpu ran out of memory on a frame: 256 points"),
        ("refine", 15, "cpu ran out of memory on a frame: 256 points"),
    ],
)
def test_a_run_ends_with_one_sentence_and_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str, frames: int, said: str
) -> None:
    monkeypatch.setattr(Tapir, stage, failing(RuntimeError(ON_A_CPU), frames, getattr(Tapir, stage)))
    with pytest.raises(SystemExit) as end:
        main([*DEMO, *ALONE, "--frames", "33", "--device", "cpu", "--quiet"])
    printed = capsys.readouterr()
    assert end.value.code == 2
    assert said in " ".join(printed.err.split())
    assert "Traceback" not in printed.err + printed.out


def test_what_a_gpu_has_is_what_is_free_and_what_this_process_holds_but_for_its_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 * MIB, 1000 * MIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50 * MIB)
    assert memory_of(torch.device("cuda:0"), model=20 * MIB, held=7) == (130 * MIB, 1000 * MIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", failing(ERRORS[2]))
    assert memory_of(torch.device("cuda:0"), model=0, held=0) is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="what a system has free is read from /proc")
def test_what_a_system_has_is_no_more_than_its_memory() -> None:
    found = memory_of(CPU, model=0, held=0)
    assert found is not None
    assert 0 < found.free < found.total


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="what a process has is read from /proc")
def test_under_a_real_limit_as_many_points_as_are_said_to_fit_do() -> None:
    ended = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"cpu ran out of memory making room: 65536 points .* about \d+ points would fit", ended.stdout)


@every_error
def test_frames_in_flight_go_with_the_memory_that_ran_out(
    make_model: MakeModel, make_frames: MakeFrames, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    model, frames = make_model(), make_frames(4)
    tracker = Tracker(model, 8)
    tracker.add(scattered(2))
    tracker.step(frames[0])
    tracker.submit(frames[1])
    with monkeypatch.context() as patched:
        patched.setattr(model, "encode_resized", failing(error))
        with pytest.raises(ConfigError, match="ran out of memory on a frame"):
            tracker.submit(frames[2])
    assert (tracker.in_flight, len(tracker.ids)) == (0, 0)
    with pytest.raises(RuntimeError, match="no frame was submitted"):
        tracker.collect()
    ids = tracker.add(scattered(3))
    tracks = tracker.step(frames[3])
    assert (tracks.frame_id, tracks.ids.tolist()) == (2, ids.tolist())


def test_a_state_that_there_is_no_memory_to_save_leaves_no_frame_in_flight(
    make_model: MakeModel, make_frames: MakeFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, frames = make_model(), make_frames(2)
    tracker = Tracker(model, 8)
    tracker.step(frames[0])
    tracker.submit(frames[1])
    tracker.add(scattered(2), frame_id=0)  # carried through the window when the state is saved
    monkeypatch.setattr(model, "refine", failing(MemoryError()))
    with pytest.raises(ConfigError, match="ran out of memory"):
        tracker.saved_state()
    assert tracker.in_flight == 0
