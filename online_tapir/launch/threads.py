"""How many CPU threads this machine has for a run, and how they share its cores."""

import os

from online_tapir.errors import ConfigError


def calm_threads() -> None:
    """Makes libraries' threads sleep soon after their work. Call it before torch and numpy are loaded.

    They spin while they wait: next to other work on the same cores OpenMP's delay a frame by seconds, and OpenBLAS's
    slow the model down by half when flow calls numpy between two frames. Ten thousand turns are some 50 microseconds:
    with a thousand, torch's many small ops took half as long again on idle cores, and OpenVINO a twentieth less.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(asked: int | None) -> int | None:
    """Validates `--threads`; ConfigError for more threads than CPUs, which would only slow each other down."""
    cpus = usable_cpus()
    if asked is not None and not 1 <= asked <= cpus:
        raise ConfigError(f"--threads {asked}: this machine has {cpus} CPUs; give 1 to {cpus}, or leave it out")
    return asked


def set_threads(asked: int | None) -> int:
    """Sets torch's threads, if asked for; returns how many there are."""
    import torch

    if asked is not None:
        torch.set_num_threads(asked)
    return torch.get_num_threads()
