"""Default and largest sizes of a tracker, in a module without heavy imports."""

DEFAULT_MAX_POINTS = 256
MOST_POINTS = 65_536
DEFAULT_WINDOW = 32  # frames
MOST_WINDOW = 1_024
LEAST_INPUT, MOST_INPUT = 64, 2_048  # pixels of a side of the model's input
LONGEST_NAME = 64  # characters of a point's name or group
