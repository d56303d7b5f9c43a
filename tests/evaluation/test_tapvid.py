"""TAP-Vid files are read as their protocols say, and nothing in one is ever run."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from online_tapir.errors import ConfigError
from online_tapir.evaluation.tapvid import query_first_videos, strided_videos

FRAMES = 7


def entry(height: int = 33, width: int = 47, seed: int = 0) -> dict[str, Any]:
    """Three points: one seen from the start, one from frame 2 on with a gap, one never."""
    rng = np.random.default_rng(seed)
    occluded = np.zeros((3, FRAMES), bool)
    occluded[1, [0, 1, 5]] = True
    occluded[2] = True
    return {
        "video": rng.integers(0, 256, (FRAMES, height, width, 3), np.uint8),
        "points": rng.uniform(0, 1, (3, FRAMES, 2)).astype(np.float32),
        "occluded": occluded,
    }


def dumped(path: Path, held: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Path:
    path.write_bytes(pickle.dumps(held, protocol))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        list(query_first_videos(path))
    assert path.name in str(refused.value)
    return str(refused.value)


def test_query_first_asks_where_a_point_is_first_seen_and_leaves_out_what_never_is(tmp_path: Path) -> None:
    truth = entry()
    (video,) = query_first_videos(dumped(tmp_path / "davis.pkl", {"goat": truth}))
    assert video.name == "goat"
    assert video.query_frame.tolist() == [0, 2]
    assert video.frames.shape == (FRAMES, 256, 256, 3)
    assert np.allclose(video.xy, truth["points"][:2] * 256)
    assert (video.visible == ~truth["occluded"][:2]).all()


def test_strided_asks_on_every_fifth_frame_that_shows_a_point(tmp_path: Path) -> None:
    truth = entry()
    (video,) = strided_videos(dumped(tmp_path / "davis.pkl", {"goat": truth}))
    # Frame 0 shows the first point; frame 5 shows the first alone, as the second is hidden there.
    assert video.query_frame.tolist() == [0, 5]
    assert np.allclose(video.xy, truth["points"][[0, 0]] * 256)
    truth["occluded"][1, 5] = False
    (video,) = strided_videos(dumped(tmp_path / "davis.pkl", {"goat": truth}))
    assert video.query_frame.tolist() == [0, 5, 5]
    assert np.allclose(video.xy, truth["points"][[0, 0, 1]] * 256)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol_tells_the_same(tmp_path: Path, protocol: int) -> None:
    truth = entry(256, 256)
    truth["points"] = np.asfortranarray(truth["points"])
    (video,) = query_first_videos(dumped(tmp_path / "davis.pkl", {"goat": truth}, protocol))
    assert (video.frames == truth["video"]).all()
    assert np.array_equal(video.xy, truth["points"][:2] * np.float32(256))


@pytest.mark.parametrize("wrap", [list, tuple, lambda jpegs: np.array(jpegs, object), lambda jpegs: np.array(jpegs)])
@pytest.mark.parametrize("protocol", [2, 5])
def test_a_list_of_videos_of_encoded_pictures_is_read(tmp_path: Path, wrap: Any, protocol: int) -> None:
    truth = entry(256, 256)
    smooth = [cv2.GaussianBlur(frame, (0, 0), 5) for frame in truth["video"]]
    encoded = [cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes() for frame in smooth]
    (video, other) = query_first_videos(
        dumped(tmp_path / "kinetics.pkl", [truth | {"video": wrap(encoded)}, entry()], protocol)
    )
    assert (video.name, other.name) == ("kinetics 0", "kinetics 1")
    assert np.abs(video.frames.astype(int) - np.stack(smooth)).mean() < 3


def test_an_npz_holds_one_video_or_several(tmp_path: Path) -> None:
    truth = entry()
    np.savez(tmp_path / "one.npz", **truth)
    np.savez(tmp_path / "two.npz", **{f"{name}/{kind}": truth[kind] for name in ("goat", "bus") for kind in truth})
    assert [video.name for video in query_first_videos(tmp_path / "one.npz")] == ["one"]
    assert [video.name for video in query_first_videos(tmp_path / "two.npz")] == ["goat", "bus"]


class Trap:
    """Touches a file when unpickled the ordinary way."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.touched,)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    touched = tmp_path / "touched"
    path = dumped(tmp_path / "trap.pkl", {"goat": entry() | {"video": Trap(touched)}}, protocol)
    assert "as pickles can run code" in refusal(path)
    assert not touched.exists()
    pickle.loads(path.read_bytes())
    assert touched.exists()  # the trap was a real one


@pytest.mark.parametrize(
    "name", ["os system", "builtins eval", "numpy load", "numpy.f2py.capi_maps eval", "codecs encode"]
)
def test_no_function_of_python_or_numpy_can_be_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "trap.pkl"
    path.write_bytes(b"c" + name.replace(" ", "\n").encode() + b"\n(S'1'\ntR.")
    assert name.replace(" ", ".") in refusal(path)


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ({"goat": OrderedDict()}, "collections.OrderedDict"),
        ({"goat": np.zeros(3, "f4,f4")}, "only plain numbers"),
        ({"goat": np.zeros(3, "M8[s]")}, "only plain numbers"),
        ({"goat": {"video": [], "points": []}}, "it needs `video`, `points` and `occluded`"),
        ("goat", "holds a str, not a dict or list"),
        ({"goat": entry() | {"video": []}}, "neither frames"),
        ({"goat": entry() | {"video": [b"no picture"] * FRAMES}}, "not a picture that can be decoded"),
        ({"goat": entry() | {"video": [7] * FRAMES}}, "not a picture that can be decoded"),
        ({"goat": entry() | {"video": np.zeros((FRAMES, 33, 47, 3), np.float32)}}, "float32 [33, 47, 3]"),
        ({"goat": entry() | {"points": np.zeros((3, FRAMES + 1, 2))}}, "TAP-Vid's are [N, T, 2] and [N, T]"),
        ({"goat": entry() | {"occluded": np.array(True)}}, "TAP-Vid's are [N, T, 2] and [N, T]"),
        ({"goat": entry() | {"occluded": True}}, "the occluded of goat are not an array of numbers"),
        (
            {"goat": entry() | {"points": np.array([["0.5"] * FRAMES])}},
            "the points of goat are not an array of numbers",
        ),
    ],
)
def test_a_file_that_is_not_tapvid_is_refused_by_what_is_wrong(tmp_path: Path, held: Any, told: str) -> None:
    assert told in refusal(dumped(tmp_path / "odd.pkl", held))


@pytest.mark.parametrize("raw", [b"", b"garbage", b"\x80\x05", pickle.dumps(entry())[:-100]])
def test_a_damaged_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    for name in ("damaged.pkl", "damaged.npz"):
        (tmp_path / name).write_bytes(raw)
        assert "cannot be read as" in refusal(tmp_path / name)


def test_an_npz_with_objects_in_it_is_refused(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    held: NDArray[Any] = np.array([Trap(touched)] * FRAMES, object)
    np.savez(tmp_path / "trap.npz", **(entry() | {"video": held}))
    assert "plain arrays" in refusal(tmp_path / "trap.npz")
    assert not touched.exists()


def test_a_bare_array_that_calls_itself_npz_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "bare.npy", np.zeros(3))
    (tmp_path / "bare.npy").rename(tmp_path / "bare.npz")
    assert "not a zip archive" in refusal(tmp_path / "bare.npz")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "give a .pkl or .npz file" in refusal(tmp_path / "nowhere.pkl")
