"""Places points on a picture: those of `--points` and `--mask` at the start, and replacements for lost ones.

Positions are image pixels, (0, 0) the corner of the first pixel, x before y.
"""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from online_tapir.errors import ConfigError, QueryError
from online_tapir.files import expanded
from online_tapir.limits import MOST_POINTS
from online_tapir.records import Label

Points = NDArray[np.float32]  # [N, 2] image pixels
Picture = NDArray[np.uint8]  # [H, W, 3] RGB

FORMS = "grid:12, grid:8x6, auto:64, random:64, x,y pairs such as '120.5,80 300,200', or a CSV file"
LONGEST_TOLD = 200  # characters of what was asked for
LABEL_COLUMNS = ("name", "group", "color")
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"  # which can be read in one way only: a typo takes no time
PAIRS = re.compile(rf"\s*{NUMBER}\s*,\s*{NUMBER}(?:[\s;]+{NUMBER}\s*,\s*{NUMBER})*[\s;]*")


class PointSource(Protocol):
    """Chooses the points of the first picture to track."""

    @property
    def labels(self) -> Sequence[Label]:
        """Their names and groups, one for each; empty if they have none."""

    def place(self, rgb: Picture) -> Points:
        """Points on rgb [H, W, 3]: float32 [N, 2] image pixels. Raises QueryError when they cannot lie on it."""


def parse_points(spec: str, *, seed: int = 0) -> PointSource:
    """The source that spec names: one of grid:12, grid:8x6, auto:64, random:64, `x,y x,y`, or a CSV file.

    Raises ConfigError, which names the line of a CSV file.
    """
    kind, colon, argument = spec.strip().partition(":")
    if colon and kind == "grid":
        return Grid(*_grid_size(argument))
    if colon and kind == "auto":
        return Corners(_count(spec, argument), seed)
    if colon and kind == "random":
        return Scattered(_count(spec, argument), seed)
    if PAIRS.fullmatch(spec):
        numbers = [float(number) for number in re.findall(NUMBER, spec)]
        return Listed(np.array(numbers, np.float32).reshape(-1, 2))
    return read_csv(expanded(spec))


@dataclass(frozen=True, slots=True)
class Grid:
    """The centres of columns x rows equal cells, row by row."""

    labels: ClassVar[Sequence[Label]] = ()
    columns: int
    rows: int

    def place(self, rgb: Picture) -> Points:
        height, width = rgb.shape[:2]
        x = (np.arange(self.columns) + 0.5) * width / self.columns
        y = (np.arange(self.rows) + 0.5) * height / self.rows
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Corners:
    """Corners worth tracking, spread over the picture; if it has too few, random places between them."""

    labels: ClassVar[Sequence[Label]] = ()
    count: int
    seed: int = 0

    def place(self, rgb: Picture) -> Points:
        return replenish(rgb, np.empty((0, 2), np.float32), self.count, seed=self.seed)


@dataclass(frozen=True, slots=True)
class Scattered:
    """Random places, the same for the same seed."""

    labels: ClassVar[Sequence[Label]] = ()
    count: int
    seed: int = 0

    def place(self, rgb: Picture) -> Points:
        height, width = rgb.shape[:2]
        return (np.random.default_rng(self.seed).random((self.count, 2)) * (width, height)).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """Points given one by one, with a label each if they have any."""

    xy: Points
    labels: Sequence[Label] = ()

    def place(self, rgb: Picture) -> Points:
        check_inside(self.xy, rgb.shape[1], rgb.shape[0])
        return self.xy.copy()


NOWHERE = Listed(np.empty((0, 2), np.float32))


class MaskPoints:
    """About `count` points on a square grid inside one object of a mask.

    file is a one-channel image whose pixels are object ids, or an .npy of bool (object 1) or whole numbers [H, W], as
    large as the pictures. Raises ConfigError when it cannot be read, QueryError when it has no object of that id.
    """

    labels: Sequence[Label] = ()

    def __init__(self, file: Path, id: int = 1, count: int = 64) -> None:
        ids = read_mask(file)
        self.file = file
        self._mask = ids == id  # [H, W]
        self._count = count
        if not self._mask.any():
            there = [str(value) for value in np.unique(ids).tolist() if value != 0]
            listed = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
            has = f"it has {listed}; choose with --mask-id" if there else "it is empty"
            raise QueryError(f"mask {file.name} has no object {id}: {has}")

    def place(self, rgb: Picture) -> Points:
        if rgb.shape[:2] != self._mask.shape:
            mask, frame = (f"{shape[1]}x{shape[0]}" for shape in (self._mask.shape, rgb.shape))
            raise QueryError(
                f"mask {self.file.name} is {mask}, the frames are {frame}; give a mask as large as the frames"
            )
        pitch = math.sqrt(self._mask.sum() / self._count)
        while not len(xy := grid_inside(self._mask, pitch)):
            pitch /= 2  # the object is too thin for so coarse a grid
        return xy


