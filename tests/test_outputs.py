"""What a command reads is never overwritten, and what exists only when that was asked for."""

from pathlib import Path

import pytest

from online_tapir.cli.app import main
from online_tapir.errors import ConfigError
from online_tapir.files import refuse_overwriting, replacing
from online_tapir.sinks.rerun.mode import parse_rerun_mode
from tests.cli.test_app import DEMO, RUN, noise, refused, write_video

ALONE = ("--publish", "off", "--control", "off", "--quiet")


@pytest.mark.parametrize("name", ["clip.mp4", "./clip.mp4", "link.mp4", "hard.mp4"])
def test_the_video_that_is_read_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    video = write_video(tmp_path / "clip.avi", noise(3, 33, 49, 3)).rename(tmp_path / "clip.mp4")
    (tmp_path / "link.mp4").symlink_to(video)
    (tmp_path / "hard.mp4").hardlink_to(video)
    before = video.read_bytes()
    words = ("--camera", video, "--save-video", tmp_path / name, "--overwrite")
    assert "would overwrite --camera" in refused(capsys, *ALONE, "--rerun", "off", *words)
    assert video.read_bytes() == before


def test_a_file_that_exists_is_replaced_only_with_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, rrd = tmp_path / "a.mp4", tmp_path / "a.rrd"
    for path, words in (
        (video, ("--rerun", "off", "--save-video", video)),
        (rrd, ("--rerun", f"save={rrd}")),
    ):
        path.write_bytes(b"mine")
        assert "exists already; name another file, or add --overwrite" in refused(capsys, *DEMO, *ALONE, *words)
        assert path.read_bytes() == b"mine"
    main([str(word) for word in (*DEMO, *RUN, *ALONE, "--frames", 2, "--save-video", video, "--overwrite")])
    assert video.read_bytes()[4:8] == b"ftyp"


def test_a_replay_keeps_what_it_reads_and_what_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, video = tmp_path / "run", tmp_path / "a.mp4"
    main([str(word) for word in (*DEMO, *RUN, *ALONE, "--frames", 2, "--record", run)])
    video.write_bytes(b"mine")
    assert "exists already" in refused(capsys, "replay", run, "--save-video", video)
    assert video.read_bytes() == b"mine"


def test_two_outputs_never_name_one_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--two .* would overwrite --one"):
        refuse_overwriting({"--one": tmp_path / "a", "--two": tmp_path / "." / "a"}, {}, overwrite=True)


def test_what_is_no_file_may_be_written(tmp_path: Path) -> None:
    refuse_overwriting({"--save": Path("/dev/null"), "--other": tmp_path / "new", "--none": None}, {"--camera": None})


def test_a_replaced_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path, sync=True) as partial:
        partial.write_text("half" * (1 // 0))
    assert (path.read_text(), [file.name for file in tmp_path.iterdir()]) == ("old", ["a"])
    with replacing(path, sync=True) as partial:
        partial.write_text("new")
    assert (path.read_text(), [file.name for file in tmp_path.iterdir()]) == ("new", ["a"])


@pytest.mark.parametrize("text", ["save=foo.txt", "save=clip.mp4", "save=rrd"])
def test_rerun_saves_under_its_own_suffix_alone(text: str) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.rrd"):
        parse_rerun_mode(text)
