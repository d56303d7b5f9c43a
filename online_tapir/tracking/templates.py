"""What named points look like, kept in a file, so that they are found again in another video without a query frame.

One .safetensors file, of version 1; nothing in it is executed. Its metadata:

    format, version  "online-tapir/templates", "1"; any other version is refused
    model, weights   the name of the model and the SHA-256 of its weights; no other model can use them
    templates        JSON: [[name, group, colour, how many views], ...]

Its tensors hold the views of all templates, one after another: `match` float32 [V, C coarse], `refine` float32
[R, V, C fine + coarse, then their neighbours'], and `patches` uint8 [V, 48, 48, 3], the pictures around the points, for
people to look at.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from online_tapir.errors import QueryError, TemplateError
from online_tapir.files import replacing
from online_tapir.records import Label
from online_tapir.tracking.looks import Looks

if TYPE_CHECKING:
    from online_tapir.model.tapir import Tapir

FORMAT, VERSION = "online-tapir/templates", "1"
PATCH = 48  # pixels, the side of a picture around a point
MOST_VIEWS = 32  # of a template
MOST_TEMPLATES = 1024
LEAST_TEXTURE = 4.0  # grey levels, standard deviation within 12 pixels of a point; less cannot be told from elsewhere

Patches = NDArray[np.uint8]  # [V, 48, 48, 3]


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A named point and its views."""

    label: Label  # with a name
    looks: Looks  # V of them
    patches: Patches

    @property
    def name(self) -> str:
        return self.label.name

    @property
    def plain(self) -> bool:
        """Whether a view shows nothing that sets its point apart from its surroundings."""
        return any(texture(patch) < LEAST_TEXTURE for patch in self.patches)


@dataclass(frozen=True, slots=True, eq=False)
class Templates:
    """Templates of one model; their names differ."""

    model: str
    weights: str
    templates: tuple[Template, ...]

    def __post_init__(self) -> None:
        names = [template.name for template in self.templates]
        for name in names:
            if not name:
                raise TemplateError("a template has no name; name its point first")
            if names.count(name) > 1:
                raise TemplateError(f"two templates are called {name!r}; names are given once")
        if len(names) > MOST_TEMPLATES:
            raise TemplateError(f"{len(names)} templates are too many for a file; it holds {MOST_TEMPLATES}")

    @classmethod
    def made(cls, model: "Tapir", labels: Sequence[Label], looks: Looks, patches: Patches) -> "Templates":
        """Templates of one view each. Raises TemplateError for a name that is missing or given twice."""
        each = [Template(label, looks.taken([row]), patches[row : row + 1]) for row, label in enumerate(labels)]
        return cls(model.config.name, _digest(model), tuple(each))

    def with_views(self, more: "Templates") -> "Templates":
        """These, with the views of `more` added to the templates of the same name, and its other templates.

        The oldest views are given up beyond 32. Raises TemplateError for those of another model.
        """
        self._check(more.model, more.weights)
        own = {template.name: template for template in self.templates}
        for template in more.templates:
            before = own.get(template.name)
            if before is not None:
                looks = Looks.joined([before.looks, template.looks]).taken(slice(-MOST_VIEWS, None))
                patches = np.concatenate([before.patches, template.patches])[-MOST_VIEWS:]
                template = replace(before, looks=looks, patches=patches)
            own[template.name] = template
        return replace(self, templates=tuple(own.values()))

    def check(self, model: "Tapir") -> None:
        """Raises TemplateError unless the model can find points by them."""
        self._check(model.config.name, _digest(model))
        for template in self.templates:
            try:
                template.looks.check(model.config)
            except QueryError as error:
                raise TemplateError(f"template {template.name!r}: {error}") from error

    def _check(self, model: str, weights: str) -> None:
        if self.model != model:
            raise TemplateError(f"these are templates of model {self.model[:40]!r}, not of {model!r}; save them anew")
        if self.weights != weights:
            raise TemplateError(f"these are templates of other weights of model {model!r}; save them anew with these")

    def content(self) -> bytes:
        """The file."""
        looks = Looks.joined([template.looks for template in self.templates])
        listed = [[one.label.name, one.label.group, one.label.color, one.looks.points] for one in self.templates]
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "weights": self.weights,
            "templates": json.dumps(listed),
        }
        patches = np.concatenate([template.patches for template in self.templates])
        tensors = {"match": looks.match, "refine": looks.refine, "patches": patches}
        return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata)


