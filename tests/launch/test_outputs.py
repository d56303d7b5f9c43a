"""What a run opens for its outputs, where one of them needs another."""

import json
import sys
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from online_tapir.errors import PublishError
from online_tapir.launch import outputs
from online_tapir.launch.config import LiveConfig, NetworkConfig, OutputConfig, ViewerConfig
from online_tapir.live.roster import Roster
from online_tapir.live.sink import Sink
from online_tapir.web.server import WebPage

VIEWER_URL = "http://127.0.0.1:9090/?url=here"


class ServedViewer(Sink):
    """Stands for a Rerun viewer that is served to browsers."""

    web_url = VIEWER_URL


@pytest.mark.parametrize("served", [True, False], ids=["served", "off"])
def test_the_page_links_to_the_rerun_viewer_that_is_served_beside_it(
    served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "RerunViewer", lambda *_, **__: ServedViewer())
    monkeypatch.setattr("online_tapir.web.server.open_browser", lambda *_: True)
    config = LiveConfig(
        viewer=ViewerConfig(web_address="127.0.0.1:0", rerun="serve" if served else "off"),
        network=NetworkConfig(publish="off", control="off"),
    )
    with ExitStack() as held:
        opened = [held.enter_context(closing(sink)) for sink in outputs.open_sinks(config, Roster(), lambda line: None)]
        (page,) = [sink for sink in opened if isinstance(sink, WebPage)]
        about = json.load(urllib.request.urlopen(f"{next(iter(page.links.values())).partition('#')[0]}api/about"))
    assert about["rerun"] == (VIEWER_URL if served else None)


@pytest.mark.parametrize("missing", ["online_tapir.recording.tables", "online_tapir.recording.writer"])
def test_a_recording_that_this_install_cannot_write_is_refused(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    recorder = outputs.open_recorder(LiveConfig(output=OutputConfig(recordings=tmp_path)), print)
    with pytest.raises(PublishError, match="a recording needs"):
        recorder._open(tmp_path / "desk")
