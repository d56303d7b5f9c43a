"""The base class of what plugs into a run: outputs and controllers. Hooks that are not overridden do nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from online_tapir.records import Frame, Queries, Tracks
from online_tapir.wire.messages import Heartbeat

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream


class Sink:
    """The run calls these hooks from its own thread, in the order below; none may block.

    A sink that cannot keep up drops frames. The same sink serves every stream of a run: `tracks.camera` and
    `heartbeat.camera` are the names of their streams.
    """

    @property
    def shows_inspection(self) -> bool:
        """Whether this sink would show an inspected point now."""
        return False

    def begin(self, stream: "Stream") -> None:
        """A stream is about to start; its frames are numbered from 0."""

    def serve(self, stream: "Stream") -> object:
        """Called between frames: carries out the requests for the stream since the last call."""

    def named(self, camera: str, queries: Sequence[Queries]) -> None:
        """Points whose tracks begin on this camera's next published frame."""

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        """A frame and its tracks. `frame.rgb` is not modified afterwards."""

    def beat(self, heartbeat: Heartbeat) -> None:
        """A heartbeat, sent while no frame comes."""

    def end(self, stream: "Stream") -> None:
        """A stream has left the run, which goes on with others."""

    def close(self) -> None:
        """The run is over. May be called twice."""
