"""Fuzz targets: every reader of external input, with its seed inputs and how to mutate them.

A reader may reject input only with one of the project's own errors. `python -m bench.fuzz_targets NAME REPORT ...` is
the process that fuzzes one target (see `bench.fuzz`). Only the targets that need torch load it.
"""

import ctypes
import json
import pickle
import random
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np
import psutil  # type: ignore[import-untyped]

from online_tapir.errors import OnlineTapirError

Read = Callable[[bytes], object]
Spoil = Callable[[bytes, random.Random], bytes]

ODD_VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63 - 1, 2**64 - 1, -(2**63), 0.5, 1e308, float("nan"), float("inf"), "", "x" * 65,
    "\0", b"", b"\0" * 3, b"\xff" * 64, [], [[]], [[1, 2]], [[float("nan"), 0]], [0] * 5000, {}, {"": {}},
]  # fmt: skip
ODD_NUMBERS = (b"0", b"-1", b"1", b"7", b"1e308", b"nan", b"65536", b"4294967296", b"99999999999", b"1" * 40)
MEMORY = 2 * 2**30  # bytes that a reader may allocate on top of the process's own
SETTLED = 0.2  # share of the cases, after which memory is compared


@dataclass(frozen=True, slots=True)
class Target:
    """One reader: `read` rejects input with OnlineTapirError, `seeds` are valid inputs, `spoil` mutates one."""

    read: Read
    seeds: list[bytes]
    spoil: Spoil
    close: Callable[[], None] = lambda: None


@dataclass(slots=True)
class Failure:
    """The first failing case of its kind, and how many there were."""

    what: str
    case_hex: str
    times: int = 1


@dataclass(slots=True)
class Findings:
    """The results of one target so far."""

    cases: int = 0
    refused: int = 0
    slowest_ms: float = 0.0
    rss_mib: list[tuple[int, float]] = field(default_factory=list)  # (cases so far, MiB)
    failures: dict[str, Failure] = field(default_factory=dict)  # by exception type and location

    def take(self, target: Target, case: bytes) -> None:
        """Reads `case`, and records a failure."""
        begun_ns = time.perf_counter_ns()
        try:
            target.read(case)
        except OnlineTapirError:
            self.refused += 1
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}, {where.name})"
            key = f"{type(error).__name__} {where.filename}:{where.lineno}"
            if key in self.failures:
                self.failures[key].times += 1
            else:
                self.failures[key] = Failure(what, case[:4096].hex())
        self.slowest_ms = max(self.slowest_ms, (time.perf_counter_ns() - begun_ns) / 1e6)
        self.cases += 1


def tracks(folder: Path) -> Target:
    from online_tapir.records import Tracks
    from online_tapir.wire import messages as wire

    def seed(count: int) -> bytes:
        arrays = np.arange(count, dtype=np.int32), np.full((count, 2), 7.5, np.float32), np.ones(count, np.bool_)
        half = np.full(count, 0.5, np.float32)
        return wire.encode(Tracks(7, 1, 2, 49, 33, *arrays, half, half, camera="desk", model="small"))

    return Target(wire.decode, [seed(0), seed(1), seed(33)], spoil_message)


def heartbeats(folder: Path) -> Target:
    from online_tapir.wire import messages as wire

    seeds = [wire.encode_heartbeat(wire.Heartbeat("desk", state, 7, 1, 33)) for state in ("stalled", "paused")]
    return Target(wire.decode_heartbeat, seeds, spoil_message)


def requests(folder: Path) -> Target:
    """Passes requests through the server to the commands; any bytes must get an answer."""
    from bench.stub import one_frame_stream
    from online_tapir.control import protocol
    from online_tapir.control.server import ControlServer

    now = iter(range(0, 2**62, 10**9))  # one second per call, so that the budget is always full
    server = ControlServer(f"ipc://{folder}/control", monotonic_ns=lambda: next(now))
    stream = one_frame_stream()
    arguments: dict[str, dict[str, Any]] = {
        "add": {"xy": [[7.5, 1.0]], "frame_id": 0, "normalised": False},
        "remove": {"ids": [0]},
        "replenish": {"on": True, "points": 3},
        "snapshot": {"format": "png"},
        "set": {"heartbeat_s": 1.0, "patience_frames": 7},
    }
    seeds = [
        protocol.encode_request(protocol.Request(command, arguments.get(command, {}), 1, "me"))
        for command in protocol.ARGUMENTS
    ]

    def read(case: bytes) -> None:
        reply = protocol.unpack(server.answer(b"somebody", case, stream), at_most=2**28)
        stream.clear()
        protocol.read_result(reply)  # raises the error in the reply, if there is one
        assert reply["request"] >= 0, reply

    return Target(read, seeds, spoil_message, server.close)


def replies(folder: Path) -> Target:
    from online_tapir.control import protocol
    from online_tapir.control.protocol import ControlError

    seeds = [protocol.encode_result(7, {"ids": [1, 2]}), protocol.encode_error(7, ControlError("no_room", "full"))]
    return Target(lambda case: protocol.read_result(protocol.unpack(case)), seeds, spoil_message)


