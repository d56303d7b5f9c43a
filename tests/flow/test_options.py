"""Which sources wait for the model's answers, as the command line says."""

from pathlib import Path

import pytest

from online_tapir.cli.app import main
from online_tapir.recording.reader import Recording
from tests.cli.test_app import RUN, noise, write_video

FRAMES = 12
TRACKED = (*RUN, "--device", "cpu", "--publish", "off", "--control", "off")


def carried(folder: Path, *words: object) -> int:
    """How many frames of a run on a short video the model did not answer."""
    video = write_video(folder / "noise.avi", noise(FRAMES, 48, 64, 3))
    main([str(word) for word in ("--camera", video, *TRACKED, "--record", folder / "run", *words)])
    tracks = [step.tracks for step in Recording(folder / "run").steps()]
    assert len(tracks) == FRAMES
    return sum(one.model_frame_id != one.frame_id for one in tracks)


@pytest.mark.parametrize("words", [(), ("--realtime", "--fps", "500"), ("--flow", "on")])
def test_a_recording_waits_for_the_model(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert carried(tmp_path, *words) == 0


def test_a_recording_at_its_own_rate_does_not_wait_if_flow_is_asked_for(tmp_path: Path) -> None:
    assert carried(tmp_path, "--realtime", "--fps", "500", "--flow", "on") > 0
