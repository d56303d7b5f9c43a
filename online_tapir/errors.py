"""Every error a user can cause. Each message says what was asked, what was found and what to do.

    OnlineTapirError
    ├── ConfigError        an invalid flag or argument
    │   └── MemoryFullError    the device's memory is too small; the points are lost
    ├── CameraError        a source that cannot be opened or read
    ├── FrameError         a frame that cannot be tracked (shape, type, NaN)
    ├── QueryError         points outside the frame, too many points, a frame that has left the window
    ├── WeightsError       a weights file that is missing, corrupt or made for another model
    ├── StateError         a saved state that is missing, damaged or of another model, or cannot be written
    ├── PublishError       a sink that cannot start (port in use, no permission, disk full)
    ├── WireError          a message of another format, corrupt, or of a newer version
    ├── BindError          an address that cannot be bound (wire/security.py)
    └── ControlError       a control request that is refused (control/protocol.py)

The command line prints the message alone and exits with 2; `--debug` adds the traceback.
"""


class OnlineTapirError(Exception):
    """Base class of this package's errors."""


class ConfigError(OnlineTapirError):
    """An invalid flag or argument."""


class MemoryFullError(ConfigError):
    """The device's memory is too small for what was asked; a tracker that raises it has lost its points."""


class CameraError(OnlineTapirError):
    """A source that cannot be opened or read."""


class FrameError(OnlineTapirError):
    """A frame that cannot be tracked."""


class QueryError(OnlineTapirError):
    """A point that cannot be followed."""


class WeightsError(OnlineTapirError):
    """A weights file that is missing, corrupt or made for another model."""


class StateError(OnlineTapirError):
    """A saved state that cannot be read, resumed or written."""


class TemplateError(OnlineTapirError):
    """Templates of points that cannot be read, used or written."""


class PublishError(OnlineTapirError):
    """A sink that cannot start."""


class WireError(OnlineTapirError):
    """A message of another format, corrupt, or of a newer version."""
