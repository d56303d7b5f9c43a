"""Saves what a tracker knows of its points between two frames, to resume after a restart.

One .safetensors file, of version 1; nothing in it is executed. Its metadata:

    format, version  "online-tapir/state", "1"; any other version is refused
    run              JSON: config, weights, dtype, resolutions (see `Origin`), frame_id, frames, next_id, saved_unix_ns,
                     labels ([[id, name, group, colour, template it is searched by], ...]; older files have
                     none, or no template), waiting_size (height and width of the picture of waiting_xy, or null;
                     older files have none), objects (by group, the fields of its `ObjectReference`; older files have
                     none)
    crc32            of `run` and the bytes of all tensors, in the order of their names

Its tensors: `ids` int32 [N], `waiting_ids` int32 [M] and `waiting_xy` float32 [M, 2] of points that were added for the
next frame, which never came; and those of a `TrackState` of N rows, under the same names. Pictures and their features
are not saved.
"""

import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from online_tapir.errors import StateError
from online_tapir.files import beside, replacing
from online_tapir.limits import LEAST_INPUT, MOST_INPUT
from online_tapir.model.config import Size, TapirConfig
from online_tapir.model.digest import content
from online_tapir.model.state import TrackState
from online_tapir.records import Label, ObjectReference

FORMAT, VERSION = "online-tapir/state", "1"
MOST_RESOLUTIONS = 16  # to refine points at; more than any frame size needs
MOST_IDS = 2**31 - 1
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int32: "I32"}


@dataclass(frozen=True, slots=True)
class Origin:
    """The model and settings that made a state; it can only be resumed with the same."""

    config: TapirConfig
    weights: str  # SHA-256, see `model.digest`
    dtype: str
    resolutions: tuple[Size, ...] | None  # to refine points at; None: not known before the first frame


@dataclass(frozen=True, slots=True, eq=False)
class SavedState:
    """A tracker's points and counters. Tensors are on the host."""

    origin: Origin
    frame_id: int  # the last tracked; a resumed run numbers its frames anew
    frames: int  # tracked so far; their parity is the phase of the mixer's memory
    next_id: int
    ids: NDArray[np.int32]  # [N] the id of each row
    state: TrackState  # N rows
    waiting_ids: NDArray[np.int32]  # [M]
    waiting_xy: NDArray[np.float32]  # [M, 2] pixels of a picture of `waiting_size`
    waiting_size: Size | None = None  # height, width; None: of the next frame, whatever its size
    saved_unix_ns: int = field(default_factory=time.time_ns)
    labels: Mapping[int, Label] = field(default_factory=dict)  # by id
    objects: Mapping[str, ObjectReference] = field(default_factory=dict)  # by group

    @property
    def points(self) -> int:
        return len(self.ids) + len(self.waiting_ids)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by their names in the file."""
        own = {"ids": self.ids, "waiting_ids": self.waiting_ids, "waiting_xy": self.waiting_xy}
        return {**self.state.tensors, **{name: torch.from_numpy(array) for name, array in own.items()}}


def write(path: Path, saved: SavedState) -> None:
    """Writes a state atomically and syncs it to disk. If that fails, raises StateError and keeps the old file."""
    head = {name: getattr(saved, name) for name in ("frame_id", "frames", "next_id", "saved_unix_ns", "waiting_size")}
    labels = [[id, label.name, label.group, label.color, label.sought] for id, label in saved.labels.items()]
    objects = {name: {**asdict(one), "xy": one.xy.tolist()} for name, one in saved.objects.items()}
    run = json.dumps({**asdict(saved.origin), **head, "labels": labels, "objects": objects})
    tensors = saved.tensors
    metadata = {"format": FORMAT, "version": VERSION, "run": run, "crc32": _checksum(run, tensors)}
    content = save(tensors, metadata)
    try:
        with replacing(path, sync=True) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise StateError(f"the points cannot be saved to {path}: {error.strerror or error}") from error


def check_place(path: Path) -> None:
    """Raises StateError if a state cannot be written to `path`, or if the file there is not one."""
    partial = beside(path)
    try:
        if path.exists() and not (path.is_file() and _is_state(path)):
            raise StateError(f"{path} exists and is not a saved state; name another file to save the points to")
        partial.open("wb").close()
        partial.unlink()
    except OSError as error:
        raise StateError(f"the points cannot be saved to {path}: {error.strerror or error}") from error


def input_of(path: Path) -> Size | None:
    """The input size (height, width) of the model that made a state; None for a file that `read` would refuse."""
    try:
        with safe_open(path, framework="pt") as file:
            height, width = map(_whole, _read_run(path, file.metadata() or {})["config"]["initial_resolution"])
    except (OSError, SafetensorError, StateError, LookupError, TypeError, ValueError, RecursionError):
        return None
    return (height, width) if LEAST_INPUT <= min(height, width) <= max(height, width) <= MOST_INPUT else None


def read(path: Path, wanted: Origin, room: int) -> SavedState:
    """Reads a state for a tracker of origin `wanted`, with room for `room` points.

    Raises StateError for a file that is missing, damaged, of another version or origin, or with more points.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            run = _read_run(path, metadata)
            origin = _check_origin(path, run, wanted)
            _check_shapes(path, file, origin, room)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise StateError(f"there is no saved state {path}; check the path") from error
    except (SafetensorError, OSError, RecursionError) as error:
        raise StateError(f"{path} is not a valid state ({error}); take an older one, or begin without it") from error
    if metadata.get("crc32") != _checksum(metadata["run"], tensors):
        raise _damaged(path, "its checksum does not match")
    return _check_content(path, origin, run, tensors)


