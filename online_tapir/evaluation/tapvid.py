"""Reads TAP-Vid files (arXiv 2211.03726), pickle or npz, as videos to evaluate on; never runs code from a file.

Videos are resized to 256x256, as in the published protocol. A causal tracker can be scored on query-first queries. With
strided queries the protocol also scores the frames before a query, which a live tracker cannot track. `evaluate` leaves
them out, so strided scores are comparable with each other, but not with published ones.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from online_tapir.errors import ConfigError
from online_tapir.evaluation.scores import SCORED_SIZE
from online_tapir.evaluation.videos import Video
from online_tapir.model import safe_pickle

STRIDE = 5  # frames between strided queries

_Entry = tuple[str, NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]


def query_first_videos(path: Path) -> Iterator[Video]:
    """The videos of a TAP-Vid file at 256x256, each point queried on its first visible frame.

    The file is a pickle (a dict or list of videos, each with `video` uint8 [T, H, W, 3] or T JPEGs, `points` [N, T, 2]
    in [0, 1] and `occluded` [N, T]) or an npz of one such video, or of several as `name/video` and so on. Points that
    are never visible are left out, as in the published protocol. The file is read when the first video is requested.
    Raises ConfigError for a file that is missing, has another structure, or needs more than arrays, text and numbers.
    """
    for name, frames, xy, visible in _videos(path):
        shown = visible.any(axis=1)  # [N]
        xy, visible = xy[shown], visible[shown]
        yield Video(name, frames, xy, visible, visible.argmax(axis=1))


def strided_videos(path: Path) -> Iterator[Video]:
    """The same videos, each point queried on those of frames 0, 5, 10, ... that show it; one track per query."""
    for name, frames, xy, visible in _videos(path):
        queries = [(n, t) for t in range(0, len(frames), STRIDE) for n in np.flatnonzero(visible[:, t]).tolist()]
        points, query_frame = np.array(queries, np.int64).reshape(-1, 2).T  # [N], [N]
        yield Video(name, frames, xy[points], visible[points], query_frame)


def _videos(path: Path) -> Iterator[_Entry]:
    """Name, frames [T, 256, 256, 3], xy [N, T, 2] in their pixels and visible [N, T] of each video in a file."""
    if not path.is_file():
        raise ConfigError(f"no TAP-Vid file {path}; give a .pkl or .npz file")
    for name, entry in (_read_npz(path) if path.suffix == ".npz" else _read_pickle(path)).items():
        if not isinstance(entry, dict) or not {"video", "points", "occluded"} <= entry.keys():
            raise ConfigError(f"{path}: {name} is not a TAP-Vid video; it needs `video`, `points` and `occluded`")
        points = _numbers(path, name, "points", entry["points"])
        occluded = _numbers(path, name, "occluded", entry["occluded"])
        frames = _frames(path, name, entry["video"])
        if occluded.ndim != 2 or points.shape != (*occluded.shape, 2) or occluded.shape[1] != len(frames):
            raise ConfigError(
                f"{path}: {name} has {len(frames)} frames, points {list(points.shape)} and occluded "
                f"{list(occluded.shape)}; TAP-Vid's are [N, T, 2] and [N, T]"
            )
        yield name, frames, (points * SCORED_SIZE).astype(np.float32), ~occluded.astype(bool)


def _read_npz(path: Path) -> dict[str, Any]:
    """Video name -> its arrays; numpy reads them without unpickling."""
    videos: dict[str, dict[str, Any]] = {}
    if not zipfile.is_zipfile(path):  # numpy would also read a bare array or a pickle with this suffix
        raise ConfigError(f"{path} cannot be read as an npz: it is not a zip archive; give a TAP-Vid file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                name, _, kind = key.rpartition("/")
                videos.setdefault(name or path.stem, {})[kind] = archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} cannot be read as an npz of plain arrays: {error}; give a TAP-Vid file") from error
    return videos


def _read_pickle(path: Path) -> dict[str, Any]:
    """Video name -> its entry."""
    try:
        with path.open("rb") as file:
            held = safe_pickle.load(file)
    except safe_pickle.RefusedPickleError as error:
        raise ConfigError(f"{path}: {error}; give a TAP-Vid file") from error
    except Exception as error:  # a damaged pickle can raise any exception
        raise ConfigError(f"{path} cannot be read as a pickle: {error!r}; give a TAP-Vid file") from error
    if isinstance(held, dict):
        return {str(name): entry for name, entry in held.items()}
    if isinstance(held, list | tuple):
        return {f"{path.stem} {i}": entry for i, entry in enumerate(held)}
    raise ConfigError(f"{path} holds a {type(held).__name__}, not a dict or list of videos; give a TAP-Vid file")


def _numbers(path: Path, name: str, kind: str, value: Any) -> NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise ConfigError(f"{path}: the {kind} of {name} are not an array of numbers, as TAP-Vid's are")
    return value


def _frames(path: Path, name: str, video: Any) -> NDArray[np.uint8]:
    """The frames [T, 256, 256, 3] of a TAP-Vid video, from uint8 [T, H, W, 3] or from T encoded pictures."""
    if not isinstance(video, list | tuple | np.ndarray) or not len(video):
        raise ConfigError(f"{path}: the video of {name} is neither frames [T, H, W, 3] nor a list of encoded pictures")
    pictures = [picture if isinstance(picture, np.ndarray) else _decode(path, name, picture) for picture in video]
    if any(picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 for picture in pictures):
        found = f"{pictures[0].dtype} {list(pictures[0].shape)}"
        raise ConfigError(f"{path}: a frame of {name} is {found}; TAP-Vid's are uint8 [H, W, 3]")
    return np.stack([_at_scored_size(picture) for picture in pictures])


def _decode(path: Path, name: str, encoded: Any) -> NDArray[np.uint8]:
    """RGB [H, W, 3] of a JPEG or PNG."""
    raw = encoded.encode("latin1") if isinstance(encoded, str) else encoded  # str: from a Python 2 pickle
    picture = None
    if isinstance(raw, bytes) and raw:
        picture = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ConfigError(f"{path}: a frame of {name} is not a picture that can be decoded; TAP-Vid's are JPEGs")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _at_scored_size(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if rgb.shape[:2] == (SCORED_SIZE, SCORED_SIZE):
        return rgb
    shrinks = min(rgb.shape[:2]) >= SCORED_SIZE
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(rgb, (SCORED_SIZE, SCORED_SIZE), interpolation=way).astype(np.uint8, copy=False)
