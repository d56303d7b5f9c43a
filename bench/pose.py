"""The pose of a flat object against the renderer's truth: a card seen by a camera whose lens distorts, in motion.

Photographs of a folder are cards of known size that swing and come near in front of another one; a tracker follows
their corners and a grid on them, as a run with `--calibration` and `--object-size` does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from bench.command import BenchError, Count, JsonFile, run
from bench.report import Spread, finish, print_table
from online_tapir.model.checkpoint import load_model
from online_tapir.points.calibration import Calibration
from online_tapir.points.objects import Objects, with_objects
from online_tapir.points.pose import angle, outline
from online_tapir.records import Label, Pose
from online_tapir.scenes.textures import photograph_paths
from online_tapir.tracking.tracker import Tracker

LENS = Calibration(
    (640, 480), np.array([[560.0, 0, 320], [0, 560, 240], [0, 0, 1]]), np.array([-0.25, 0.08, 0.0, 0.0, 0.0])
)
CARD_MM = (160.0, 120.0)
INSIDE = 0.04  # of its sides: the corners that are tracked lie so far from its edges
TRACKED_MM = (CARD_MM[0] * (1 - 2 * INSIDE), CARD_MM[1] * (1 - 2 * INSIDE))  # of the rectangle that they make


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is tracked."""

    photographs: Annotated[Path, Parameter(help="Folder of photographs.")]
    clips: Annotated[int, Parameter(help="Clips, each of another photograph.", validator=Count)] = 8
    frames: Annotated[int, Parameter(help="Frames of each.", validator=Count)] = 60
    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"
    input: Annotated[int, Parameter(help="Side that the model sees, pixels.", validator=Count)] = 256
    grid: Annotated[int, Parameter(help="Points on the card: so many a side, and its corners.", validator=Count)] = 6


def measure(*, settings: Annotated[Settings, Parameter(name="*")], json: JsonFile = None) -> None:
    """Measure corners, translation and rotation."""
    paths = photograph_paths(settings.photographs)
    if len(paths) < settings.clips + 1:
        raise BenchError(f"{settings.photographs} has {len(paths)} photographs; {settings.clips + 1} are needed")
    corner_px: list[float] = []
    without_px: list[float] = []
    away_mm: list[float] = []
    turned_deg: list[float] = []
    reprojection_px: list[float] = []
    frames = missing = 0
    model = load_model(settings.model)
    for number in range(settings.clips):
        card, behind = (picture(paths[number + i]) for i in (0, 1))
        tracker = Tracker(model, 64, input_size=(settings.input, settings.input))
        objects = Objects("similarity", LENS, {"card": TRACKED_MM})
        plain = Objects("homography")
        places = marks(settings.grid)
        for frame in range(settings.frames):
            rotation, translation = path_of(frame / settings.frames, number)
            truth = seen(places, rotation, translation)
            if not frame:
                for id in tracker.add(truth).tolist():
                    tracker.label(id, Label(group="card"))
            tracks = tracker.step(rendered(card, behind, rotation, translation))
            [one] = objects.follow(tracks) or [None]
            [other] = plain.follow(tracks) or [None]
            frames += 1
            if one is None or one.pose is None:
                missing += 1
                continue
            corner_px += np.linalg.norm(outline(one.pose, LENS) - truth[:4], axis=1).tolist()
            reprojection_px.append(one.pose.error_px)
            away_mm.append(float(np.linalg.norm(one.pose.translation_mm - translation)))
            turned_deg.append(float(np.degrees(angle(one.pose, Pose(rotation, translation, 0.0, TRACKED_MM)))))
            if other is not None and other.found:
                corners = with_objects(tracks, (other,)).xy[:4]
                without_px += np.linalg.norm(corners - truth[:4], axis=1).tolist()
    spreads = {
        "corner by the pose, px": Spread.of(corner_px),
        "corner as the model has it, px": Spread.of(without_px),
        "reprojection error that is told, px": Spread.of(reprojection_px),
        "translation, mm": Spread.of(away_mm),
        "rotation, degrees": Spread.of(turned_deg),
    }
    facts = {"corner by the pose, px": f"{frames - missing} of {frames} frames have a pose"}
    print_table(f"a card of {CARD_MM[0]:g} x {CARD_MM[1]:g} mm at 0.45 to 0.9 m, 640x480", spreads, facts)
    finish("pose", settings, {"spreads": spreads, "frames": frames, "without_a_pose": missing}, json, interval="none")


def picture(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise BenchError(f"{path} cannot be read")
    return np.asarray(cv2.resize(image, LENS.size, interpolation=cv2.INTER_AREA), np.uint8)


def marks(grid: int) -> NDArray[np.float64]:
    """Points on the card, millimetres: four corners a little inside, and a grid between them."""
    low, high = INSIDE, 1 - INSIDE
    corners = [(low, low), (high, low), (high, high), (low, high)]
    inner = np.linspace(0.12, 0.88, grid)
    return np.array([*corners, *((x, y) for y in inner for x in inner)]) * CARD_MM


def path_of(share: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation and translation (mm, of the first tracked corner) at a share of the clip: it swings and comes near."""
    phase = 2 * np.pi * (share + 0.13 * seed)
    rotation = np.array([0.45 * np.sin(phase), 0.5 * np.sin(0.7 * phase + seed), 0.35 * np.sin(0.5 * phase)])
    middle = np.array([60 * np.sin(0.8 * phase), 30 * np.cos(0.6 * phase), 675 + 225 * np.sin(0.9 * phase)])
    half = np.array([*CARD_MM, 0]) / 2
    corner = middle - cv2.Rodrigues(rotation)[0] @ (half - [INSIDE * CARD_MM[0], INSIDE * CARD_MM[1], 0])
    return rotation, np.asarray(corner, np.float64)


def seen(
    places_mm: NDArray[np.float64], rotation: NDArray[np.float64], corner: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Where points of the card are in the picture; `corner` is where the first tracked corner is."""
    space = np.column_stack([places_mm - np.array(CARD_MM) * INSIDE, np.zeros(len(places_mm))])
    xy, _ = cv2.projectPoints(space, rotation, corner, LENS.matrix, LENS.distortion)
    return np.asarray(xy.reshape(-1, 2) + 0.5, np.float32)


def rendered(
    card: NDArray[np.uint8], behind: NDArray[np.uint8], rotation: NDArray[np.float64], corner: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """The card in front of a picture: for each pixel, its ray without the lens meets the card's plane, or does not."""
    width, height = LENS.size
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 1, 2).astype(np.float64)
    rays = cv2.undistortPoints(pixels, LENS.matrix, LENS.distortion).reshape(-1, 2)
    axes = cv2.Rodrigues(rotation)[0]
    plane = np.linalg.inv(np.column_stack([axes[:, 0], axes[:, 1], corner]))
    places = np.column_stack([rays, np.ones(len(rays))]) @ plane.T
    with np.errstate(divide="ignore", invalid="ignore"):
        mm = places[:, :2] / places[:, 2:] + np.array(CARD_MM) * INSIDE
    inside = (mm > 0).all(axis=1) & (mm < CARD_MM).all(axis=1)
    texture = (mm / CARD_MM * [width, height] - 0.5).astype(np.float32).reshape(height, width, 2)
    front = cv2.remap(card, texture[..., 0], texture[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.where(inside.reshape(height, width, 1), front, behind // 2 + 60), np.uint8)


if __name__ == "__main__":
    run(measure)
