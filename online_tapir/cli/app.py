"""The command line: `online-tapir` alone tracks; everything else is a sub-command. User errors exit with 2.

Each command imports what it needs when it runs, so that `online-tapir listen` starts without torch.
"""

import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO, cast

from cyclopts import App, ArgumentCollection, CycloptsError, UnusedCliTokensError
from cyclopts.config import Dict, Env, Toml
from rich.console import Console
from rich.markup import escape

from online_tapir.cli.cameras import several
from online_tapir.cli.control import control_app
from online_tapir.cli.export import export
from online_tapir.cli.fleet import fleet_app
from online_tapir.cli.info import cameras, info
from online_tapir.cli.keys import keys_app
from online_tapir.cli.listen import listen
from online_tapir.cli.live import live
from online_tapir.cli.live import run as run_cameras
from online_tapir.cli.quantize import quantize
from online_tapir.cli.replay import replay
from online_tapir.cli.scoring import evaluate
from online_tapir.cli.templates import templates_app
from online_tapir.cli.training import distil, scenes, train
from online_tapir.cli.weights import weights_app
from online_tapir.errors import ConfigError, OnlineTapirError
from online_tapir.launch.config import LiveConfig
from online_tapir.streams import Forgiving, Watched, open_standard_streams, settle

# What a light install leaves out (requirements-light.txt), by the name that is imported.
LEFT_OUT = {
    "torch": "torch",
    "rerun": "rerun-sdk",
    "av": "av",
    "pyarrow": "pyarrow",
    "prometheus_client": "prometheus-client",
    "openvino": "openvino",
}
USER_ERROR = 2
INTERRUPTED = 130


def _version() -> str:
    from importlib.metadata import version

    return version("online-tapir")


class Environment(Env):
    """Flags from the environment, but for the `--camera` of a sub-command: there it chooses one of those that run."""

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        others = [argument for argument in arguments if not (commands and argument.name == "--camera")]
        super().__call__(app, commands, ArgumentCollection(others))  # type: ignore[no-untyped-call]


app = App(
    name="online-tapir",
    help="Follow points on live video: published over ZeroMQ, shown in Rerun.\n\n"
    "Every flag below can also be set in a TOML file (`--config FILE.toml`; keys are flag names without the leading "
    "dashes) or in an environment variable. `--debug` shows the traceback of an error.",
    version=_version,
)
app.default(live)
for command in (cameras, info, listen, replay, export, quantize, train, distil, scenes):
    app.command(command)
app.command(evaluate, name="eval")
for sub_commands in (weights_app, control_app, templates_app, keys_app, fleet_app):
    app.command(sub_commands)
app.register_install_completion_command()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line and exits: 0 when all went well, 2 for a user's error, 130 for an early Ctrl-C."""
    open_standard_streams()
    out = Watched(sys.stdout)
    with redirect_stdout(cast(TextIO, out)):
        try:
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
        except (OSError, SystemExit):  # rich exits when a pipe's reader has left
            if out.error is None:
                raise
            code = 0
    unflushed = settle(sys.stdout)
    unwritten = None if out.forgiven else out.error or unflushed
    if unwritten is not None and not isinstance(unwritten, BrokenPipeError):  # a reader that leaves is not an error
        _complain(f"the standard output could not be written: {unwritten}")
        code = USER_ERROR
    settle(sys.stderr)
    if code:
        sys.exit(code)


def _run(words: list[str]) -> int:
    """The exit code of a command line."""
    debug = "--debug" in words
    try:
        words, tables = _with_settings([word for word in words if word != "--debug"])
        sub_command = bool(words) and not words[0].startswith("-")
        if configs := [] if sub_command else several(words, tables, _parse):
            run_cameras(configs)
            return 0
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except (OnlineTapirError, CycloptsError) as error:
        if debug:
            traceback.print_exc()
        _complain(_suggestion(error, words) or str(error))
        return USER_ERROR
    except ModuleNotFoundError as error:
        if debug or error.name not in LEFT_OUT:
            raise
        package = LEFT_OUT[error.name]
        _complain(f"this needs {error.name}, which is not installed: pip install {package}")
        return USER_ERROR
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        return INTERRUPTED
    return 0


def _with_settings(words: list[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """The words without `--config FILE`, and the file's `[[camera]]` tables.

    The file's other settings rank below the command line and the environment.
    """
    app.config = [Environment("ONLINE_TAPIR_", command=False)]
    for place, word in enumerate(words):
        if word != "--config" and not word.startswith("--config="):
            continue
        joined = "=" in word
        file = word.partition("=")[2] if joined else "".join(words[place + 1 : place + 2])
        if not Path(file).is_file():
            raise ConfigError(f"--config {file}: there is no such file; give a TOML file of flags")
        rest = words[:place] + words[place + (1 if joined else 2) :]
        settings = Toml(file, must_exist=True, use_commands_as_keys=False)
        tables = settings.config.get("camera")
        if not isinstance(tables, list):
            app.config = [*app.config, settings]
            return rest, []
        if not tables:
            raise ConfigError(f"{file}: camera is an empty list; name a source, or leave it out")
        others = {key: value for key, value in settings.config.items() if key != "camera"}
        app.config = [*app.config, Dict(others, source=file, use_commands_as_keys=False)]
        return rest, tables
    return words, []


def _parse(words: list[str], settings: dict[str, Any]) -> LiveConfig:
    """A camera's configuration from words and its own settings, which rank above those of the whole file."""
    before = app.config
    env, *file = before
    app.config = [env, Dict(settings, source="[[camera]]", use_commands_as_keys=False), *file]
    try:
        _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    finally:
        app.config = before
    config: LiveConfig = bound.arguments.get("config", LiveConfig())
    return config


def _suggestion(error: Exception, words: Sequence[str]) -> str | None:
    """The error message for a mistyped sub-command, with a suggestion; None for other errors."""
    if not isinstance(error, UnusedCliTokensError) or not words or words[0].startswith("-"):
        return None
    commands = [name for name in app if not name.startswith("-")]
    near = get_close_matches(words[0], commands, n=1)
    meant = f"; did you mean `online-tapir {near[0]}`?" if near else f"; there are {', '.join(sorted(commands))}"
    return f"there is no command {words[0]!r}{meant}"


def _complain(text: str) -> None:
    console = Console(file=cast(TextIO, Forgiving(sys.stderr)), highlight=False, soft_wrap=True)
    console.print(f"[bold red]online-tapir:[/] {escape(text)}")