def csv_points(folder: Path) -> Target:
    from online_tapir.points.placement import read_csv

    seeds = [b"x,y\n1,2\n3.5,4e0\n", b"# note\n7,8\n", b'\xef\xbb\xbfid;\n"y","x"\r\n1,2\r\n']
    return Target(from_file(folder / "points.csv", read_csv), seeds, spoil_text)


def mask_arrays(folder: Path) -> Target:
    from online_tapir.points.placement import read_mask

    arrays = (np.eye(7, dtype=np.bool_), np.ones((1, 33), np.int64), np.zeros((3, 4, 5), np.float32))
    return Target(from_file(folder / "mask.npy", read_mask), [saved(array) for array in arrays], spoil_text)


def mask_images(folder: Path) -> Target:
    import cv2

    from online_tapir.camera.hush import hush
    from online_tapir.points.placement import read_mask

    hush()
    ids = np.arange(33 * 7, dtype=np.uint8).reshape(33, 7)
    kinds = (".png", ".bmp", ".pgm", ".jpg", ".tiff", ".webp")
    seeds = [cv2.imencode(kind, ids)[1].tobytes() for kind in kinds]
    return Target(from_file(folder / "mask.png", read_mask), seeds, spoil_bytes)


def safetensors(folder: Path) -> Target:
    from online_tapir.model import checkpoint
    from online_tapir.testing import tiny_config, tiny_model

    vars(checkpoint)["PRESETS"] = {
        "tiny": tiny_config()
    }  # every preset is built for the advice in an error, and the real ones take a second

    path = folder / "weights.safetensors"
    checkpoint.save_weights(path, tiny_model(), {"note": "none"})
    return Target(from_file(path, checkpoint.inspect), [path.read_bytes()], spoil_safetensors)


def saved_states(folder: Path) -> Target:
    """Accepts any checksum; otherwise no mutated file would get past it."""
    from online_tapir.testing import tiny_model
    from online_tapir.tracking import state_file
    from online_tapir.tracking.tracker import Tracker

    known = vars(state_file)
    checksum, known["_checksum"] = known["_checksum"], lambda run, tensors: "any"
    path = folder / "points.safetensors"
    tracker = Tracker(tiny_model(), max_points=7)
    for xy in ([[3, 3], [9, 9]], [[5, 5]]):
        tracker.add(xy)
        tracker.step(np.zeros((33, 49, 3), np.uint8))
    tracker.add([[7, 7]])
    origin = tracker.save_state(path).origin
    return Target(
        from_file(path, lambda path: state_file.read(path, origin, tracker.max_points)),
        [path.read_bytes()],
        spoil_safetensors,
        lambda: known.update(_checksum=checksum),
    )


def haiku_pickles(folder: Path) -> Target:
    from online_tapir.model import haiku

    held = {"params": {"tapir/conv": {"w": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)}}}
    seeds = [saved(np.array(held, object), protocol) for protocol in (2, 4, 5)]
    return Target(from_file(folder / "weights.npy", haiku.read), seeds, spoil_bytes)


def torch_pickles(folder: Path) -> Target:
    import torch

    from online_tapir.model import checkpoint

    held = BytesIO()
    torch.save({"a": torch.ones(2, 3), "b": torch.zeros(1)}, held)
    seeds = [held.getvalue(), pickle.dumps({"a": 1})]
    return Target(from_file(folder / "weights.pt", checkpoint.read_tensors), seeds, spoil_bytes)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "tracks": tracks,
    "heartbeats": heartbeats,
    "control requests": requests,
    "control replies": replies,
    "CSV points": csv_points,
    "mask arrays": mask_arrays,
    "mask images": mask_images,
    "safetensors": safetensors,
    "saved states": saved_states,
    "Haiku pickles": haiku_pickles,
    "PyTorch pickles": torch_pickles,
}


def from_file(path: Path, reader: Callable[[Path], object]) -> Read:
    """Turns a reader of files into a reader of bytes."""

    def read(case: bytes) -> object:
        path.write_bytes(case)
        return reader(path)

    return read


def saved(array: Any, protocol: int | None = None) -> bytes:
    """An array as .npy; with `protocol`, a pickled object array, as in the public code's releases."""
    file = BytesIO()
    if protocol is None:
        np.save(file, array)
    else:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        pickle.dump(array, file, protocol)
    return file.getvalue()


