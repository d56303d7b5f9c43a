"""Running out of memory: recognises the error, measures what is free, and estimates how much of a tracker would fit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from online_tapir.errors import MemoryFullError
from online_tapir.model.config import LOWRES_STRIDE, Size, TapirConfig

MIB = 2**20
SHARE = 0.8  # of the free memory that a tracker may use; the rest is for allocator overhead and images
WORK_PER_POINT = 256 * 1024  # bytes of working memory a point, mostly for cost maps; its state is extra
ENCODING = 5  # the widest activations of the encoder take as much as the features of this many frames
# Error messages of torch on a CPU, CUDA's libraries and Triton; torch.OutOfMemoryError is a RuntimeError, too.
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


class Memory(NamedTuple):
    """The memory of a device, in bytes."""

    free: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a tracker needs for its points and frames, in bytes.

    `pixels` counts a frame's pixels at all its resolutions. Of these, `fixed` are at the model's initial resolution,
    which every frame is encoded at.
    """

    points: int
    a_point: int
    frames: int
    a_pixel: float
    pixels: int
    fixed: int

    @property
    def a_frame(self) -> float:
        return self.a_pixel * self.pixels

    def points_within(self, room: float) -> int:
        """How many points fit with the frames. Half if the estimate says that all fit, since in fact they did not."""
        fit = int((room - (self.frames + ENCODING) * self.a_frame) // self.a_point)
        return max(fit, 0) if fit < self.points else self.points // 2

    def frames_within(self, room: float) -> int:
        """How many frames fit with the points. Half if the estimate says that all fit, since in fact they did not."""
        fit = int((room - self.points * self.a_point) // self.a_frame) - ENCODING
        return max(fit, 0) if fit < self.frames else self.frames // 2

    def side_within(self, room: float) -> float:
        """Factor on the sides of the pixels that are not `fixed` that makes everything fit; 0 if none does.

        A half if the estimate says that everything fits already, since in fact it did not.
        """
        if self.pixels == self.fixed:
            return 0.0
        pixels = (room - self.points * self.a_point) / ((self.frames + ENCODING) * self.a_pixel)
        share = max(pixels - self.fixed, 0.0) / (self.pixels - self.fixed)
        return float(share**0.5) if share < 1 else 0.5


def bytes_a_pixel(config: TapirConfig, dtype: torch.dtype) -> float:
    """Bytes of a frame's features per pixel of the resolution that it is encoded at."""
    strides = (2, 4, 8, 8)  # of the backbone's groups
    described = zip(config.described_by, config.described_channels, strict=True)
    levels = range(1, config.pyramid_levels + 1)
    pooled = sum(config.lowres_channels / (LOWRES_STRIDE << level) ** 2 for level in levels)
    return dtype.itemsize * (pooled + sum(channels / strides[group] ** 2 for group, channels in described))


def what_would_fit(need: Need, memory: Memory | None, largest: Size) -> str:
    """Describes how many points or frames would fit, or at which resolution; `largest` is the current one."""
    if memory is None:
        return "an unknown amount free"
    room = memory.free * SHARE
    points, frames, side = need.points_within(room), need.frames_within(room), need.side_within(room)
    height, width = (int(pixels * side) // LOWRES_STRIDE * LOWRES_STRIDE for pixels in largest)
    fits = [f"{points} points would fit"] if points else [f"{frames} frames would fit"] if frames else []
    if min(height, width) >= 2 * LOWRES_STRIDE:
        fits.append(f"all of them at --resolution {width}x{height}")
    free = f"{memory.free / MIB:.0f} of {memory.total / MIB:.0f} MiB free"
    return f"{free}; about {', or '.join(fits)}" if fits else f"{free}, and fewer points or frames alone would not fit"


def out_of_memory(need: Need, device: torch.device, when: str, memory: Memory | None, sizes: Sequence[Size]) -> str:
    """The message for a tracker that ran out: what it needs at the resolutions `sizes`, what fits, and what to lower.

    `when` says what it was doing.
    """
    at = ", ".join(f"{width}x{height}" for height, width in sizes)
    return (
        f"{device} ran out of memory {when}: {need.points} points of {need.a_point / MIB:.2f} MiB and the features of "
        f"{need.frames} frames at {at}, {need.a_frame / MIB:.2f} MiB each, with "
        f"{what_would_fit(need, memory, sizes[-1])}: lower --max-points, --window-frames, --input or --resolution, "
        f"or use --dtype bfloat16"
    )


def memory_of(device: torch.device, model: int, held: int) -> Memory | None:
    """The memory that a tracker can use on `device`; None if unknown. `model` and `held` are in bytes.

    On a GPU: what is free, plus all that this process has reserved except for the `model`. Elsewhere: what the system
    has available within the process's limit (RLIMIT_AS), plus what the tracker `held`.
    """
    if device.type == "cuda":
        try:
            free, total = torch.cuda.mem_get_info(device)
            return Memory(free + max(0, torch.cuda.memory_reserved(device) - model), total)
        except RuntimeError:  # too little memory for CUDA itself
            return None
    try:
        import resource  # POSIX

        kib = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        free, total = (int(kib[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError, KeyError, ValueError):  # not Linux
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free, total = max(min(free, limit - used), 0), min(total, limit)
    return Memory(free + held, total)


def ran_out(error: BaseException) -> bool:
    """Whether an error means that a GPU or the system ran out of memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)


@contextmanager
def memory_errors(say: Callable[[], str]) -> Iterator[None]:
    """Turns an out-of-memory error in the block into a MemoryFullError with the message `say()`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        raise MemoryFullError(say()) from error
