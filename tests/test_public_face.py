"""The names people import, and what importing them costs."""

import subprocess
import sys

import pytest

import online_tapir

HEAVY = ("torch", "rerun", "cv2", "triton", "safetensors", "rich", "cyclopts")


def loaded_after(statement: str) -> set[str]:
    """The top-level modules in a fresh interpreter after `statement`."""
    script = (
        f"import sys; sys.path[:] = {sys.path!r}; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    )
    return set(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    )


def test_the_public_names_are_these() -> None:
    assert sorted(online_tapir.__all__) == [
        "ControlError",
        "Controller",
        "ExportedTracker",
        "Frame",
        "Heartbeat",
        "Label",
        "OnlineTapirError",
        "Rig",
        "Tracker",
        "Tracks",
        "load_model",
        "subscribe",
    ]


def test_every_public_name_has_a_home_and_is_listed() -> None:
    assert set(online_tapir._HOMES) == set(online_tapir.__all__)
    assert {*online_tapir.__all__, "__version__"} <= set(dir(online_tapir))


@pytest.mark.parametrize("name", online_tapir.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(online_tapir, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Trakcer'"):
        online_tapir.Trakcer  # noqa: B018


def test_a_subscriber_loads_nothing_heavy() -> None:
    loaded = loaded_after("from online_tapir import subscribe; subscribe('tcp://127.0.0.1:1').close()")
    assert {"zmq", "msgpack", "numpy"} <= loaded
    assert not loaded & set(HEAVY)


def test_a_controller_loads_nothing_heavy() -> None:
    loaded = loaded_after("from online_tapir import Controller; Controller('tcp://127.0.0.1:1').close()")
    assert {"zmq", "msgpack", "numpy"} <= loaded
    assert not loaded & {*HEAVY, "asyncio"}


def test_tracking_on_a_cpu_loads_no_triton() -> None:
    loaded = loaded_after(
        "from online_tapir import load_model; from online_tapir.tracking.tracker import warm_up; "
        "warm_up(load_model('small', device='cpu'), 3)"
    )
    assert "torch" in loaded
    assert "triton" not in loaded


def test_importing_the_package_loads_nothing_outside_the_standard_library() -> None:
    assert not loaded_after("import online_tapir") & {"zmq", "msgpack", "numpy", *HEAVY}


def test_the_version_is_the_installed_one() -> None:
    try:
        assert online_tapir.__version__.count(".") == 2
    except ModuleNotFoundError:
        pytest.skip("online-tapir is not installed here")
