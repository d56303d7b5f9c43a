"""Every error a user can cause, each saying what was asked, what was found and what to do.

    OnlineTapirError
    ├── ConfigError        a flag or argument that cannot be met
    ├── CameraError        a source that cannot be opened or read
    ├── FrameError         a frame that cannot be tracked (shape, type, NaN)
    ├── QueryError         points outside the frame, too many points, a frame that has left the window
    ├── WeightsError       a weights file that is missing, corrupt or made for another model
    ├── StateError         a saved state that is missing, damaged or of another model, or cannot be written
    ├── PublishError       a sink that cannot start (port in use, no permission, disk full)
    ├── WireError          a message that is not ours, corrupt, or of a newer version
    ├── BindError          why an address cannot be bound (security.py)
    └── ControlError       a request that is refused, by name (control/protocol.py)

The command line prints the message alone and exits with 2; `--debug` adds the traceback.
"""


class OnlineTapirError(Exception):
    """The root of this package's errors."""


class ConfigError(OnlineTapirError):
    """A flag or argument that cannot be met."""


class CameraError(OnlineTapirError):
    """A source that cannot be opened or read."""


class FrameError(OnlineTapirError):
    """A frame that cannot be tracked."""


class QueryError(OnlineTapirError):
    """A point that cannot be followed."""


class WeightsError(OnlineTapirError):
    """A weights file that is missing, corrupt or made for another model."""


class StateError(OnlineTapirError):
    """A saved state that cannot be read, gone on from or written."""


class PublishError(OnlineTapirError):
    """A sink that cannot start."""


class WireError(OnlineTapirError):
    """A message that is not ours, corrupt, or of a newer version."""
