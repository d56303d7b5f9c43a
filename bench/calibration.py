"""Calibration of visibility: whether a point that is said to be visible with some probability is, as often as that.

A point counts as visible if the product of two probabilities exceeds a threshold: that it is not hidden, and that its
position is right. Each is compared with the truth of held-out scenes, at every input size: reliability, the expected
calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017), and the temperature and shift of its logit that
would mend it. Then what thresholds on the product give. With `--video` also on a real video of a camera that stands
still: points are put on what moves, and a visible one should stay on it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench import streaming
from bench.command import BenchError, Count, JsonFile, PlotFile, pixels, run
from bench.report import finish
from bench.videos import read
from online_tapir.evaluation import scores as metrics
from online_tapir.launch.sizes import input_size
from online_tapir.model.checkpoint import load_model
from online_tapir.records import Tracks
from online_tapir.tracking.tracker import Tracker

RIGHT_PX = 6.0  # of the input: what training calls a right position
BINS = 10
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
TEMPERATURES = np.geomspace(0.4, 2.5, 41)
SHIFTS = np.linspace(-2, 2, 41)
BORDER = 6  # pixels by which what moves is shrunk for choosing points, and grown for judging them
LEARNED_FRAMES = 200  # of the background, at most
INTERVAL = "nothing is timed"

Flags = NDArray[np.bool_]
Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The model, and what it is asked about."""

    model: Annotated[str, Parameter(help="A preset or .safetensors file.")] = "small"
    inputs: Annotated[tuple[str, ...], Parameter(help="Sizes, as `online-tapir --input`.")] = ("256x256", "384", "512")
    photos: Annotated[Path | None, Parameter(help="Folder of photographs. [default: procedural textures]")] = None
    clips: Annotated[int, Parameter(help="Clips of each kind.", validator=Count)] = 6
    frames: Annotated[int, Parameter(help="Frames per clip.", validator=Count)] = 40
    size: Annotated[str, Parameter(help="Frame size.")] = "640x480"
    points: Annotated[int, Parameter(help="Points per clip.", validator=Count)] = 64
    video: Annotated[Path | None, Parameter(help="A real video of a camera that stands still.")] = None


@dataclass(frozen=True, slots=True)
class Told:
    """What the model said of points of one clip, and the truth; arrays are [N, T], without the first frame."""

    kind: str
    shown: Numbers  # probability that it is not hidden
    right: Numbers  # probability that its position is right
    visible: Flags
    error_px: Numbers  # of the input
    xy: Numbers  # [N, T, 2], at 256x256
    true_xy: Numbers

    @property
    def good(self) -> Flags:
        """Where a point is visible and its position right."""
        return self.visible & (self.error_px < RIGHT_PX)


@dataclass(frozen=True, slots=True)
class Reliability:
    """One probability against what it is about."""

    told: tuple[float, ...]  # mean of each bin that is not empty
    true: tuple[float, ...]
    count: tuple[int, ...]
    error: float  # expected calibration error
    temperature: float  # and shift, of the logit, which would make it most likely
    shift: float

    @classmethod
    def of(cls, told: Numbers, true: Flags) -> "Reliability":
        """Of probabilities and what came true, both of any one shape."""
        told, true = told.ravel(), true.ravel()
        bins = np.minimum((told * BINS).astype(int), BINS - 1)
        full = [index for index in range(BINS) if (bins == index).any()]
        means = [float(told[bins == index].mean()) for index in full]
        shares = [float(true[bins == index].mean()) for index in full]
        counts = [int((bins == index).sum()) for index in full]
        gaps = zip(means, shares, counts, strict=True)
        error = sum(count * abs(mean - share) for mean, share, count in gaps) / len(told)
        return cls(tuple(means), tuple(shares), tuple(counts), error, *mended(told, true))


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(), *, json: JsonFile = None, plot: PlotFile = None
) -> None:
    """Compare what the model says of visibility with the truth, and show what thresholds on it give."""
    clips = list(
        streaming.make_clips(
            streaming.Settings(
                photos=settings.photos,
                clips=settings.clips,
                frames=settings.frames,
                size=settings.size,
                points=settings.points,
            )
        )
    )
    by_input: dict[str, list[Told]] = {
        asked: [asked_about(tracker(settings, asked), clip) for clip in clips] for asked in settings.inputs
    }
    curves = {asked: reliability(told) for asked, told in by_input.items()}
    levels = {asked: thresholds(told) for asked, told in by_input.items()}
    print_curves(curves)
    print_levels(levels)
    figures: dict[str, Any] = {
        "reliability": {
            asked: {name: asdict(curve) for name, curve in found.items()} for asked, found in curves.items()
        },
        "thresholds": levels,
    }
    if settings.video is not None:
        figures["video"] = on_video(settings, settings.video)
        print_table(f"{settings.video.name}: points on what moves", ("reported", "of these on it"), figures["video"])
    if plot is not None:
        draw(curves, plot)
    finish("calibration", settings, figures, json, interval=INTERVAL)