def _read_run(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of the run, with the right types."""
    if metadata.get("format") != FORMAT:
        raise StateError(f"{path} is a safetensors file, but not a saved state; give one that --save-state wrote")
    if metadata.get("version") != VERSION:
        found = metadata.get("version", "none")[:40]
        raise StateError(f"{path} has format version {found}, this program reads {VERSION}; upgrade it")
    try:
        run = json.loads(metadata["run"])
        counts = {name: _whole(run[name]) for name in ("frame_id", "frames", "next_id", "saved_unix_ns")}
        resolutions = tuple((_whole(height), _whole(width)) for height, width in run["resolutions"])
        if not isinstance(run["config"], dict):
            raise TypeError(f"a {type(run['config']).__name__} is not a configuration")
        labels = {_whole(id): _label(*rest) for id, *rest in run.get("labels", [])}
        size = run.get("waiting_size")
        waiting_size = None if size is None else (_side(size[0]), _side(size[1]))
        objects = {name: _reference(**one) for name, one in dict(run.get("objects", {})).items()}
        known = {"config": run["config"], "weights": str(run["weights"]), "dtype": str(run["dtype"])}
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise _damaged(path, f"its metadata is invalid ({str(error)[:80]})") from error
    if not 0 < len(resolutions) <= MOST_RESOLUTIONS or counts["next_id"] > MOST_IDS:
        raise _damaged(path, f"{len(resolutions)} resolutions, {counts['next_id']} ids")
    told = {"labels": labels, "objects": objects, "waiting_size": waiting_size}
    return {**known, **counts, **told, "resolutions": resolutions}


def _label(name: object, group: object, color: object, sought: object = "") -> Label:
    texts = isinstance(name, str) and isinstance(group, str) and isinstance(sought, str)
    if not (texts and (color is None or isinstance(color, int))):
        raise TypeError(f"{_shown([name, group, color, sought])} is no label")
    return Label(str(name), str(group), color, str(sought))


def _reference(ids: Any, xy: Any, corners: Any, size: Any, lens: Any) -> ObjectReference:
    places = np.array(xy, np.float32).reshape(-1, 2)
    width, height = size
    known = tuple(map(_whole, ids))
    if not (len(set(known)) == len(known) == len(places) and np.isfinite(places).all()):
        raise ValueError(f"{_shown([ids, xy])} are no points")
    return ObjectReference(
        known, places, tuple(map(_whole, corners)), (_side(width), _side(height)), tuple(map(float, lens))
    )


def _check_origin(path: Path, run: Mapping[str, Any], wanted: Origin) -> Origin:
    """`wanted`, with the resolutions of the file. Raises StateError naming the first difference."""
    ours, usual = (json.loads(json.dumps(asdict(config))) for config in (wanted.config, TapirConfig()))
    theirs = {**usual, **run["config"]}  # settings that are newer than the file had their defaults
    compared = {*ours, *theirs} - {"visible_above"}  # says what is reported of a state, and changes nothing in it
    differing = sorted(name for name in compared if ours.get(name) != theirs.get(name))
    if "name" in differing:
        what = f"model {_shown(theirs['name'])}, but this is {_shown(ours['name'])}"
    elif differing:
        name = differing[0]
        what = f"a model with {name} {_shown(theirs.get(name))}, but here it is {_shown(ours.get(name))}"
        if run["weights"] != wanted.weights:
            what = f"other weights, of {what}"
    elif run["dtype"] != wanted.dtype:
        what = f"{_shown(run['dtype'])}, but this computes in {wanted.dtype!r}"
    elif run["weights"] != wanted.weights:
        what = f"other weights of model {_shown(ours['name'])}"
    else:
        if wanted.resolutions is not None:
            check_resolutions(run["resolutions"], wanted.resolutions)
        return replace(wanted, resolutions=run["resolutions"])
    raise StateError(f"{path} is a state of {what}; start with the same model and options, or begin without it")


def check_resolutions(saved: tuple[Size, ...], wanted: tuple[Size, ...]) -> None:
    """Raises StateError if points would be refined at other resolutions than before."""
    if saved != wanted:
        theirs, ours = (", ".join(f"{width}x{height}" for height, width in sizes) for sizes in (saved, wanted))
        raise StateError(
            f"the saved points were refined at {theirs}, but here at {ours}; choose the same --resolution "
            f"(`frame` follows the camera's size), or begin without it"
        )


def _check_shapes(path: Path, file: Any, origin: Origin, room: int) -> None:
    """Raises StateError unless the tensors are those of a state, of the right types and shapes; reads none of them."""
    found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    found = {name: (tensor.get_dtype(), tuple(tensor.get_shape())) for name, tensor in found.items()}
    points, waiting = (found.get(name, ("", ()))[1] for name in ("ids", "waiting_ids"))
    if len(points) != 1 or len(waiting) != 1:
        raise _damaged(path, "it has no ids")
    if points[0] + waiting[0] > room:
        raise StateError(
            f"{path} has {points[0] + waiting[0]} points, but there is room for {room}; raise --max-points to resume"
        )
    dtype = getattr(torch, origin.dtype)
    meta = torch.device("meta")
    state = TrackState.empty(origin.config, len(origin.resolutions or ()), points[0], meta, dtype)
    wanted = {name: (DTYPES[tensor.dtype], tuple(tensor.shape)) for name, tensor in state.tensors.items()}
    wanted |= {"ids": ("I32", points), "waiting_ids": ("I32", waiting), "waiting_xy": ("F32", (*waiting, 2))}
    for name in sorted({*wanted, *found}):
        if found.get(name) != wanted.get(name):
            raise _damaged(path, f"its {name[:40]} is {found.get(name, 'missing')}, not {wanted.get(name, 'there')}")


def _check_content(path: Path, origin: Origin, run: Mapping[str, Any], tensors: dict[str, Tensor]) -> SavedState:
    """The state, if all its values are valid; otherwise raises StateError."""
    ids, waiting_ids, waiting_xy = (tensors.pop(name).numpy() for name in ("ids", "waiting_ids", "waiting_xy"))
    state = TrackState.of(tensors)
    if not (state.sound().all() and np.isfinite(waiting_xy).all()):
        raise _damaged(path, "it has numbers that are not finite")
    every = np.concatenate([ids, waiting_ids])
    if len(np.unique(every)) < len(every) or (len(every) and not 0 <= every.min() <= every.max() < run["next_id"]):
        raise _damaged(path, "its ids are repeated or out of range")
    return SavedState(
        origin,
        run["frame_id"],
        run["frames"],
        run["next_id"],
        ids,
        state,
        waiting_ids,
        waiting_xy,
        run["waiting_size"],
        run["saved_unix_ns"],
        {id: label for id, label in run["labels"].items() if id in every},
        run["objects"],
    )


def _is_state(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except SafetensorError:
        return False


def _checksum(run: str, tensors: Mapping[str, Tensor]) -> str:
    found = zlib.crc32(run.encode())
    for name in sorted(tensors):
        found = zlib.crc32(content(tensors[name]), found)
    return f"{found:08x}"


def _side(value: Any) -> int:
    side = _whole(value)
    if not side:
        raise ValueError("a picture has no pixels")
    return side


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{_shown(value)} is not a non-negative integer")
    return value


def _shown(value: object) -> str:
    return repr(value)[:80]


def _damaged(path: Path, why: str) -> StateError:
    return StateError(f"{path} is damaged: {why}; take an older one, or begin without it")
