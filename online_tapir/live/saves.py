"""What a stream is asked to write: a copy of its points, and how its writing ended; a recording."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from online_tapir.tracking.state_file import SavedState


@dataclass(frozen=True, slots=True)
class Save:
    """The `number`-th copy of the points taken in this run."""

    number: int
    state: "SavedState"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of the newest finished save, which covers all earlier ones; number 0: none has finished."""

    number: int = 0
    error: str = ""  # "": it was written


class Keeper(Protocol):
    """Saves the points of a stream when it is asked to."""

    @property
    def outcome(self) -> Outcome: ...

    def save(self) -> Save: ...


class Records(Protocol):
    """Records a stream when it is asked to."""

    @property
    def folder(self) -> str:
        """Where the recording goes that runs now; "" for none."""

    def switch(self, on: bool) -> None:
        """Begins a recording in a new folder, or ends the one that runs. Raises OnlineTapirError."""
