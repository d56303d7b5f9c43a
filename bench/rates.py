# mypy: allow-untyped-calls
"""Times work on a device, and measures the device's peak rates. Needs only torch.

On a GPU the work is recorded many times in one CUDA graph, so that launch overhead is not timed. Its inputs stay in the
cache, as in a stream of frames.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

REPEATS = 20  # in one graph, to resolve a few microseconds
WARM_UPS = 3
COPIED_BYTES = {"cuda": 2**28, "cpu": 2**25}
SIDE = {"cuda": 8192, "cpu": 512}  # of the square matrices in the product


@dataclass(frozen=True, slots=True)
class Limits:
    """A device's peak rates, as measured."""

    bytes_per_s: float  # read and written by a large copy
    flops: float  # per second, by a large matrix product in the dtype that is timed

    @classmethod
    def measured(cls, device: torch.device, dtype: torch.dtype, seconds: float) -> "Limits":
        source = torch.zeros(COPIED_BYTES[device.type], dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        copy_ms = median_ms(lambda: target.copy_(source), device, seconds)
        side = SIDE[device.type]
        x = torch.randn(side, side, device=device).to(dtype)
        product_ms = median_ms(lambda: x @ x, device, seconds)
        return cls(2 * source.nbytes / copy_ms * 1e3, 2 * side**3 / product_ms * 1e3)

    def ms(self, bytes_moved: float, flops: float) -> float:
        """The least time that work with this memory traffic and arithmetic can take."""
        return max(bytes_moved / self.bytes_per_s, flops / self.flops) * 1e3


def median_ms(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median time of `work`, measured for about `seconds` and at least three times."""
    if device.type != "cuda":
        return _on_a_cpu(work, seconds)
    with torch.cuda.device(device):  # streams and graphs are of the current one
        return _on_a_gpu(work, seconds)


def _on_a_gpu(work: Callable[[], object], seconds: float) -> float:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(REPEATS):
            work()
    found: list[float] = []
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()
    end = time.monotonic() + seconds
    while len(found) < 3 or time.monotonic() < end:
        first.record()
        graph.replay()
        last.record()
        last.synchronize()
        found.append(first.elapsed_time(last) / REPEATS)
    return median(found)


def _on_a_cpu(work: Callable[[], object], seconds: float) -> float:
    work()
    found: list[float] = []
    end = time.monotonic() + seconds
    while len(found) < 3 or time.monotonic() < end:
        start = time.perf_counter_ns()
        work()
        found.append((time.perf_counter_ns() - start) / 1e6)
    return median(found)
