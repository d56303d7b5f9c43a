"""Which frames a query may name: the last ones of a stream, by id."""

from collections import deque
from dataclasses import dataclass

from online_tapir.errors import QueryError
from online_tapir.model.config import Size


@dataclass(frozen=True, slots=True)
class RememberedFrame:
    """One frame of the window: its id, how many frames came before it, and its size in image pixels."""

    id: int
    number: int
    size: Size


class Window:
    """The last `capacity` frames of a stream."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._frames: deque[RememberedFrame] = deque(maxlen=capacity)

    @property
    def ids(self) -> list[int]:
        """The ids of the frames that a query may name, oldest first."""
        return [frame.id for frame in self._frames]

    def remember(self, frame: RememberedFrame) -> None:
        """Takes in a frame; the oldest one leaves a full window."""
        self._frames.append(frame)

    def forget(self) -> None:
        """Empties the window."""
        self._frames.clear()

    def find(self, frame_id: int) -> RememberedFrame:
        """The frame with id `frame_id`; QueryError, listing the frames that a query may name, if there is none."""
        for frame in self._frames:
            if frame.id == frame_id:
                return frame
        if not self._frames:
            raise QueryError(f"frame {frame_id} was named before any frame was tracked; omit it for the next frame")
        oldest, newest = self._frames[0].id, self._frames[-1].id
        if frame_id < oldest:
            why = f"has left the window of {self.capacity}"
        elif frame_id > newest:
            why = "has not been tracked yet"
        else:
            why = "was dropped by the source"
        raise QueryError(f"frame {frame_id} {why}; a query may name frames {oldest} (the oldest) to {newest}")

    def since(self, frame: RememberedFrame) -> list[RememberedFrame]:
        """The frames from `frame` to the newest, in order."""
        return [other for other in self._frames if other.number >= frame.number]