def tracker(settings: Settings, asked: str, frame: tuple[int, int] | None = None) -> Tracker:
    """A tracker of the model at an input size, for frames of `frame` (width, height)."""
    size = input_size(asked, pixels(settings.size) if frame is None else frame)
    engine = "openvino" if settings.model == "small" else None
    return Tracker(load_model(settings.model, device="cpu"), settings.points, 1, input_size=size, engine=engine)


def asked_about(tracker: Tracker, clip: streaming.Clip) -> Told:
    """Tracks the clip's points; what was said of them."""
    tracker.add(clip.xy[:, 0])
    tracks = [tracker.step(rgb) for rgb in clip.frames][1:]
    height, width = clip.frames.shape[1:3]
    xy, true_xy = np.stack([one.xy for one in tracks], 1), clip.xy[:, 1:]
    scale = np.array(tracker.model.config.initial_resolution[::-1]) / (width, height)
    return Told(
        clip.kind,
        1 - np.stack([one.occlusion for one in tracks], 1),
        1 - np.stack([one.uncertainty for one in tracks], 1),
        clip.visible[:, 1:],
        np.linalg.norm((xy - true_xy) * scale, axis=-1),
        metrics.scale_to_256(xy, width, height),
        metrics.scale_to_256(true_xy, width, height),
    )


def reliability(told: Sequence[Told]) -> dict[str, Reliability]:
    """Of each probability and of their product."""

    def joined(name: str) -> Any:
        return np.concatenate([getattr(one, name).ravel() for one in told])

    shown, right, visible, good = (joined(name) for name in ("shown", "right", "visible", "good"))
    return {
        "not hidden": Reliability.of(shown, visible),
        "right, where visible": Reliability.of(right[visible], good[visible]),
        "visible and right": Reliability.of(shown * right, good),
    }


def mended(told: Numbers, true: Flags) -> tuple[float, float]:
    """The temperature and shift of the logits of `told` [K] that make `true` [K] most likely."""
    logit = np.log(np.clip(told, 1e-6, 1 - 1e-6) / np.clip(1 - told, 1e-6, 1))
    sign = np.where(true, -1.0, 1.0)
    surprise = [
        [float(np.logaddexp(0, sign * (logit / temperature + shift)).mean()) for shift in SHIFTS]
        for temperature in TEMPERATURES
    ]
    best = np.unravel_index(np.argmin(surprise), (len(TEMPERATURES), len(SHIFTS)))
    return float(TEMPERATURES[best[0]]), float(SHIFTS[best[1]])


def thresholds(told: Sequence[Told]) -> dict[str, dict[str, float]]:
    """Percentages for each threshold on the product, by kind of clip: what is reported, and how good that is."""
    found = {}
    for kind in sorted({one.kind for one in told}):
        ours = [one for one in told if one.kind == kind]
        for above in THRESHOLDS:
            scored, reported, visible, correct = [], 0, 0, 0
            for one in ours:
                says = one.shown * one.right > above
                scored.append(metrics.score(one.xy, says, one.true_xy, one.visible, np.ones_like(says)))
                reported, visible = reported + int(says.sum()), visible + int(one.visible.sum())
                correct += int((says & one.good).sum())
            mean = metrics.average(scored)
            found[f"{kind}, above {above:g}"] = {
                "Average Jaccard": round(100 * mean.average_jaccard, 1),
                "occlusion accuracy": round(100 * mean.occlusion_accuracy, 1),
                "reported, of the visible": round(100 * reported / visible, 1),
                "visible and right, of the reported": round(100 * correct / max(reported, 1), 1),
            }
    return found


