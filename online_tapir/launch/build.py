"""Builds a run from its configuration: opens everything that it names, outputs before the model and the camera."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from online_tapir.errors import ConfigError
from online_tapir.files import expanded, refuse_overwriting
from online_tapir.flow.model_thread import ModelThread
from online_tapir.launch.config import LiveConfig, at_home
from online_tapir.launch.outputs import open_sinks, open_window, rerun_mode, shows_web
from online_tapir.launch.streams import Streams
from online_tapir.launch.tables import own_outputs
from online_tapir.launch.threads import check_threads
from online_tapir.launch.trackers import trackers
from online_tapir.live.roster import Member, Roster
from online_tapir.live.run import Run
from online_tapir.live.status import Status

Configure = Callable[[Mapping[str, Any]], LiveConfig]


def _no_more(settings: Mapping[str, Any]) -> LiveConfig:
    raise ConfigError("this run takes no further cameras")


@contextmanager
def opened(
    configs: Sequence[LiveConfig], status: Status, stop: threading.Event, configure: Configure = _no_more
) -> Iterator[Callable[[], None]]:
    """Opens all that one camera's configuration or several need; yields the function that runs them until the end.

    Model, viewer and network are those of the first configuration. A camera that joins later is described by a table
    of settings, which `configure` turns into its configuration. The run ends when every source has ended or `stop` is
    set. Raises ConfigError for invalid settings; CameraError, WeightsError, PublishError or StateError for what cannot
    be opened.
    """
    configs = [at_home(config) for config in configs]
    first, report = configs[0], status.note
    for config in configs:
        check(config)
    with ExitStack() as held:
        roster = Roster(lambda name, settings: _joining(name, settings, configure, streams, first), report)
        # Sinks first: subscribers and viewers find them while the model loads, and miss no frame of a file.
        sinks = [held.enter_context(closing(sink)) for sink in open_sinks(first, roster, report)]
        window = open_window(first.viewer)
        thread = held.enter_context(closing(ModelThread()))
        streams = Streams(trackers(first.model), thread, status, stop, sinks)
        members: list[Member] = []
        with ExitStack() as opening:
            for config in configs:
                shown_by = [window] if window is not None and not members else []
                member = streams.open(config, len(configs), shown_by)
                members.append(member)
                opening.push(member.held)
                opening.callback(member.stream.camera.close)
            opening.pop_all()  # from here on the run closes the cameras, and the roster gives back what they hold
        held.enter_context(roster)
        roster.begin(members)
        frames, pipeline = first.source.frames, first.model.pipeline
        run = Run(members, [*sinks, status], stop, roster=roster, frames=frames, pipeline=pipeline)
        yield run.go if window is None else partial(window.beside, run.go, stop)


def _joining(
    name: str, settings: Mapping[str, Any], configure: Configure, streams: Streams, first: LiveConfig
) -> Member:
    """A camera that joins the run of `first`; model, viewer and network are the run's."""
    asked = at_home(configure({**settings, "name": name}))
    own = replace(first.model, input=asked.model.input, flow=asked.model.flow)
    output = replace(own_outputs(asked.output, name, settings), mcap=None)  # the environment's paths are of all cameras
    config = replace(asked, model=own, viewer=first.viewer, output=output, network=first.network)
    check(config, joins=True)
    return streams.open(config, len(streams.names) + 1)


def check(config: LiveConfig, *, joins: bool = False) -> None:
    """Raises ConfigError where two settings contradict each other, or an output would overwrite something.

    A camera that `joins` a run writes into the run's Rerun file, which is there already.
    """
    output, viewer = config.output, config.viewer
    shown = viewer.window or shows_web(viewer) or viewer.rerun != "off"
    if config.points.inspect is not None and not shown:
        raise ConfigError("--inspect shows a point in Rerun, in a window or on the page; add --window or --web")
    if output.save_state is None and output.save_state_every is not None:
        raise ConfigError("--save-state-every says how often to save, but not where; add --save-state FILE")
    check_threads(config.model.threads)
    mode = rerun_mode(config)
    refuse_overwriting(
        {
            "--save-video": output.save_video,
            "--save-csv": output.save_csv,
            "--mcap": output.mcap,
            "--rerun save=": Path(mode.target) if mode.way == "save" and not joins else None,
        },
        {
            "--camera": _file(config.source.camera),
            "--points": None if config.points.points is None else _file(config.points.points),
            "--mask": config.points.mask,
            "--templates": config.points.templates,
            "--model": _file(config.model.model),
            "--weights": config.model.weights,
            "--save-state": output.save_state,
            "--resume": None if output.resume == output.save_state else output.resume,
        },
        overwrite=output.overwrite,
    )
    refuse_overwriting(
        {"--save-state": output.save_state},
        {
            "--camera": _file(config.source.camera),
            "--mask": config.points.mask,
            "--model": _file(config.model.model),
            "--weights": config.model.weights,
        },
        overwrite=True,  # a state replaces the one before; `state_file` refuses to replace any other file
    )


def _file(text: str) -> Path | None:
    """The existing file or folder that a setting names; None where it names something else."""
    path = expanded(text)
    try:
        return path if path.exists() else None
    except OSError:  # too long for a name, for instance
        return None
