"""Where a fleet keeps what must outlive a machine: the points of every camera, and which cameras there should be.

A folder that all machines see, or a bucket: anything that fsspec opens (a path, s3://, gs://, ...). A state belongs to
one placement of a camera, its epoch: a rig that was cut off writes beside what its successor reads, never over it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import fsspec

from online_tapir.errors import ConfigError, StateError

Result = TypeVar("Result")

FLEET_FILE = "fleet.json"
STATES = "states"
KEPT = 2  # newest states of a camera; the older ones are removed


class Storage:
    """A folder or bucket by its address. Raises ConfigError for an address that nothing can open."""

    def __init__(self, address: str) -> None:
        self.address = address
        try:
            self._files, self._root = fsspec.core.url_to_fs(address, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"--storage {address!r} cannot be used: {error}") from error

    def read_fleet(self) -> dict[str, Any]:
        """What `write_fleet` wrote; empty where there is nothing yet. Raises StateError if it cannot be read."""
        path = f"{self._root}/{FLEET_FILE}"

        def read() -> dict[str, Any]:
            found = json.loads(self._files.cat_file(path))
            if not isinstance(found, dict):
                raise ValueError(f"a {type(found).__name__} in place of a table")
            return found

        try:
            return self._attempt(read, f"{self.address}/{FLEET_FILE} cannot be read")
        except FileNotFoundError:
            return {}

    def write_fleet(self, content: dict[str, Any]) -> None:
        """Raises StateError if it cannot be written; the old content stays then."""
        text = json.dumps(content, indent=1).encode()
        self._attempt(lambda: self._put(f"{self._root}/{FLEET_FILE}", text), f"{self.address} cannot be written")

    def keep(self, camera: str, epoch: int, state: Path) -> None:
        """Copies a saved state here, for the camera's next placement. Raises StateError."""
        self._attempt(
            lambda: self._put(self._state(camera, epoch), state.read_bytes()),
            f"the points of {camera} cannot be saved to {self.address}",
        )

    def newest(self, camera: str, before: int, copy: Path) -> int | None:
        """Copies the camera's newest state of an epoch below `before` into a local file; returns its epoch.

        None where there is none. Raises StateError if the storage cannot be read.
        """

        def fetch() -> int | None:
            for epoch in self._epochs(camera):
                if epoch < before:
                    copy.write_bytes(self._files.cat_file(self._state(camera, epoch)))
                    return epoch
            return None

        return self._attempt(fetch, f"the points of {camera} cannot be read from {self.address}")

    def tidy(self, camera: str, kept: int = KEPT) -> None:
        """Removes all but the newest states of a camera. Raises StateError."""

        def remove() -> None:
            for epoch in self._epochs(camera)[kept:]:
                self._files.rm_file(self._state(camera, epoch))

        self._attempt(remove, f"old points of {camera} cannot be removed from {self.address}")

    def _epochs(self, camera: str) -> list[int]:
        """The newest first."""
        try:
            names = self._files.ls(self._folder(camera), detail=False)
        except FileNotFoundError:
            return []
        stems = [name.rpartition("/")[2].removesuffix(".state") for name in names if name.endswith(".state")]
        return sorted((int(stem) for stem in stems if stem.isdecimal()), reverse=True)

    def _folder(self, camera: str) -> str:
        return f"{self._root}/{STATES}/{quote(camera, safe='')}"

    def _state(self, camera: str, epoch: int) -> str:
        return f"{self._folder(camera)}/{epoch}.state"

    def _put(self, path: str, content: bytes) -> None:
        """All or nothing: a reader never sees half of it."""
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        file = self._files.open(path, "wb", autocommit=False)
        try:
            file.write(content)
            file.close()
        except BaseException:
            file.discard()
            raise
        file.commit()

    def _attempt(self, work: Callable[[], Result], purpose: str) -> Result:
        """Any file system fails in ways of its own: all of them are a StateError, but for a file that is not there."""
        try:
            return work()
        except FileNotFoundError:
            raise
        except Exception as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise StateError(f"{purpose}: {why}") from error
