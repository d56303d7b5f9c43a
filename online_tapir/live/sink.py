"""What plugs into a run: somewhere tracks go, or someone who controls it. Hooks that are not overridden do nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from online_tapir.records import Frame, Queries, Tracks
from online_tapir.wire.messages import Heartbeat

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream


class Sink:
    """The run calls these hooks from its own thread, in the order in which they stand here; none may block.

    A sink that cannot keep up drops. The same sink serves every stream of a run: `tracks.camera` and
    `heartbeat.camera` are the names of their streams.
    """

    @property
    def shows_inspection(self) -> bool:
        """Whether anybody would see an inspected point through this sink now."""
        return False

    def begin(self, stream: "Stream") -> None:
        """A stream is about to start; its frames are numbered from 0."""

    def serve(self, stream: "Stream") -> object:
        """Called between frames: does to the stream what was asked since the last call."""

    def named(self, camera: str, queries: Sequence[Queries]) -> None:
        """Points that the next published frame of this camera is the first to have tracks of."""

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        """A frame and where its points are. `frame.rgb` is not written to again."""

    def beat(self, heartbeat: Heartbeat) -> None:
        """A sign of life while no frame comes."""

    def close(self) -> None:
        """The run is over. May be called twice."""
