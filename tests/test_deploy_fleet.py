"""What starts a fleet on other machines names commands, flags, volumes and versions that there are."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from online_tapir.cli.app import app

ROOT = Path(__file__).parents[1]
UNITS = sorted((ROOT / "deploy").glob("online-tapir-fleet-*.service"))
MANIFEST = list(yaml.safe_load_all((ROOT / "deploy" / "fleet-kuberay.yaml").read_text(encoding="utf-8")))
CLUSTER = next(one["spec"] for one in MANIFEST if one["kind"] == "RayCluster")
PODS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(path)
    return parser


def fleet_up(text: str) -> Any:
    """The bound arguments of the `fleet up` in a shell command."""
    words = shlex.split(re.search(r"online-tapir (fleet up [^;]*)", text)[1])  # type: ignore[index]
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command.__name__ == "up"
    return bound.arguments["config"]


def ray_words(text: str) -> list[str]:
    return [word for word in shlex.split(text) if word.startswith("--")]


def test_the_pair_of_units_is_there() -> None:
    assert [path.stem for path in UNITS] == ["online-tapir-fleet-head", "online-tapir-fleet-node"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_ray_with_options_that_it_has(path: Path) -> None:
    pytest.importorskip("ray")
    command = unit(path)["Service"]["ExecStart"]
    assert command.startswith("/opt/online-tapir/bin/ray start ")
    known = subprocess.run(["ray", "start", "--help"], capture_output=True, text=True, env=ENVIRONMENT).stdout
    assert [word for word in ray_words(command) if word not in known] == []


def test_the_heads_unit_brings_up_a_fleet_with_keys_and_a_shared_storage() -> None:
    service = unit(UNITS[0])["Service"]
    for key in ("ExecStartPost", "ExecReload"):
        config = fleet_up(service[key].rstrip("'"))
        assert config.address == "auto"
        assert config.storage == "/srv/online-tapir"
        assert config.keys is not None
        assert not config.insecure


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_reads_the_unit(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("/opt/online-tapir/bin/ray", "/bin/true").replace("User=tapir", "")
    copy = tmp_path / path.name
    copy.write_text(text.replace("/opt/online-tapir/bin/online-tapir", "/bin/true"))
    found = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert [line for line in found.stderr.splitlines() if path.name in line] == []


def test_the_manifests_head_brings_up_a_fleet_with_keys_and_a_shared_storage() -> None:
    (container,) = CLUSTER["headGroupSpec"]["template"]["spec"]["containers"]
    config = fleet_up(container["lifecycle"]["postStart"]["exec"]["command"][-1])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(config.keys), config.storage, "/cameras"} <= mounts
    assert config.address == "auto"
    port = int(config.directory.rpartition(":")[2])
    assert port in {one["containerPort"] for one in container["ports"]}


def test_every_mount_of_the_manifest_has_its_volume_and_every_pod_reaches_points_and_keys() -> None:
    for pod in PODS:
        spec = pod["template"]["spec"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in (*spec["containers"], *spec["initContainers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        for container in spec["containers"]:
            assert {"/points", "/keys"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    claims = {one["metadata"]["name"] for one in MANIFEST if one["kind"] == "PersistentVolumeClaim"}
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in PODS
        for volume in pod["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert used == claims


def test_all_pods_run_one_image_as_a_user_and_a_ray_that_the_project_takes() -> None:
    images = {
        container["image"]
        for pod in PODS
        for container in (*pod["template"]["spec"]["containers"], *pod["template"]["spec"]["initContainers"])
    }
    assert len(images) == 1
    assert all(pod["template"]["spec"]["securityContext"]["runAsNonRoot"] for pod in PODS)
    (wanted,) = [line for line in PROJECT["optional-dependencies"]["fleet"] if line.startswith("ray")]
    low, high = (tuple(map(int, part.split("."))) for part in re.findall(r"[\d.]+", wanted))
    assert low <= tuple(map(int, CLUSTER["rayVersion"].split("."))) < high


def test_the_head_has_no_cores_for_rigs() -> None:
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "--num-cpus 0" in unit(UNITS[0])["Service"]["ExecStart"]