def check_inside(xy: ArrayLike, width: int, height: int) -> None:
    """Raise QueryError, naming the first, unless all of xy [N, 2] are finite with 0 <= x <= width, 0 <= y <= height."""
    points = np.asarray(xy, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise QueryError(f"points are [N, 2], x before y, not {list(points.shape)}")
    inside = ((points >= 0) & (points <= (width, height))).all(axis=1)  # NaN compares false
    if not inside.all():
        first = int(np.argmin(inside))
        x, y = points[first]
        raise QueryError(
            f"point {first} at ({x:g}, {y:g}) is outside the {width}x{height} frame; "
            f"x goes from 0 to {width}, y from 0 to {height}"
        )


def replenish(rgb: Picture, xy_alive: Points, want: int, *, seed: int = 0) -> Points:
    """`want` new points float32 [want, 2] on rgb [H, W, 3], away from those alive [M, 2] and from each other.

    Takes the strongest corners first (Shi and Tomasi, "Good features to track", 1994), far apart, then closer together.
    When the corners run out, takes random places as far from the others as possible.
    """
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    height, width = gray.shape
    xy = np.asarray(xy_alive, np.float32).reshape(-1, 2)
    xy = xy[((xy >= 0) & (xy <= (width, height))).all(axis=1)]  # some tracks have left the picture
    alive = len(xy)
    pitch = math.sqrt(width * height / max(alive + want, 1))
    for distance in (0.7 * pitch, 0.35 * pitch, 0.175 * pitch):
        missing = alive + want - len(xy)
        if missing > 0:
            xy = np.concatenate([xy, corners_apart(gray, xy, missing, distance)])
    rng = np.random.default_rng(seed)
    while len(xy) < alive + want:
        xy = np.concatenate([xy, loneliest(xy, width, height, rng)])
    return np.asarray(xy[alive:], np.float32)


def corners_apart(gray: NDArray[Any], taken: Points, count: int, distance: float) -> Points:
    """At most count corners of gray [H, W], `distance` from taken [M, 2] and each other, a little off the edge."""
    margin = max(1, round(0.02 * min(gray.shape)))
    free = np.zeros(gray.shape, np.uint8)
    free[margin:-margin, margin:-margin] = 255
    for x, y in taken:
        cv2.circle(free, (int(x), int(y)), math.ceil(distance), 0, -1)
    found = cv2.goodFeaturesToTrack(gray, count, qualityLevel=0.01, minDistance=distance, mask=free)
    if found is None:
        return np.empty((0, 2), np.float32)
    return np.asarray(found.reshape(-1, 2) + 0.5, np.float32)  # OpenCV counts from the centre of the first pixel


def loneliest(xy: Points, width: int, height: int, rng: Generator) -> Points:
    """The one [1, 2] of sixteen random places that is farthest from its nearest neighbour in xy [M, 2]."""
    places = (rng.random((16, 2)) * (width, height)).astype(np.float32)
    if not len(xy):
        return places[:1]
    to_nearest = np.linalg.norm(places[:, None] - xy, axis=-1).min(axis=1)  # [16]
    best = int(np.argmax(to_nearest))
    return np.asarray(places[best : best + 1])


def grid_inside(mask: NDArray[np.bool_], pitch: float) -> Points:
    """The points of a square grid, centred on mask [H, W], that lie in it: [N, 2], row by row."""
    rows, columns = np.nonzero(mask)
    x = _centred(columns.min(), columns.max() + 1, pitch)
    y = _centred(rows.min(), rows.max() + 1, pitch)
    xy = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return np.asarray(xy[mask[xy[:, 1].astype(int), xy[:, 0].astype(int)]], np.float32)


def read_mask(file: Path) -> NDArray[Any]:
    """The object ids [H, W] in a mask file. Raises ConfigError."""
    if not file.is_file():
        raise ConfigError(f"there is no mask file {file}")
    if file.suffix.lower() == ".npy":
        try:
            ids: NDArray[Any] = np.load(file, allow_pickle=False)
        except Exception as error:  # a damaged header may raise any error
            raise ConfigError(f"mask {file} is not an .npy array, or is damaged: {error}") from error
    else:
        try:
            image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise ConfigError(f"mask {file} is damaged, or larger than OpenCV reads: {error.err or error}") from error
        if image is None:
            raise ConfigError(f"mask {file} is neither an image that OpenCV can read nor an .npy")
        ids = np.asarray(image)
    if ids.ndim != 2 or ids.dtype.kind not in "bui":
        raise ConfigError(
            f"mask {file.name} is {ids.dtype} {list(ids.shape)}; a mask is one channel of object ids: "
            f"a grey image, or an .npy of bool or whole numbers [H, W]"
        )
    return ids


def read_csv(file: Path) -> Listed:
    """Points from columns x and y; without a header, the first two. A header may also have name, group and color.

    Raises ConfigError naming the line.
    """
    try:
        there = file.is_file()
    except (OSError, ValueError):  # too long for a name, for instance
        there = False
    if not there:
        told = str(file) if len(str(file)) <= LONGEST_TOLD else f"{str(file)[:LONGEST_TOLD]}..."
        raise ConfigError(f"--points {told} is neither a file nor one of {FORMS}")
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(_rows(file.name, csv.reader(lines)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file} cannot be read as CSV: {error}") from error
    if not rows:
        raise ConfigError(f"{file} has no points in it; write one x,y per line")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, outside every frame
        xy = np.array([(x, y) for x, y, _ in rows], np.float32)
    labels = [label for _, _, label in rows]
    return Listed(xy, labels if any(label != Label() for label in labels) else ())


def _rows(name: str, reader: Any) -> Iterator[tuple[float, float, Label]]:
    x, y, heading_may_come = 0, 1, True
    more: dict[str, int] = {}  # columns of the label
    for row in reader:
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        headings = [cell.lower() for cell in cells]
        if heading_may_come and "x" in headings and "y" in headings:
            x, y = headings.index("x"), headings.index("y")
            more = {heading: column for column, heading in enumerate(headings) if heading in LABEL_COLUMNS}
        else:
            line = reader.line_num
            texts = {heading: cells[column] for heading, column in more.items() if column < len(cells)}
            label = Label(texts.get("name", ""), texts.get("group", ""), _color(name, line, texts.get("color", "")))
            yield _number(name, line, cells, x), _number(name, line, cells, y), label
        heading_may_come = False


def _color(name: str, line: int, text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise ConfigError(f"{name} line {line}: {text[:40]!r} is no colour; write #ff8800")
    return int(text[1:], 16)


def _number(name: str, line: int, cells: list[str], column: int) -> float:
    if column >= len(cells):
        raise ConfigError(f"{name} line {line}: {','.join(cells)!r} has no column {column + 1}; a line is x,y")
    if not re.fullmatch(NUMBER, cells[column]):
        raise ConfigError(f"{name} line {line}: {cells[column]!r} is not a number; a line is x,y in image pixels")
    return float(cells[column])


def _centred(low: int, high: int, pitch: float) -> NDArray[np.float64]:
    """Numbers `pitch` apart, centred in low..high; at least one."""
    count = max(1, int((high - low) / pitch))
    steps = np.arange(count, dtype=np.float64) - (count - 1) / 2
    return steps * pitch + (low + high) / 2


def _grid_size(argument: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,3})(?:x([1-9]\d{0,3}))?", argument, re.ASCII)
    if match is None:
        raise ConfigError(
            f"--points grid:{argument} is not a grid; write grid:12 for 12x12, or grid:8x6 for 8 by 6 points"
        )
    columns = int(match[1])
    rows = int(match[2] or columns)
    _check_count(f"grid:{argument}", columns * rows)
    return columns, rows


def _count(spec: str, argument: str) -> int:
    if not re.fullmatch(r"\d{1,18}", argument, re.ASCII):
        raise ConfigError(f"--points {spec} needs a whole number after the colon, such as auto:64")
    return _check_count(spec, int(argument))


def _check_count(spec: str, count: int) -> int:
    if not 1 <= count <= MOST_POINTS:
        raise ConfigError(f"--points {spec} asks for {count} points; give 1 to {MOST_POINTS}")
    return count
