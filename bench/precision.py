"""How precise positions are in the frame's own pixels, frame by frame: with flow and the model, and with each alone.

Two tests. On film-like frames of 1024x436: the mean share of visible points within 1, 2, 4, 8 and 16 pixels. On still
scenes with noise: how far points drift from where they were named, and how much they jitter from frame to frame.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from bench import streaming
from bench.command import Count, JsonFile, pixels, run
from bench.report import Spread, finish, print_table
from online_tapir.engines.choose import choose_for, make
from online_tapir.evaluation.baselines import DenseFlow, LucasKanadeWithRecovery
from online_tapir.flow.tracker import FlowTracker
from online_tapir.launch.pace import largest_input
from online_tapir.launch.threads import set_threads
from online_tapir.model.checkpoint import load_model
from online_tapir.records import Frame, Tracks
from online_tapir.scenes.clips import SceneConfig, make_clips
from online_tapir.scenes.textures import TextureBank
from online_tapir.tracking.tracker import Tracker

WITHIN = (1, 2, 4, 8, 16)  # native pixels
SETTLED = 20  # frames at the end of a still clip, over which drift is averaged
INTERVAL = "nothing is timed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The clips, and how many."""

    photos: Annotated[Path | None, Parameter(help="Folder of photographs. [default: procedural textures]")] = None
    clips: Annotated[int, Parameter(help="Clips of each kind.", validator=Count)] = 2
    frames: Annotated[int, Parameter(help="Frames of a film-like clip.", validator=Count)] = 48
    still_frames: Annotated[int, Parameter(help="Frames of a still clip.", validator=Count)] = 200
    film: Annotated[str, Parameter(help="Size of film-like frames.")] = "1024x436"
    still: Annotated[str, Parameter(help="Size of still frames.")] = "640x480"
    points: Annotated[int, Parameter(help="Points per clip.", validator=Count)] = 64


@dataclass(frozen=True, slots=True)
class Stillness:
    """How a tracker holds points of still scenes, in native pixels."""

    drift: Spread  # distance from the truth over the last frames
    jitter: Spread  # standard deviation around that place


def main(settings: Annotated[Settings, Parameter(name="*")] = Settings(), *, json: JsonFile = None) -> None:
    """Measure precision in native pixels for flow with the model, the model alone, and OpenCV's trackers."""
    film = list(film_clips(settings))
    still = [still_clip(settings, seed) for seed in range(settings.clips)]
    shares: dict[str, list[float]] = {}
    holds: dict[str, Stillness] = {}
    for name, make_tracker in makers(settings).items():
        shares[name] = within([positions(make_tracker(pixels(settings.film)), clip) for clip in film], film)
        holds[name] = stillness([positions(make_tracker(pixels(settings.still)), clip) for clip in still], still)
    facts = {name: f"{100 * np.mean(found):.1f} % within ({shown(found)})" for name, found in shares.items()}
    drift = {f"{name}, drift": hold.drift for name, hold in holds.items()}
    jitter = {f"{name}, jitter": hold.jitter for name, hold in holds.items()}
    print_table(f"pixels on still scenes of {settings.still}; shares on {settings.film}", drift | jitter, facts)
    finish("precision", settings, {"shares": shares, "still": holds}, json, interval=INTERVAL)


def shown(shares: Sequence[float]) -> str:
    return " / ".join(f"{100 * share:.0f}" for share in shares)


def makers(settings: Settings) -> dict[str, Callable[[tuple[int, int]], Any]]:
    """Functions that make each tracker for frames of a size, with the largest input that recordings get."""
    model = load_model("small", device="cpu")
    engine = make(choose_for(model, "auto"), set_threads(None))

    def alone(size: tuple[int, int]) -> Tracker:
        wanted = largest_input(model, 0.0, size, None)
        return Tracker(model, max_points=settings.points, input_size=wanted, engine=engine)

    return {
        "flow and model": lambda size: FlowTracker(alone(size), waits=True),
        "model alone": alone,
        "LK, recovering": lambda size: LucasKanadeWithRecovery(),
        "DIS flow": lambda size: DenseFlow(),
    }


