"""The command `online-tapir`, and `python -m online_tapir`. Handles Ctrl-C before it imports anything slow."""

import signal
import sys


def main() -> None:
    """Runs the command line. Ctrl-C while the program is still loading ends it at once, without a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # otherwise a handler was chosen: background jobs ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from online_tapir.launch.threads import calm_threads

    calm_threads()
    from online_tapir.cli.app import main as run

    try:
        signal.signal(signal.SIGINT, handler)
        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
