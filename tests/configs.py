"""Configurations of tiny models that more than one test builds."""

from online_tapir.testing import tiny_config

# Every part that `small` has, in a fraction of its size.
LIKE_SMALL = tiny_config(
    iterations=1,
    described_by=(0, 1, 3),
    peak_inputs=True,
    motion_inputs=True,
    recent_inputs=True,
    neighbour_grids=2,
)
