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
    What is written gets the camera's name into its path, unless a table names it. Raises ConfigError.
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
    keys = [config.source.name or f"camera{number}" for number, config in enumerate(configs, 1)]
    named = zip(configs, keys, asked, strict=True)
    return [replace(config, output=own_outputs(config.output, key, table)) for config, key, table in named]


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
