"""A sink of your own: beeps when a point is lost. The test below it needs no camera and no model."""

import numpy as np

from online_tapir.live.sink import Sink
from online_tapir.records import Frame, Tracks
from online_tapir.testing import FakeTracker, Grid, ListSink, SyntheticCamera, run, sliding_pictures


class Beeper(Sink):
    """Rings the terminal's bell on each frame with fewer visible points than the frame before."""

    def __init__(self) -> None:
        self.beeps = 0
        self._visible = 0

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        now = int(tracks.visible.sum())
        if now < self._visible:
            self.beeps += 1
            print("\a", end="", flush=True)
        self._visible = now


def test_it_beeps_once_when_all_points_are_hidden() -> None:
    beeper, seen = Beeper(), ListSink()
    hides = FakeTracker(lambda xy, named_on, now: (xy, now < 3))
    run(SyntheticCamera(sliding_pictures(5)), hides, Grid(3, 2), [beeper, seen])
    assert beeper.beeps == 1
    assert np.all(~seen.tracks[-1].visible)


if __name__ == "__main__":
    test_it_beeps_once_when_all_points_are_hidden()
