"""`online-tapir weights`: lists, fetches, converts, verifies and describes weights files."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console

from online_tapir.errors import ConfigError, WeightsError
from online_tapir.files import refuse_unwritable

if TYPE_CHECKING:
    from online_tapir.model.checkpoint import Weights
    from online_tapir.model.weights_store import Release

weights_app = App(name="weights", help="The public checkpoints, and weights files: list, get, convert, verify, info.")

NameOrFile = Annotated[str, Parameter(help="A preset (see `weights list`) or a weights file.")]
Preset = Annotated[str | None, Parameter(help="Preset of the file. [default: the one that its tensors fit]")]


@weights_app.command(name="list")
def list_() -> None:
    """List the presets, where their weights come from, and which are on this machine."""
    from rich.table import Column, Table

    from online_tapir.model.checkpoint import EMBEDDED
    from online_tapir.model.weights_store import RELEASES, cache_folder, cached

    table = Table("preset", "here", "size", "licence", Column("address", overflow="fold"))
    for name in EMBEDDED:
        table.add_row(name, "yes", "", "Apache-2.0", "inside the package")
    for release in RELEASES.values():
        size = f"{release.size / 1e6:.1f} MB" if release.size is not None else "not known"
        table.add_row(release.name, "yes" if cached(release) else "no", size, release.licence, release.address)
    console = _console()
    console.print(table)
    console.print(f"kept in {cache_folder()}")


@weights_app.command
def get(
    name: Annotated[str, Parameter(help="A published checkpoint, see `weights list`.")],
    *,
    from_: Annotated[
        Path | None, Parameter(name="--from", help="Read it from this file, on a machine without a network.")
    ] = None,
) -> None:
    """Fetch a published checkpoint into the cache and verify it; resumes interrupted downloads."""
    from online_tapir.model import weights_store
    from online_tapir.model.checkpoint import inspect

    def check(path: Path) -> None:
        inspect(path, name)

    release = weights_store.release(name)
    console = _console()
    here = weights_store.cached(release)
    if here is not None and from_ is None:
        try:
            weights_store.verify(here, release)
        except WeightsError as error:
            console.print(f"{error}; fetching it again")
            here.unlink()
        else:
            console.print(f"{name} is here already: {here}")
            return
    path = weights_store.get(release, check, from_) if from_ is not None else weights_store.fetched(release, check)
    console.print(f"{name}: {path}")
    console.print(_what_was_checked(release))


@weights_app.command
def convert(
    source: Annotated[Path, Parameter(help="A weights file, in any supported form.")],
    target: Annotated[Path, Parameter(help="The .safetensors file to write.")],
    *,
    preset: Preset = None,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], Parameter(help="Number format to store.")] = "float32",
) -> None:
    """Write a checkpoint in this project's own format, which includes its configuration."""
    from online_tapir.model.checkpoint import DTYPES, inspect, save_weights
    from online_tapir.model.tapir import Tapir

    if target.suffix != ".safetensors":
        raise ConfigError(f"{target} would be a safetensors file; give it a name that ends in .safetensors")
    refuse_unwritable("TARGET", target)
    weights = inspect(source, preset)
    model = Tapir(weights.config)
    model.load_state_dict(weights.state)
    save_weights(target, model, {"source": source.name, **weights.notes}, DTYPES[dtype])
    _console().print(f"{target}: preset {weights.config.name}, {_count(weights)} parameters in {dtype}")


@weights_app.command
def verify(name_or_file: NameOrFile, *, preset: Preset = None) -> None:
    """Check a file's size and hash, if they are published, and that its tensors are a model's; exits with 2 if not."""
    from online_tapir.model import weights_store
    from online_tapir.model.checkpoint import inspect

    path, release = _find(name_or_file)
    if release is not None:
        try:
            weights_store.verify(path, release)
        except WeightsError as error:
            raise WeightsError(f"{error}; `online-tapir weights get {release.name}` fetches it again") from error
    weights = inspect(path, preset or (release.name if release is not None else None))
    console = _console()
    console.print(f"{path} is intact: {_count(weights)} parameters of preset {weights.config.name}")
    console.print(f"SHA-256 {weights_store.sha256(path)}" if release is None else _what_was_checked(release))


@weights_app.command
def info(name_or_file: NameOrFile, *, preset: Preset = None) -> None:
    """Show what a weights file holds: its form, preset, parameters, configuration and notes."""
    from dataclasses import asdict

    from rich.table import Column, Table

    from online_tapir.model.checkpoint import inspect
    from online_tapir.model.weights_store import sha256

    path, release = _find(name_or_file)
    weights = inspect(path, preset or (release.name if release is not None else None))
    table = Table("", Column("", overflow="fold"), show_header=False, title=str(path), title_justify="left")
    table.add_row("form", weights.form)
    table.add_row("size", f"{path.stat().st_size:,} bytes")
    table.add_row("SHA-256", sha256(path))
    table.add_row("parameters", f"{_count(weights)} in {len(weights.state)} tensors")
    table.add_section()
    for field, value in asdict(weights.config).items():
        table.add_row(field, str(value))
    table.add_section()
    for note, text in weights.notes.items():
        table.add_row(note, text)
    _console().print(table)


def _find(name_or_file: str) -> "tuple[Path, Release | None]":
    """The file that the argument means, and its release if it names a published preset."""
    from online_tapir.model.checkpoint import EMBEDDED
    from online_tapir.model.weights_store import RELEASES, cached

    if name_or_file in EMBEDDED:
        return Path(str(files("online_tapir") / "weights" / f"{name_or_file}.safetensors")), None
    release = RELEASES.get(name_or_file)
    if release is None:
        return Path(name_or_file), None
    path = cached(release)
    if path is None:
        raise WeightsError(f"{name_or_file} is not here yet; run `online-tapir weights get {name_or_file}`")
    return path, release


def _what_was_checked(release: "Release") -> str:
    if release.sha256 is None:
        return "its size and SHA-256 are not published; every tensor's name and shape were checked"
    return "its size, its SHA-256 and every tensor's name and shape are correct"


def _count(weights: "Weights") -> str:
    return f"{sum(tensor.numel() for tensor in weights.state.values()):,}"


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)
