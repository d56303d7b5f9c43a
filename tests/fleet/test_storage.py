"""States are kept whole, one for each placement, and what a file system says becomes a sentence."""

from pathlib import Path
from typing import Any

import pytest

from online_tapir.errors import ConfigError, StateError
from online_tapir.fleet.storage import KEPT, Storage


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "here") if request.param == "folder" else f"memory://{tmp_path.name}")


def state(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "points.state"
    path.write_bytes(content)
    return path


def test_a_placement_reads_the_newest_state_of_those_before_it(storage: Storage, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert storage.newest("door", 9, copy) is None
    for epoch in (1, 2, 10):
        storage.keep("door", epoch, state(tmp_path, b"%d" % epoch))
    assert (storage.newest("door", 11, copy), copy.read_bytes()) == (10, b"10")
    assert (storage.newest("door", 10, copy), copy.read_bytes()) == (2, b"2")
    assert storage.newest("door", 1, copy) is None


def test_a_state_replaces_that_of_its_own_placement_alone(storage: Storage, tmp_path: Path) -> None:
    storage.keep("door", 1, state(tmp_path, b"old"))
    storage.keep("door", 2, state(tmp_path, b"new"))
    storage.keep("door", 1, state(tmp_path, b"late, from a rig that was cut off"))
    copy = tmp_path / "copy"
    assert (storage.newest("door", 3, copy), copy.read_bytes()) == (2, b"new")


def test_old_states_are_removed(storage: Storage, tmp_path: Path) -> None:
    for epoch in range(5):
        storage.keep("door", epoch, state(tmp_path, b"x"))
    storage.keep("door/2", 7, state(tmp_path, b"another camera, whose name has a slash"))
    storage.tidy("door")
    assert storage.newest("door", 5 - KEPT, tmp_path / "copy") is None
    assert storage.newest("door", 5, tmp_path / "copy") == 4
    storage.tidy("door", kept=0)
    assert storage.newest("door", 5, tmp_path / "copy") is None
    assert storage.newest("door/2", 8, tmp_path / "copy") == 7


def test_what_a_fleet_wants_is_read_back(storage: Storage) -> None:
    assert storage.read_fleet() == {}
    storage.write_fleet({"cameras": {"door": {"epoch": 3}}})
    assert storage.read_fleet() == {"cameras": {"door": {"epoch": 3}}}


def test_a_write_that_fails_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.write_fleet({"before": 1})

    class Full:
        """A file on a full disk."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, content: bytes) -> None:
            self._file.write(content[:3])
            raise OSError(28, "No space left on device")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    opened = storage._files.open
    monkeypatch.setattr(storage._files, "open", lambda *how, **more: Full(opened(*how, **more)))
    with pytest.raises(StateError, match="cannot be written: No space left on device"):
        storage.write_fleet({"after": 1})
    monkeypatch.undo()
    assert storage.read_fleet() == {"before": 1}


def test_a_damaged_fleet_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_text("[1")
    with pytest.raises(StateError, match=r"fleet\.json cannot be read"):
        Storage(str(tmp_path)).read_fleet()


def test_an_address_that_nothing_opens_is_refused() -> None:
    with pytest.raises(ConfigError, match="--storage 'nowhere://x' cannot be used"):
        Storage("nowhere://x")
