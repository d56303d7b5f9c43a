"""What starts the program on other machines names flags that it has, and files that are there."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from online_tapir.cli.app import app
from online_tapir.launch.config import LiveConfig

ROOT = Path(__file__).parents[1]
UNIT = (ROOT / "deploy" / "online-tapir.service").read_text(encoding="utf-8")
CONTAINERFILE = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")


def parsed(words: list[str]) -> tuple[str, LiveConfig | None]:
    """The command that the program's own command line makes of them, and its flags."""
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    return command.__name__, bound.arguments.get("config")


def unit_commands() -> list[list[str]]:
    """ExecStart, and the others that the comments offer."""
    text = UNIT.replace("\\\n#", "")
    lines = re.findall(r"^(?:#\s+)?ExecStart=(.+)$", text, re.MULTILINE)
    return [shlex.split(line.replace("%S", "/var/lib")) for line in lines]


def instruction(name: str) -> list[str]:
    """The words of a Containerfile's last instruction of this name, in the form of a list."""
    found = re.findall(rf"^(?:HEALTHCHECK .*\\\n\s+)?{name} (\[.*\])$", CONTAINERFILE, re.MULTILINE)
    words: list[str] = json.loads(found[-1])
    return words


@pytest.mark.parametrize("words", unit_commands(), ids=["as it is", "of a stream with keys", "resumed"])
def test_the_unit_starts_a_command_that_parses(words: list[str]) -> None:
    assert words[0] == "/opt/online-tapir/bin/online-tapir"
    name, config = parsed(words[1:])
    assert name == "live"
    assert config is not None
    assert config.viewer.rerun == "off"
    assert config.network.metrics == "9464"


def test_the_container_starts_a_command_that_parses() -> None:
    entry, *given = [*instruction("ENTRYPOINT"), *instruction("CMD")]
    assert entry == "online-tapir"
    name, config = parsed(given)
    assert name == "live"
    assert config is not None
    assert config.source.camera == "/dev/video0"


def test_the_container_is_healthy_by_a_command_that_parses() -> None:
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", CONTAINERFILE, re.MULTILINE)
    entry, *given = json.loads(check)
    assert entry == "online-tapir"
    assert parsed(given)[0] == "listen"


def test_what_the_container_is_built_from_is_there() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", CONTAINERFILE, re.MULTILINE)
        for source in line.split()
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source


def test_the_container_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)$", CONTAINERFILE, re.MULTILINE)
    assert users == ["tapir"]


def test_the_unit_lets_the_program_see_cameras() -> None:
    assert "DeviceAllow=char-video4linux rw" in UNIT
    assert not re.search(r"^PrivateDevices=", UNIT, re.MULTILINE)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    unit = tmp_path / "online-tapir.service"
    unit.write_text(UNIT.replace("/opt/online-tapir/bin/online-tapir", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr
