"""What the benches' commands share: their errors, their flags, and how they run."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from online_tapir.errors import OnlineTapirError

Count = Number(gte=1)

# Flags that the benches share.
JsonFile = Annotated[Path | None, Parameter(help="Write the JSON document to this file, too.")]
PlotFile = Annotated[Path | None, Parameter(help="Draw the figures into this .svg or .png.")]


class BenchError(OnlineTapirError):
    """A bench cannot produce its figures."""


def pixels(size: str) -> tuple[int, int]:
    """Width and height of WIDTHxHEIGHT."""
    try:
        width, height = map(int, size.split("x"))
    except ValueError:
        raise BenchError(f"size {size!r} is not WIDTHxHEIGHT; write 640x480, for instance") from None
    return width, height


def run(bench: Callable[..., None], words: Sequence[str] | None = None) -> None:
    """Runs a bench with command-line arguments `words`; an error is printed as one line, with exit code 2."""
    app = App()
    app.default(bench)
    try:
        app(sys.argv[1:] if words is None else words)
    except OnlineTapirError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
