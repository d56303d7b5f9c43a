"""Templates found in another rendering of the same thing: turned, nearer or farther, in other light, elsewhere.

A card is a piece of a photograph. Its templates are saved from one picture; then it moves before another photograph, at
several angles and sizes, darker and with noise. Where it is absent, nothing may be found.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from bench.command import BenchError, Count, JsonFile, run
from bench.report import finish
from online_tapir.model.checkpoint import load_model
from online_tapir.model.tapir import Tapir
from online_tapir.records import Label
from online_tapir.scenes.textures import photograph_paths
from online_tapir.tracking.finder import Finder
from online_tapir.tracking.picture_templates import PLAIN, VIEWS, from_picture
from online_tapir.tracking.templates import Templates
from online_tapir.tracking.tracker import Tracker

Picture = NDArray[np.uint8]

SIDE = 480  # of the pictures, pixels
CARD = 280
MIDDLE = (SIDE - 1) / 2  # OpenCV's pixel (0, 0) is the middle of the first
POINTS = 12
MARGIN = 30  # of the points from the card's edge
WITHIN_PX = 4.0  # at 256x256, as re-detection is scored
PRESENT, ABSENT = 25, 60  # frames
LIGHT, NOISE = 0.75, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is searched for."""

    photographs: Annotated[Path, Parameter(help="Folder of photographs.")]
    cards: Annotated[int, Parameter(help="Cards, each of another photograph.", validator=Count)] = 8
    turns: Annotated[tuple[float, ...], Parameter(help="Degrees.")] = (0, 15, 30)
    sizes: Annotated[tuple[float, ...], Parameter(help="Multiples of the size when saved.")] = (0.7, 1, 1.4)
    turned: Annotated[bool, Parameter(help="Views of the turned and scaled picture, too.")] = True
    model: Annotated[str, Parameter(help="Preset or .safetensors file.")] = "small"


def measure(*, settings: Annotated[Settings, Parameter(name="*")], json: JsonFile = None) -> None:
    """Measure how many are found, how exactly, how late, and what is found that is not there."""
    paths = photograph_paths(settings.photographs)
    if len(paths) < settings.cards + 1:
        raise BenchError(f"{settings.photographs} has {len(paths)} photographs; {settings.cards + 1} are needed")
    model = load_model(settings.model)
    cells: dict[tuple[float, float], list[float]] = {}
    for turn in settings.turns:
        cells |= {(turn, size): [] for size in settings.sizes}
    delays: list[int] = []
    false = absent_frames = wanted = 0
    for number in range(settings.cards):
        photo, behind = square(paths[number]), square(paths[(number + 1) % len(paths)])
        places = corners(photo)
        labels = [Label(f"p{number}") for number in range(len(places))]
        templates = from_picture(model, photo, places, labels, VIEWS if settings.turned else PLAIN)
        for turn, size in cells:
            found = search(model, templates, places, present(photo, behind, turn, size))
            cells[turn, size] += [error for error, _ in found.values()]
            delays += [frame for _, frame in found.values()]
        wanted += len(places)
        false += len(search(model, templates, places, absent(behind)))
        absent_frames += ABSENT
    rows = {}
    for (turn, size), errors in cells.items():
        within = sum(error < WITHIN_PX for error in errors)
        rows[f"{turn:g} degrees, {size:g} times"] = {
            "found": round(100 * len(errors) / wanted, 1),
            f"within {WITHIN_PX:g} px of those": round(100 * within / max(len(errors), 1), 1),
        }
    for name, row in rows.items():
        print(f"{name}: {', '.join(f'{key} {value} %' for key, value in row.items())}")
    errors = [error for some in cells.values() for error in some]
    results = {
        "cells": rows,
        "found": round(100 * len(errors) / (wanted * len(cells)), 1),
        "within": round(100 * sum(error < WITHIN_PX for error in errors) / max(len(errors), 1), 1),
        "median_delay_answers": float(np.median(delays)),
        "false_finds": false,
        "absent_frames": absent_frames,
        "templates_searched_for": wanted,
        "false_per_thousand_frames": round(1000 * false / absent_frames, 2),
    }
    print({key: value for key, value in results.items() if key != "cells"})
    finish("templates", settings, results, json, interval="none")


def square(path: Path) -> Picture:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise BenchError(f"{path} cannot be read")
    scale = SIDE / min(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[:SIDE, :SIDE], np.uint8)


def corners(photo: Picture) -> NDArray[np.float32]:
    """Corners [P, 2] of the middle piece that is the card, image pixels of `photo`."""
    inside = np.zeros((SIDE, SIDE), np.uint8)
    low, high = (SIDE - CARD) // 2 + MARGIN, (SIDE + CARD) // 2 - MARGIN
    inside[low:high, low:high] = 1
    found = cv2.goodFeaturesToTrack(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), POINTS, 0.01, 20, mask=inside)
    return np.asarray(found.reshape(-1, 2) + 0.5, np.float32)


def present(photo: Picture, behind: Picture, turn: float, size: float) -> Iterator[tuple[Picture, NDArray[np.float64]]]:
    """Pictures of the card before another photograph, in motion, and where a place of `photo` is in each, [2, 3]."""
    noise = np.random.default_rng(round(turn * 10 + size * 100))
    card = np.zeros((SIDE, SIDE), np.uint8)
    low, high = (SIDE - CARD) // 2, (SIDE + CARD) // 2
    card[low:high, low:high] = 255
    for frame in range(PRESENT):
        matrix = np.asarray(cv2.getRotationMatrix2D((MIDDLE, MIDDLE), turn + 0.3 * frame, size), np.float64)
        matrix[:, 2] += (0.8 * frame - 10, 6 - 0.5 * frame)
        front = cv2.warpAffine(photo, matrix, (SIDE, SIDE))
        mask = cv2.warpAffine(card, matrix, (SIDE, SIDE))[..., None] / 255
        mixed = LIGHT * (front * mask + behind * (1 - mask)) + noise.normal(0, NOISE, front.shape)
        yield np.clip(mixed, 0, 255).astype(np.uint8), matrix


def absent(behind: Picture) -> Iterator[tuple[Picture, None]]:
    """Pictures of the other photograph alone, in motion."""
    for frame in range(ABSENT):
        matrix = cv2.getRotationMatrix2D((MIDDLE, MIDDLE), 0.5 * frame, 1 + 0.003 * frame)
        yield np.asarray(cv2.warpAffine(behind, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT), np.uint8), None


def search(
    model: Tapir,
    templates: Templates,
    places: NDArray[np.float32],
    pictures: Iterator[tuple[Picture, Any]],
) -> dict[str, tuple[float, int]]:
    """The templates that were found: their error when they were, in pixels at 256x256, and on which frame."""
    tracker, finder = Tracker(model, POINTS * len(VIEWS), 4, engine="auto"), Finder(templates.templates)
    found: dict[str, tuple[float, int]] = {}
    for frame, (picture, matrix) in enumerate(pictures):
        if not frame:
            finder.begin(tracker)
        tracks = finder.sift(tracker.step(picture), tracker)
        for id, label in tracks.labels.items():
            if label.name and label.name not in found:
                error = np.inf
                if matrix is not None:
                    truth = matrix[:, :2] @ (places[int(label.name[1:])] - 0.5) + matrix[:, 2] + 0.5
                    error = float(np.linalg.norm(tracks.xy[tracks.ids == id][0] - truth)) * 256 / SIDE
                found[label.name] = error, frame
    return found


if __name__ == "__main__":
    run(measure)
