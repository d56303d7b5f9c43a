"""Where the entities of one camera lie in a recording that several share."""

from typing import Any, Protocol


class Logs(Protocol):
    """What entities are logged to: a recording, or a part of one."""

    def log(self, entity: Any, /, *what: Any, **how: Any) -> Any: ...


class Rooted:
    """A recording, with every entity under `root`."""

    def __init__(self, recording: Logs, root: str) -> None:
        self._recording = recording
        self._root = f"{root}/" if root else ""

    def log(self, entity: Any, /, *what: Any, **how: Any) -> None:
        self._recording.log(self._root + entity, *what, **how)
