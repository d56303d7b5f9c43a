"""How much a tracker holds: defaults and bounds, for those who must not load torch to know them."""

DEFAULT_MAX_POINTS = 256
MOST_POINTS = 65_536
DEFAULT_WINDOW = 32  # frames
MOST_WINDOW = 1_024
