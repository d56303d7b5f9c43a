"""`online-tapir` itself: a live run from its configuration."""

from contextlib import closing

from online_tapir.cli.signals import stop_on_signal
from online_tapir.launch.config import LiveConfig


def live(config: LiveConfig = LiveConfig()) -> None:  # noqa: B008  frozen
    """Track a camera until it ends or Ctrl-C, publish the tracks, show them."""
    with stop_on_signal() as stop:
        from online_tapir.launch.build import opened
        from online_tapir.live.status import open_status

        with closing(open_status(quiet=config.viewer.quiet, json_log=config.viewer.json_log)) as status:
            with opened(config, status, stop) as go:
                go()
            status.finish()