def spoil_bytes(case: bytes, rng: random.Random) -> bytes:
    """Overwrites, deletes or duplicates a few bytes, and sometimes truncates the rest."""
    spoilt = bytearray(case)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(spoilt) + 1), rng.choice((1, 1, 2, 4, 8, 33))
        change = rng.randrange(4)
        if change == 0:
            spoilt[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
        elif change == 1:
            spoilt[at : at + length] = rng.randbytes(length)
        elif change == 2:
            del spoilt[at : at + length]
        else:
            spoilt[at:at] = spoilt[at : at + length]
    return bytes(spoilt[: rng.randrange(len(spoilt) + 1)] if rng.random() < 0.1 else spoilt)


def spoil_text(case: bytes, rng: random.Random) -> bytes:
    """Replaces a number by an odd one, or mutates as `spoil_bytes` does."""
    numbers = list(re.finditer(rb"\d+", case))
    if not numbers or rng.random() < 0.3:
        return spoil_bytes(case, rng)
    found = rng.choice(numbers)
    return case[: found.start()] + rng.choice(ODD_NUMBERS) + case[found.end() :]


def spoil_message(case: bytes, rng: random.Random) -> bytes:
    """Deletes, changes or adds a value in a msgpack map, with or without a topic; mutates the rest as `spoil_bytes`."""
    topic, zero, packed = case.partition(b"\0") if case.startswith((b"tracks/", b"heartbeat/")) else (b"", b"", case)
    try:
        body = msgpack.unpackb(packed, strict_map_key=False)
    except Exception:  # any error: the case has been mutated before
        return spoil_bytes(case, rng)
    if not isinstance(body, dict) or not body or rng.random() < 0.2:
        return spoil_bytes(case, rng)
    spoil_map(body, rng)
    try:
        return bytes(topic + zero + msgpack.packb(body))
    except (ValueError, TypeError, OverflowError):
        return spoil_bytes(case, rng)


def spoil_map(body: dict[Any, Any], rng: random.Random) -> None:
    """Changes one entry of `body`, possibly nested, in place."""
    key = rng.choice(list(body))
    value = body[key]
    if isinstance(value, dict) and value and rng.random() < 0.7:
        spoil_map(value, rng)
    elif isinstance(value, bytes) and rng.random() < 0.7:
        body[key] = spoil_bytes(value, rng)
    elif rng.random() < 0.2:
        del body[key]
    elif rng.random() < 0.1:
        body[rng.choice(("more", "", 7))] = value
    else:
        body[key] = rng.choice(ODD_VALUES)


def spoil_safetensors(case: bytes, rng: random.Random) -> bytes:
    """Changes a value in the header, usually in its `config` or `run`, or mutates as `spoil_text` does."""
    end = 8 + int.from_bytes(case[:8], "little")
    try:
        header = json.loads(case[8:end])
        told = next(key for key in ("config", "run") if key in header["__metadata__"])
        whole = json.loads(header["__metadata__"][told])
        config = whole["config"] if told == "run" and rng.random() < 0.5 else whole
        assert isinstance(config, dict)
        assert config
    except Exception:  # the case has been mutated before
        return spoil_text(case, rng)
    change = rng.random()
    if change < 0.2:
        return spoil_text(case, rng)
    if change < 0.8:
        name = rng.choice(list(config))
        odd = [one for one in ODD_VALUES if not isinstance(one, bytes)]
        config[name] = rng.choice((*odd, [rng.choice(odd)] * 4, 7, [7, 33]))
        header["__metadata__"][told] = json.dumps(whole)
    else:
        spoil_map(header, rng)
    try:
        packed = json.dumps(header).encode()
    except TypeError:
        return spoil_text(case, rng)
    return len(packed).to_bytes(8, "little") + packed + case[end:]


def watched(findings: Findings, report: Path) -> Iterator[None]:
    """Endless: at most every half second, samples memory and writes all findings to `report`."""
    process, due_ns = psutil.Process(), 0
    while True:
        if time.monotonic_ns() >= due_ns:
            give_back()
            findings.rss_mib.append((findings.cases, round(process.memory_info().rss / 2**20, 2)))
            report.write_text(json.dumps(asdict(findings)), encoding="utf-8")
            due_ns = time.monotonic_ns() + 500_000_000
        yield


def give_back() -> None:
    """Returns freed memory to the system, so that RSS counts only what is in use."""
    with suppress(OSError, AttributeError):  # not glibc, so there is no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def fuzz(name: str, report: Path, flags: list[str]) -> None:
    """Fuzzes one target until libFuzzer ends as `flags` say; does not return."""
    import atheris

    with TemporaryDirectory() as folder:
        with atheris.instrument_imports(include=["online_tapir"]):
            target = TARGETS[name](Path(folder))
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for index, seed in enumerate(target.seeds):
            (corpus / str(index)).write_bytes(seed)
        findings = Findings()
        look = watched(findings, report)
        limit = psutil.Process().memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        def one(case: bytes) -> None:
            findings.take(target, case)
            next(look)

        def mutate(case: bytes, largest: int, seed: int) -> bytes:
            rng = random.Random(seed)
            spoilt = target.spoil(case, rng) if rng.random() < 0.5 else atheris.Mutate(case, largest)
            return bytes(spoilt[:largest])

        atheris.Setup([name, *flags, str(corpus)], one, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    fuzz(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
