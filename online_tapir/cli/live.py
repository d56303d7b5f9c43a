"""`online-tapir` itself: a live run from its configuration, or from those of several cameras."""

from collections.abc import Sequence
from contextlib import closing

from online_tapir.cli.signals import stop_on_signal
from online_tapir.launch.config import LiveConfig
from online_tapir.launch.tables import joining


def live(config: LiveConfig = LiveConfig()) -> None:  # noqa: B008  frozen
    """Track a camera until it ends or Ctrl-C, publish the tracks, show them."""
    run([config])


def run(configs: Sequence[LiveConfig]) -> None:
    """Tracks one camera or several until they end or Ctrl-C; others may join on request."""
    with stop_on_signal() as stop:
        from online_tapir.launch.build import opened
        from online_tapir.live.status import open_status

        viewer = configs[0].viewer
        with closing(open_status(quiet=viewer.quiet, json_log=viewer.json_log)) as status:
            stop.preparing = True  # weights may be fetched now, and a model prepared
            with opened(configs, status, stop, joining) as go:
                stop.preparing = False
                go()
            status.finish()
