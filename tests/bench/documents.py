"""Small documents, as the benches write them, to draw and to compare."""

from typing import Any

RANKS = ("p50", "p95", "p99", "max")


def spread(p50: float) -> dict[str, float]:
    return {"count": 7, **{rank: round(p50 * (1 + 0.1 * i), 4) for i, rank in enumerate(RANKS)}}


def document(bench: str, results: dict[str, Any], **settings: Any) -> dict[str, Any]:
    machine = {"processor": "one of these", "cores": 2, "usable_cpus": 2, "gpu": None}
    return {"bench": bench, "commit": "0123456789abcdef", "machine": machine, "settings": settings, "results": results}


def live(*cases: tuple[float, str], p50: float = 20.0) -> dict[str, Any]:
    stages = ("capture", "upload", "encode", "match", "refine", "download", "publish", "receive", "capture to receive")
    runs = [
        {
            "setting": {"fps": fps, "beside": beside},
            "ms": {stage: spread(p50) for stage in stages},
            "fps": fps,
            "distribution_ms": {"percent": [0, 50, 100], "value": [p50 / 2, p50, 2 * p50 + index]},
        }
        for index, (fps, beside) in enumerate(cases)
    ]
    return document("live", {"runs": runs}, model="small", size="640x480", points=64)


def scale(p50s: dict[int, float], tracker: str = "small", resolution: str = "256x256") -> dict[str, Any]:
    where = {"tracker": tracker, "device": "cpu", "resolution": resolution}
    runs = [{"setting": {**where, "points": points}, "ms": spread(p50)} for points, p50 in p50s.items()]
    return document("scale", {"runs": runs, "fits": []})


def window() -> dict[str, Any]:
    runs = [
        {"setting": {"points": points, "age": age}, "price_ms": spread(points * age - 1.0)}
        for age in (0, 1, 32)
        for points in (1, 64)
    ]
    return document("window", {"runs": runs, "plain_ms": spread(10)}, model="small", size="640x480", fps=30.0)


def accuracy() -> dict[str, Any]:
    scores = {"small": (0.5, 20.0), "LK": (0.4, 1.0)}
    reports = [
        {
            "tracker": name,
            "data": data,
            "scores": {"average_jaccard": jaccard},
            "step_ms_p50": ms,
            "step_ms_p95": 2 * ms,
        }
        for data in ("photographs", "procedural")
        for name, (jaccard, ms) in scores.items()
    ]
    return document("accuracy", {"reports": reports}, models=["small"])


def compare() -> dict[str, Any]:
    runs = [
        {"points": points, "ms": {"frame": spread(100), "public frame": spread(300)}, "times_faster": 3.0}
        for points in (8, 64)
    ]
    return document("compare", {"runs": runs}, model="bootstapir")


def memory() -> dict[str, Any]:
    samples = [{"frames": frames, "rss_mib": 400.0} for frames in (100, 200)]
    results = {"samples": samples, "ratio": 1.0, "rss_mib_after_warm_up": 400.0}
    return document("memory", results, model="small", size="256x256", points=64, warm_up=100)


def drift() -> dict[str, Any]:
    px = {"bfloat16": spread(0.1), "float16": spread(0.0)}
    return document("drift", {"px": px}, model="small", points=64)


def regress() -> dict[str, Any]:
    ratios = [
        {"figure": "a / ms / p50", "cost_ratio": 1.2, "worse": True},
        {"figure": "a / fps", "cost_ratio": 0.9, "worse": False},
        {"figure": "a / ms / max", "cost_ratio": None, "worse": False},
    ]
    return document("regress", {"ratios": ratios}, threshold=1.1)


EVERY = {
    "accuracy": accuracy(),
    "compare": compare(),
    "drift": drift(),
    "live": live((30.0, "nothing"), (120.0, "rerun-stalled")),
    "memory": memory(),
    "regress": regress(),
    "scale": scale({1: 10.0, 64: 20.0}),
    "window": window(),
}
