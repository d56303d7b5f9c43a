"""`online-tapir templates`: keeps what named points look like, so that another run finds them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from online_tapir.cli.control import HERE, Where, reached
from online_tapir.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from online_tapir.tracking.templates import Templates

templates_app = App(name="templates", help="Keep what named points look like, for `online-tapir --templates`.")

File = Annotated[Path, Parameter(help="The .templates file.")]


@templates_app.command
def save(
    file: File,
    *,
    from_run: Annotated[
        bool, Parameter(help="From a running tracker: its visible points that have a name, as they look now.")
    ] = False,
    image: Annotated[Path | None, Parameter(help="From this picture, with --points or --mask.")] = None,
    points: Annotated[str | None, Parameter(help="Which points of it: a CSV file with names, or as --points.")] = None,
    mask: Annotated[Path | None, Parameter(help="A grid of points inside an object of this mask.")] = None,
    mask_id: Annotated[int, Parameter(help="Which object of the mask.", validator=Number(gte=1))] = 1,
    group: Annotated[str, Parameter(help="Their group; points without a name are called after it: cup 1, cup 2.")] = "",
    model: Annotated[str, Parameter(help="Preset or .safetensors file that will track them.")] = "small",
    turned: Annotated[
        bool,
        Parameter(
            help="With --image: also add views of the picture turned by 22 degrees and at 0.7 and 1.4 times its size, "
            "as a view is found only by what looks much the same."
        ),
    ] = True,
    add: Annotated[bool, Parameter(help="Add views, and points, to those that the file has already.")] = False,
    where: Where = HERE,
) -> None:
    """Save templates: from a run, or from a picture and points."""
    from online_tapir.tracking import templates

    if from_run == (image is not None):
        raise ConfigError("templates come from a run or from a picture; give --from-run, or --image with --points")
    if from_run:
        with reached(where) as controller:
            found = templates.parse(controller.templates())
    else:
        assert image is not None
        found = _from_picture(image, points, mask, mask_id, group, model, turned=turned)
    if add and file.exists():
        found = templates.read(file).with_views(found)
    elif file.exists() and not add:
        raise ConfigError(f"{file} exists; give --add to add views to it, or name another file")
    templates.write(file, found)
    for template in found.templates:
        plain = "; its surroundings are plain, so it may be found late or nowhere" if template.plain else ""
        print(f"{template.name}: {_views(template.looks.points)}{plain}")


@templates_app.command
def show(
    file: File, *, picture: Annotated[Path | None, Parameter(help="Also write all views into this picture.")] = None
) -> None:
    """List the templates of a file."""
    from online_tapir.tracking import templates

    found = templates.read(file)
    print(f"templates of model {found.model}, weights {found.weights[:12]}")
    for template in found.templates:
        group = f" ({template.label.group})" if template.label.group else ""
        print(f"{template.name}{group}: {_views(template.looks.points)}{', plain' if template.plain else ''}")
    if picture is not None:
        import cv2

        sheet = cv2.cvtColor(templates.contact_sheet(found), cv2.COLOR_RGB2BGR)
        try:
            written = cv2.imwrite(str(picture), sheet)
        except cv2.error as error:
            raise ConfigError(f"cannot write {picture}: name a .png or .jpg") from error
        if not written:
            raise ConfigError(f"cannot write {picture}; check the folder")


def _from_picture(
    image: Path, points: str | None, mask: Path | None, mask_id: int, group: str, model: str, *, turned: bool
) -> "Templates":
    from online_tapir.model.checkpoint import load_model
    from online_tapir.points.placement import MaskPoints, parse_points
    from online_tapir.records import Label
    from online_tapir.tracking.picture_templates import PLAIN, VIEWS, from_picture

    if (points is None) == (mask is None):
        raise ConfigError("say which points of the picture: give --points or --mask")
    rgb = _picture(image)
    source = MaskPoints(mask, mask_id) if mask is not None else parse_points(points or "")
    xy = source.place(rgb)
    given = list(source.labels) or [Label()] * len(xy)
    labels = [
        replace(label, name=label.name or (f"{group} {number}" if group else ""), group=label.group or group)
        for number, label in enumerate(given, 1)
    ]
    if any(not label.name for label in labels):
        raise ConfigError("the points have no names; give a CSV file with names, or --group to number them")
    return from_picture(load_model(model), rgb, xy, labels, VIEWS if turned else PLAIN)


def _picture(path: Path) -> "NDArray[np.uint8]":
    import cv2

    from online_tapir.picture import bgr_to_rgb8

    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if found is None:
        raise ConfigError(f"{path} is no picture that can be read; check the path")
    return bgr_to_rgb8(found)


def _views(count: int) -> str:
    return "1 view" if count == 1 else f"{count} views"
