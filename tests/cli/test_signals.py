"""Whatever asks a run to end, it ends gently; only a second Ctrl-C interrupts."""

import os
import signal
from pathlib import Path

import pytest

from online_tapir import subscribe
from online_tapir.cli.app import main
from online_tapir.cli.signals import stop_on_signal
from online_tapir.recording.reader import Recording
from online_tapir.recording.video import read_video
from tests.cli.test_app import DEMO, LONG, RUN, program


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_only_a_second_ctrl_c_interrupts() -> None:
    with stop_on_signal() as stop:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_run_that_is_still_being_prepared_is_interrupted_once(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    with stop_on_signal() as stop:
        stop.preparing = True
        with pytest.raises(raised):
            signal.raise_signal(number)
        assert stop.is_set()
        signal.raise_signal(signal.SIGTERM)  # while what was opened is closed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_a_run_whose_weights_are_still_being_fetched(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetching(*arguments: object, **named: object) -> None:
        signal.raise_signal(number)
        raise AssertionError("it went on")

    monkeypatch.setattr("online_tapir.launch.plan.load_model", fetching)
    with pytest.raises(SystemExit) as end:
        main([*map(str, DEMO), *map(str, RUN), "--publish", "off", "--control", "off", "--model", "bootstapir"])
    assert end.value.code == code


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_nohup_is_obeyed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.is_set()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_dropped_connection_ends_a_run_as_sigterm_does(tmp_path: Path) -> None:
    """Its terminal is gone, so nothing can be reported, and the signal comes twice: from sshd and from the shell."""
    tracks, state = f"ipc://{tmp_path}/tracks", tmp_path / "points"
    files = ("--save-state", state, "--record", tmp_path / "run", "--save-video", tmp_path / "a.mp4")
    master, slave = os.openpty()
    with program(*DEMO[:4], *RUN, "--publish", tracks, "--control", "off", *files, stderr=slave) as process:
        os.close(slave)
        with subscribe(tracks, timeout_ms=1000 * LONG) as stream:
            next(stream)
        os.close(master)
        for number in (signal.SIGHUP, signal.SIGHUP):
            process.send_signal(number)
        assert process.wait(LONG) == 0
    assert state.exists()
    assert Recording(tmp_path / "run").manifest.end == "the run ended"
    assert list(read_video(tmp_path / "a.mp4", 49, 33))