def on_video(settings: Settings, path: Path) -> dict[str, dict[str, float]]:
    """For every input and threshold: the share of answers that are reported, and of these the share on what moves."""
    frames = list(read(path))
    if len(frames) < 2:
        raise BenchError(f"{path} has {len(frames)} frames; a camera that stands still needs many more")
    moving = list(foregrounds(frames))
    grown = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * BORDER + 1, 2 * BORDER + 1))
    starts = range(0, len(frames) - settings.frames, settings.frames)
    found: dict[str, dict[str, float]] = {}
    for asked in settings.inputs:
        certain, inside = [], []
        for start in starts:
            xy = points_on(np.asarray(cv2.erode(moving[start], grown), np.uint8), settings.points)
            if not len(xy):
                continue
            height, width = frames[0].shape[:2]
            made = tracker(settings, asked, (width, height))
            made.add(xy)
            for index in range(start, start + settings.frames):
                tracks = made.step(frames[index])
                if index > start:
                    certain.append((1 - tracks.occlusion) * (1 - tracks.uncertainty))
                    inside.append(at(np.asarray(cv2.dilate(moving[index], grown), np.uint8), tracks))
        if not certain:
            raise BenchError(f"nothing moves in {path}; choose a video of something that does")
        sure, on_it = np.concatenate(certain), np.concatenate(inside)
        for above in THRESHOLDS:
            says = sure > above
            if not says.any():
                continue  # nothing is reported, so no share of it is right or wrong
            found[f"{asked}, above {above:g}"] = {
                "reported": round(100 * float(says.mean()), 1),
                "of these on it": round(100 * float(on_it[says].mean()), 1),
            }
    return found


def foregrounds(frames: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Masks [H, W] of what differs from the median of the video, 255 inside."""
    sample = np.stack(frames[:: max(1, len(frames) // LEARNED_FRAMES)])
    still = np.median(sample, axis=0).astype(np.int16)
    closed = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    for frame in frames:
        differs = (np.abs(frame.astype(np.int16) - still).max(axis=2) > 40).astype(np.uint8) * 255
        opened = cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        yield np.asarray(cv2.morphologyEx(opened, cv2.MORPH_CLOSE, closed), np.uint8)


def points_on(mask: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
    """Up to `count` pixels of a mask [N, 2], the same ones every time."""
    y, x = np.nonzero(mask)
    chosen = np.random.default_rng(0).permutation(len(x))[:count]
    return np.stack([x[chosen], y[chosen]], 1).astype(np.float32) + 0.5


def at(mask: NDArray[np.uint8], tracks: Tracks) -> Flags:
    """Whether each point is in a mask."""
    height, width = mask.shape
    x = np.clip(tracks.xy[:, 0].astype(int), 0, width - 1)
    y = np.clip(tracks.xy[:, 1].astype(int), 0, height - 1)
    return np.asarray(mask[y, x] > 0)


def print_curves(curves: dict[str, dict[str, Reliability]]) -> None:
    rows = {
        f"{asked}: {name}": {
            "expected calibration error": round(100 * curve.error, 1),
            "best temperature": round(curve.temperature, 2),
            "best shift": round(curve.shift, 2),
        }
        for asked, found in curves.items()
        for name, curve in found.items()
    }
    print_table(
        "probabilities against the truth (error in percent)",
        ("expected calibration error", "best temperature", "best shift"),
        rows,
    )


def print_levels(levels: dict[str, dict[str, dict[str, float]]]) -> None:
    for asked, rows in levels.items():
        print_table(f"thresholds at {asked}, percent", tuple(next(iter(rows.values()))), rows)


def print_table(title: str, columns: Sequence[str], rows: dict[str, dict[str, float]]) -> None:
    table = Table("", *columns, title=title, title_justify="left")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[column]:g}" for column in columns))
    Console().print(table)


def draw(curves: dict[str, dict[str, Reliability]], path: Path) -> None:
    """Reliability diagrams: what came true over what was said, one panel per probability, one line per input."""
    from matplotlib.figure import Figure

    names = list(next(iter(curves.values())))
    figure = Figure(figsize=(4 * len(names), 4), layout="constrained")
    for column, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), column + 1)
        axes.set(title=name, xlabel="told", ylabel="came true", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
        for asked, found in curves.items():
            axes.plot(found[name].told, found[name].true, marker="o", markersize=3, label=asked)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    run(main)
