"""The command is there at once, and goes at once when it is told to."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

LONG = 60  # seconds; only a broken program takes so long
INTERRUPTED = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "cyclopts":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from online_tapir.__main__ import main
main()
"""


def test_ctrl_c_while_the_program_is_loading_ends_it_without_a_word() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", INTERRUPTED]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONG, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (-signal.SIGINT, "", "")


def test_the_command_is_the_module_that_loads_nothing_first() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    scripts = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"online-tapir": "online_tapir.__main__:main"}
