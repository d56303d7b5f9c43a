"""Several cameras on one command line: `--camera` again and again, or `[[camera]]` tables in a TOML file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from online_tapir.errors import ConfigError
from online_tapir.launch.config import LiveConfig
from online_tapir.launch.tables import own_outputs

FLAG = "--camera"
Parse = Callable[[list[str], dict[str, Any]], LiveConfig]  # words, and settings that rank below them


def several(words: Sequence[str], tables: Sequence[dict[str, Any]], parse: Parse) -> list[LiveConfig]:
    """The configuration of every camera; empty where there is at most one, which needs nothing special.

    All other words hold for every camera. A table's settings are that camera's own; `source` may stand for `camera`.
    What is written gets the camera's name into its path, unless a table names the path. Raises ConfigError.
    """
    sources, rest = split(words)
    if sources and tables:
        raise ConfigError("cameras come from --camera or from [[camera]] tables of the file, not from both")
    if len(sources) < 2 and not tables:
        return []
    asked = [dict(table) if isinstance(table, dict) else {"camera": table} for table in tables] or [
        {"camera": source} for source in sources
    ]
    for table in asked:
        if "source" in table:
            table["camera"] = table.pop("source")
        if not isinstance(table.get("camera"), str):
            raise ConfigError("a [[camera]] table names no source; give it, for example source = '/dev/video0'")
    configs = [parse(rest, table) for table in asked]
    if len(configs) == 1:
        return configs
    names = names_of([(config.source.name, config.source.camera) for config in configs])
    kept = [str(path) for config in configs if (path := config.output.save_state or config.output.resume)]
    alike = repeated([config.source.camera for config in configs if not config.source.name])
    if alike is not None and len(set(kept)) < len(kept):
        raise ConfigError(
            f"two cameras would be called {alike!r}, and points are saved by that name; give each its own, in a "
            f"[[camera]] table"
        )
    return [
        replace(config, source=replace(config.source, name=name), output=own_outputs(config.output, name, table))
        for config, name, table in zip(configs, names, asked, strict=True)
    ]


def repeated(sources: Sequence[str]) -> str | None:
    """A name that several sources make; which of them gets it depends on their order."""
    from online_tapir.camera.opencv import source_name

    names = [source_name(source) for source in sources]
    return next((name for name in names if names.count(name) > 1), None)


def names_of(cameras: Sequence[tuple[str | None, str]]) -> list[str]:
    """What cameras are called: as they are told (name, source), or by their sources; of those alike, by their order."""
    from online_tapir.camera.base import free_name
    from online_tapir.camera.opencv import source_name  # slow to import

    taken = {name for name, _ in cameras if name}
    found = []
    for name, source in cameras:
        found.append(name or free_name(source_name(source), taken))
        taken.add(found[-1])
    return found


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sources that the words name with `--camera`, and the other words."""
    sources, rest = [], []
    left: Iterator[str] = iter(words)
    for word in left:
        if word == FLAG:
            sources.append(next(left, ""))
        elif word.startswith(f"{FLAG}="):
            sources.append(word.partition("=")[2])
        else:
            rest.append(word)
    return sources, rest