def film_clips(settings: Settings) -> list[streaming.Clip]:
    """Clips at the pace of film: large frames, moderate motion, motion blur, some occlusion."""
    film = replace(
        scene(settings, settings.film, settings.frames),
        max_speed=12 / 256,
        max_camera_speed=8 / 256,
        motion_blur=0.5,
        stutter=0.0,
    )
    textures = bank(settings, max(film.width, film.height))
    return [clip("film", film, textures, seed, settings.points) for seed in range(settings.clips)]


def still_clip(settings: Settings, seed: int) -> streaming.Clip:
    """A clip in which nothing moves but the sensor's noise."""
    still = scene(settings, settings.still, settings.still_frames)
    still = replace(still, still=True, noise=1.0, exposure=0.0, stutter=0.0, jpeg=0.0, shadows=0.0)
    return clip("still", still, bank(settings, max(still.width, still.height)), seed, settings.points)


def scene(settings: Settings, size: str, frames: int) -> SceneConfig:
    """A scene of this size, with more points than are kept."""
    width, height = pixels(size)
    return SceneConfig(height=height, width=width, frames=frames, points=streaming.CANDIDATES * settings.points)


def bank(settings: Settings, side: int) -> TextureBank:
    if settings.photos is None:
        return TextureBank.procedural(24, seed=1, size=side)
    return TextureBank.from_folder(settings.photos, size=side)


def clip(kind: str, config: SceneConfig, textures: TextureBank, seed: int, points: int) -> streaming.Clip:
    """One rendered clip, with the points that are visible on its first frame."""
    rendered = make_clips([streaming.SEED + 100 + seed], config, textures)
    visible = rendered.visible[0].numpy()
    kept = np.flatnonzero(visible[:, 0])[:points]
    frames = ((rendered.frames[0] + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return streaming.Clip(kind, frames, rendered.xy[0].numpy()[kept], visible[kept])


def positions(tracker: Any, clip: streaming.Clip) -> NDArray[np.float32]:
    """The positions [N, T, 2] that a tracker gives on a clip, frame by frame."""
    tracker.add(clip.xy[:, 0])
    ours = isinstance(tracker, (Tracker, FlowTracker))
    found: list[Tracks] = []
    with ExitStack() as held:
        if isinstance(tracker, FlowTracker):
            held.enter_context(closing(tracker))
        for number, rgb in enumerate(clip.frames):
            found.append(tracker.step(Frame(number, number, 0, rgb) if ours else rgb))
    return np.stack([tracks.xy for tracks in found], axis=1)


def within(found: Sequence[NDArray[np.float32]], clips: Sequence[streaming.Clip]) -> list[float]:
    """The share of visible points within each of WITHIN pixels, after the first frame."""
    errors = [
        np.linalg.norm(xy - clip.xy, axis=2)[:, 1:][clip.visible[:, 1:]] for xy, clip in zip(found, clips, strict=True)
    ]
    every = np.concatenate(errors)
    return [round(float((every < limit).mean()), 4) for limit in WITHIN]


def stillness(found: Sequence[NDArray[np.float32]], clips: Sequence[streaming.Clip]) -> Stillness:
    """Drift and jitter over the last frames of still clips."""
    drift, jitter = [], []
    for xy, clip in zip(found, clips, strict=True):
        last = xy[:, -SETTLED:]
        drift.append(np.linalg.norm(last.mean(axis=1) - clip.xy[:, 0], axis=1))
        jitter.append(np.sqrt(last.var(axis=1).sum(axis=1)))
    return Stillness(Spread.of(np.concatenate(drift)), Spread.of(np.concatenate(jitter)))


if __name__ == "__main__":
    run(main)
