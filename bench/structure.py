"""Draws the package's folders (rooms) and the imports between them, and prints figures of its structure.

`python -m bench.structure` prints the imports from room to room and the figures; `--svg FILE` draws them.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bench.command import run

ROOT = Path(__file__).parents[1] / "online_tapir"
PACKAGE = "online_tapir"
# A room may import itself and the rooms of lines above it; `base` is the files at the top of the package.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("base",),
    ("wire", "model", "drawing", "points"),
    ("engines", "camera", "scenes"),
    ("tracking",),
    ("evaluation", "recording", "flow"),
    ("live",),
    ("train", "control"),
    ("sinks", "web", "window", "testing"),
    ("launch",),
    ("fleet",),
    ("cli",),
)


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement between files of the package."""

    source: str  # dotted modules
    target: str


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package stands for its `__init__.py`."""
    found: dict[str, Path] = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports() -> Iterator[Import]:
    """Every import from one module of the package to another, anywhere in a file."""
    known = modules()
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = {one if one in known else node.module for one in inner}
            elif isinstance(node, ast.Import):
                targets = {alias.name for alias in node.names if alias.name in known}
            else:
                continue
            for target in sorted(targets):
                if target != name and target in known:
                    yield Import(name, target)


def room(module: str) -> str:
    """The folder that a module lies in; `base` for most files at the top."""
    parts = module.split(".")
    if module in (f"{PACKAGE}.testing",):
        return "testing"
    if module == f"{PACKAGE}.__main__":
        return "cli"
    return parts[1] if len(parts) > 2 or (len(parts) == 2 and (ROOT / parts[1]).is_dir()) else "base"


def between_rooms() -> dict[str, set[str]]:
    """The rooms that each room imports from."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in imports():
        source, target = room(one.source), room(one.target)
        if source != target and one.source != PACKAGE:  # the package itself imports lazily from everywhere
            found[source].add(target)
    return dict(found)


def circles() -> list[list[str]]:
    """Groups of modules that import each other in a circle, by Tarjan's algorithm."""
    graph: dict[str, list[str]] = defaultdict(list)
    for one in imports():
        if one.source != PACKAGE:
            graph[one.source].append(one.target)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in graph.get(name, ()):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in list(graph):
        if name not in index:
            visit(name)
    return found


def functions() -> Iterator[tuple[str, int, int]]:
    """Every function of the package: its name, its lines and its parameters."""
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
                assert node.end_lineno is not None
                yield f"{name}.{node.name}", node.end_lineno - node.lineno + 1, count


def draw(path: Path) -> None:
    """The rooms in their layers, an arrow for every import from room to room."""
    from matplotlib.figure import Figure

    places = {
        name: ((column + 0.5) / len(layer), len(LAYERS) - row)
        for row, layer in enumerate(reversed(LAYERS))
        for column, name in enumerate(layer)
    }
    figure = Figure(figsize=(9, 8))
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0.4, len(LAYERS) + 0.6)
    for source, targets in sorted(between_rooms().items()):
        for target in sorted(targets):
            style = {"arrowstyle": "->", "color": "#7a8b99", "alpha": 0.45, "connectionstyle": "arc3,rad=0.08"}
            axes.annotate(
                "", xy=places[target], xytext=places[source], arrowprops=style | {"shrinkA": 16, "shrinkB": 16}
            )
    for name, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.5", "facecolor": "#e8f1f2", "edgecolor": "#1b4965"}
        axes.text(x, y, name, ha="center", va="center", fontsize=11, bbox=box)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


def main(*, svg: Annotated[Path | None, Parameter(help="Draw the rooms into this file.")] = None) -> None:
    """Print the imports from room to room and the figures of the structure."""
    for source, targets in sorted(between_rooms().items()):
        print(f"{source:12} -> {', '.join(sorted(targets))}")
    everything = list(functions())
    longest, most = max(everything, key=lambda f: f[1]), max(everything, key=lambda f: f[2])
    readme = (ROOT.parent / "README.md").read_text(encoding="utf-8").count("\n")
    print(f"files at the top of {PACKAGE}/: {len(list(ROOT.glob('*.py')))}")
    print(f"longest function: {longest[0]}, {longest[1]} lines; most parameters: {most[0]}, {most[2]}")
    print(f"import circles: {len(circles())}; lines of README.md: {readme}")
    if svg is not None:
        draw(svg)


if __name__ == "__main__":
    run(main)
