"""Opens a run's outputs from its configuration: what is published, shown, served and written."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from online_tapir.control.protocol import DEFAULT_ADDRESS as CONTROL_ADDRESS
from online_tapir.control.server import ControlServer
from online_tapir.errors import ConfigError, PublishError
from online_tapir.launch.config import LiveConfig, ViewerConfig
from online_tapir.live.roster import Roster
from online_tapir.live.sink import Sink
from online_tapir.sinks.background import WriterSink
from online_tapir.sinks.recorder import Recorder
from online_tapir.sinks.rerun.mode import RerunMode, default_mode, parse_rerun_mode
from online_tapir.sinks.rerun.viewer import RerunViewer
from online_tapir.sinks.systemd import Watchdog
from online_tapir.sinks.zmq import ZmqPublisher
from online_tapir.wire.security import Access, load_keys

if TYPE_CHECKING:
    from online_tapir.web.server import WebPage
    from online_tapir.window.click import ClickWindow

Report = Callable[[str], None]


def open_sinks(config: LiveConfig, roster: Roster, report: Report) -> Iterator[Sink]:
    """Opens the sinks that serve every camera; metrics last, so that their latencies include the others."""
    network, access = config.network, _access(config, report)
    if network.publish != "off":
        publisher = ZmqPublisher(network.publish, access=access)
        report(f"publishing on {publisher.address}")
        yield publisher
    if (watchdog := Watchdog.asked_for(os.environ)) is not None:
        yield watchdog
    viewer = _rerun(config, report)
    if viewer is not None:
        yield viewer
    yield from _control(config, roster, access, report)
    yield from _web(config, roster, report, rerun="" if viewer is None else viewer.web_url)
    yield from _foxglove(config, access, report)
    if network.metrics is not None:
        from online_tapir.sinks.metrics import Metrics

        metrics = Metrics(network.metrics, access=access)
        report(f"metrics at {metrics.url}")
        yield metrics


def _access(config: LiveConfig, report: Report) -> Access:
    """Who may subscribe and control."""
    network = config.network
    if network.insecure:
        report("--insecure: where an address is open to other machines, anyone there can read or control this run")
    return Access(None if network.keys is None else load_keys(network.keys), network.insecure, report)


def _control(config: LiveConfig, roster: Roster, access: Access, report: Report) -> Iterator[ControlServer]:
    asked = config.network.control
    if asked == "off":
        return
    try:
        control = ControlServer(asked or CONTROL_ADDRESS, access=access, roster=roster)
    except ConfigError as error:
        if asked is not None:
            raise
        report(f"no control socket: {error}")  # a second tracker on this machine needs no flag
        return
    report(f"control at {control.address}")
    yield control


def _web(config: LiveConfig, roster: Roster, report: Report, rerun: str) -> "Iterator[WebPage]":
    """The page, with a link to the Rerun viewer that is served here, if one is."""
    viewer = config.viewer
    if not shows_web(viewer):
        return
    try:
        from online_tapir.web.server import WebAddress, WebPage, open_browser
    except ModuleNotFoundError as error:
        raise ConfigError(f"--web needs {error.name}; run `pip install 'online-tapir[web]'`") from error
    page = WebPage(
        WebAddress.parse(viewer.web_address),
        color=viewer.color,
        roster=roster,
        insecure=config.network.insecure,
        view_only=viewer.web_view_only,
        certificate=viewer.web_cert,
        key=viewer.web_key,
        rerun=rerun or None,
        report=report,
    )
    for right, link in page.links.items():
        report(f"page at {link}" if len(page.links) == 1 else f"page to {right}: {link}")
    if not open_browser(next(iter(page.links.values())), os.environ, sys.platform):
        report("open it in a browser")
    yield page


def _foxglove(config: LiveConfig, access: Access, report: Report) -> Iterator[Sink]:
    viewer, file = config.viewer, config.output.mcap
    if viewer.foxglove is None and file is None:
        return
    try:
        from online_tapir.sinks.foxglove import McapFile, open_server
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--foxglove and --mcap need {error.name}; run `pip install 'online-tapir[foxglove]'`"
        ) from error
    if viewer.foxglove is not None:
        scene, address = open_server(viewer.foxglove, viewer.color, access)
        report(f"Foxglove: open a connection to {address}")
        yield WriterSink(scene, "the Foxglove server", report=report, live=True)
    if file is not None:
        yield WriterSink(McapFile(file, viewer.color), f"the file {file}", report=report)


def shows_web(viewer: ViewerConfig) -> bool:
    """Whether the page is asked for."""
    return viewer.web or viewer.web_address is not None


def open_recorder(config: LiveConfig, report: Report) -> Recorder:
    """What records one camera: from the start with --record, and on request."""
    first = config.output.record
    opening = partial(_recording, config, report)
    return Recorder(config.output.recordings, opening, None if first is None else (first, opening(first)))


def _recording(config: LiveConfig, report: Report, folder: Path) -> WriterSink:
    try:
        # pyarrow and av: a run that writes nothing needs neither
        from online_tapir.recording.tables import CALIBRATED, Settings
        from online_tapir.recording.writer import RecordingWriter
    except ModuleNotFoundError as error:
        raise PublishError(
            f"a recording needs {error.name}, which this install leaves out; pip install {error.name}"
        ) from error

    model, points = config.model, config.points
    through_lens = points.calibration is not None and points.objects != "off"
    settings = Settings(
        model=model.model,
        weights=None if model.weights is None else str(model.weights),
        dtype=model.dtype,
        iterations=model.iterations,
        visible_above=model.visible_above,
        resolution=model.resolution,
        engine=model.engine,
        precision=model.precision,
        max_points=points.max_points,
        window=points.window_frames,
        threads=model.threads,
        objects=CALIBRATED if through_lens else points.objects,
    )
    writer = RecordingWriter(folder, settings, config.output.record_video)
    return WriterSink(writer, f"the recording {folder}", report=report, close_s=None)  # `Recorder` waits


def open_writers(config: LiveConfig, report: Report) -> Iterator[Sink]:
    """Opens what else is written of one camera."""
    output = config.output
    if output.save_video is not None:
        from online_tapir.sinks.painted_video import PaintedVideo

        video = PaintedVideo(output.save_video, config.viewer.color)
        yield WriterSink(video, f"the video {output.save_video}", report=report)
    if output.save_csv is not None:
        from online_tapir.recording.keypoints import KeypointTable

        yield WriterSink(KeypointTable(output.save_csv), f"the table {output.save_csv}", report=report, close_s=None)


def open_window(viewer: ViewerConfig) -> "ClickWindow | None":
    if not viewer.window:
        return None
    from online_tapir.window.click import ClickWindow

    return ClickWindow(color=viewer.color)


def rerun_mode(config: LiveConfig) -> RerunMode:
    if config.viewer.rerun is not None:
        return parse_rerun_mode(config.viewer.rerun)
    other = config.viewer.window or shows_web(config.viewer)
    return RerunMode("off") if other else default_mode(os.environ)[0]


def _rerun(config: LiveConfig, report: Report) -> RerunViewer | None:
    viewer, mode = config.viewer, rerun_mode(config)
    if viewer.rerun is None and not viewer.window and not shows_web(viewer):
        report(default_mode(os.environ)[1])
    if mode.way == "off":
        return None
    return RerunViewer(
        mode,
        color=viewer.color,
        fps=viewer.rerun_fps,
        longest_side=viewer.rerun_size,
        memory=viewer.rerun_memory,
        report=report,
    )