def write(path: Path, templates: Templates) -> None:
    """Writes them atomically. Raises TemplateError if there are none or the file cannot be written."""
    if not templates.templates:
        raise TemplateError("there are no templates to save: name points first, and let them be visible")
    try:
        with replacing(path) as partial:
            partial.write_bytes(templates.content())
    except OSError as error:
        raise TemplateError(f"the templates cannot be saved to {path}: {error.strerror or error}") from error


def read(path: Path) -> Templates:
    """Reads templates. Raises TemplateError for a file that is missing, damaged, or of another kind or version."""
    try:
        return parse(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        raise TemplateError(f"there are no templates {path}; check the path") from error
    except OSError as error:
        raise TemplateError(f"{path} cannot be read: {error.strerror or error}") from error


def parse(content: bytes, name: str = "what came") -> Templates:
    """`read` of a file's content, which is called `name` in errors."""
    try:
        tensors = load(content)
        head = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + head]).get("__metadata__", {})
        if metadata.get("format") != FORMAT:
            raise TemplateError(f"{name} holds no templates; give a file of `online-tapir templates save`")
        if metadata.get("version") != VERSION:
            found = str(metadata.get("version", "none"))[:40]
            raise TemplateError(f"{name} has format version {found}, this program reads {VERSION}; upgrade it")
        return _parsed(metadata, tensors)
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise TemplateError(f"{name} is damaged ({str(error)[:80]}); save the templates anew") from error


def _parsed(metadata: dict[str, str], tensors: dict[str, Any]) -> Templates:
    match, refine, patches = (tensors[name] for name in ("match", "refine", "patches"))
    listed = json.loads(metadata["templates"])
    views = sum(count for *_, count in listed)
    if not 0 < len(listed) <= MOST_TEMPLATES or views > MOST_TEMPLATES * MOST_VIEWS:
        raise ValueError(f"{len(listed)} templates")
    shapes = (match.ndim, len(match), refine.ndim, refine.shape[1], patches.shape)
    if shapes != (2, views, 3, views, (views, PATCH, PATCH, 3)):
        raise ValueError(f"tensors of shapes {match.shape}, {refine.shape} and {patches.shape} for {views} views")
    if (match.dtype, refine.dtype, patches.dtype) != (np.float32, np.float32, np.uint8):
        raise ValueError("tensors of other types")
    looks, each, first = Looks(match, refine), [], 0
    for name, group, color, count in listed:
        if not (isinstance(name, str) and isinstance(group, str) and isinstance(color, int | None) and count > 0):
            raise ValueError("a label that is none")
        rows = slice(first, first + count)
        each.append(Template(Label(name, group, color), looks.taken(rows), patches[rows]))
        first += count
    return Templates(metadata["model"], metadata["weights"], tuple(each))


def patches_of(rgb: NDArray[np.uint8], xy: NDArray[np.float32]) -> Patches:
    """The pictures [P, 48, 48, 3] around points xy [P, 2] (image pixels); the edge of the frame is repeated."""
    half = PATCH // 2
    padded = cv2.copyMakeBorder(rgb, half, half, half, half, cv2.BORDER_REPLICATE)
    corners = np.clip(xy.astype(int), 0, (rgb.shape[1] - 1, rgb.shape[0] - 1))
    found = [padded[y : y + PATCH, x : x + PATCH] for x, y in corners.tolist()]
    return np.array(found, np.uint8).reshape(-1, PATCH, PATCH, 3)


def texture(patch: NDArray[np.uint8]) -> float:
    """The standard deviation of the grey levels within 12 pixels of the middle of a patch."""
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)
    half = PATCH // 4
    return float(grey[half:-half, half:-half].std())


def contact_sheet(templates: Templates) -> NDArray[np.uint8]:
    """A picture of all views: a row for each template, in their order."""
    widest = max(template.looks.points for template in templates.templates)
    sheet = np.full((len(templates.templates) * PATCH, widest * PATCH, 3), 24, np.uint8)
    for row, template in enumerate(templates.templates):
        for column, patch in enumerate(template.patches):
            sheet[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = patch
    return sheet


def _digest(model: "Tapir") -> str:
    from online_tapir.model.digest import digest  # loads torch, which a reader of templates does not need

    return digest(model)
