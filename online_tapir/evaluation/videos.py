"""Videos with known truth that trackers are scored on, and this project's own: rendered scenes, always the same."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from online_tapir.scenes.clips import SceneConfig, make_clips
from online_tapir.scenes.textures import TextureBank

VALIDATION_SEED = 1_000_000_007  # far above the training seeds, which count up from 0
PROCEDURAL_TEXTURES = 48


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """Frames with the true tracks of points on them; each point is tracked from its query frame on."""

    name: str
    frames: NDArray[np.uint8]  # [T, H, W, 3] RGB
    xy: NDArray[np.float32]  # [N, T, 2] image pixels
    visible: NDArray[np.bool_]  # [N, T]
    query_frame: NDArray[np.int64]  # [N]


def validation_videos(
    photos: Path | None, count: int = 16, frames: int = 24, size: int = 256, points: int = 64
) -> Iterator[Video]:
    """This project's validation scenes, rendered one by one; the same arguments always give the same scenes.

    Textures are the photographs in folder `photos`, or procedural ones if it is None. Few points come back from an
    occlusion within 24 frames: use 64 frames to measure re-detection.
    Raises ConfigError for a folder that is missing or contains no images.
    """
    config = SceneConfig(height=size, width=size, frames=frames, points=points)
    return _rendered("scene", config, _textures(photos), count)


def hard_videos(
    photos: Path | None, count: int = 8, frames: int = 48, size: int = 256, points: int = 64
) -> Iterator[Video]:
    """Harder scenes: all of them turn by any angle and grow or shrink, and most points are hidden for a while.

    Arguments and errors as for `validation_videos`.
    """
    config = SceneConfig(
        height=size, width=size, frames=frames, points=points, turned=1.0, max_scale=3.0, hidden_points=0.9
    )
    return _rendered("hard", config, _textures(photos), count)


def still_videos(
    photos: Path | None, count: int = 4, frames: int = 200, size: int = 256, points: int = 64
) -> Iterator[Video]:
    """Scenes in which nothing moves, degraded by sensor noise only, to measure drift and jitter.

    Arguments and errors as for `validation_videos`.
    """
    config = SceneConfig(height=size, width=size, frames=frames, points=points, still=True).clean()
    noisy = replace(config, noise=1.0)
    return _rendered("still", noisy, _textures(photos), count)


def _textures(photos: Path | None) -> TextureBank:
    if photos is None:
        return TextureBank.procedural(PROCEDURAL_TEXTURES, VALIDATION_SEED)
    return TextureBank.from_folder(photos)


def _rendered(name: str, config: SceneConfig, textures: TextureBank, count: int) -> Iterator[Video]:
    for i in range(count):
        clips = make_clips([VALIDATION_SEED + i], config, textures)
        frames = ((clips.frames[0].permute(0, 2, 3, 1) + 1) * 127.5).round().byte()  # [T, H, W, 3]
        yield Video(
            name=f"{name} {i}",
            frames=frames.numpy(),
            xy=clips.xy[0].numpy(),
            visible=clips.visible[0].numpy(),
            query_frame=clips.query_frame[0].numpy(),
        )
