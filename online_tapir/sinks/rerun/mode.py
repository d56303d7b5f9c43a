"""Parses `--rerun`, and picks the default viewer for this machine. Does not import rerun."""

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from online_tapir.errors import ConfigError

HOST = "127.0.0.1"  # rerun's own default is every interface: anyone on the network could watch
GRPC_PORT = 9876

Way = Literal["spawn", "serve", "connect", "save", "off"]


@dataclass(frozen=True)
class RerunMode:
    """Which viewer; `target` is the URL for connect, the file for save."""

    way: Way
    target: str = ""

    def __str__(self) -> str:
        return f"{self.way}={self.target}" if self.target else self.way


def parse_rerun_mode(text: str) -> RerunMode:
    """Parses `spawn`, `serve`, `off`, `connect=URL` or `save=FILE.rrd`. Raises `ConfigError` for anything else."""
    way, equals, target = text.partition("=")
    match way, bool(equals), bool(target):
        case (("spawn" | "serve" | "off"), False, _):
            return RerunMode(way)
        case "connect", _, True:
            if not target.startswith(("rerun://", "rerun+http://", "rerun+https://")):
                raise ConfigError(
                    f"--rerun {text}: a viewer's address begins with rerun+http://, for example "
                    f"connect=rerun+http://{HOST}:{GRPC_PORT}/proxy"
                )
            return RerunMode("connect", target)
        case "save", _, True:
            if not target.endswith(".rrd"):
                raise ConfigError(f"--rerun {text}: a Rerun recording ends in .rrd; write save=FILE.rrd")
            return RerunMode("save", target)
    raise ConfigError(f"--rerun {text!r} is none of spawn, serve, connect=URL, save=FILE.rrd, off")


def default_mode(environ: Mapping[str, str], platform: str = sys.platform) -> tuple[RerunMode, str]:
    """The mode for this machine, and the reason in one line."""
    if find_viewer() is None:
        return RerunMode("off"), "rerun's viewer is not installed, so nothing is shown; --rerun save=FILE.rrd records"
    if platform in ("win32", "darwin") or environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        return RerunMode("spawn"), "the Rerun viewer opens on this display; --rerun off disables it"
    return RerunMode("serve"), "no display here, so Rerun is served to a browser; --rerun off disables it"


def find_viewer() -> Path | None:
    """The viewer's executable: the one in the rerun package, otherwise the one on the PATH."""
    package = importlib.util.find_spec("rerun_cli")
    folders = package.submodule_search_locations or [] if package else []
    for folder in folders:
        for name in ("rerun", "rerun.exe", "Rerun.app/Contents/MacOS/Rerun"):
            if (program := Path(folder, name)).is_file():
                return program
    on_path = shutil.which("rerun")
    return Path(on_path) if on_path else None
