"""Ends a run on a signal, so that everything open is saved and closed."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stop(threading.Event):
    """Is set when a run should end. While it is `preparing`, a signal interrupts at once: there is nothing to save."""

    preparing = False


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """An event that Ctrl-C, SIGTERM and SIGHUP set; a second Ctrl-C interrupts at once.

    SIGHUP comes when a terminal or an ssh session closes, often twice. Where it is ignored (nohup) it stays ignored.
    """
    stop = Stop()

    def ask(number: int, frame: object) -> None:
        again = stop.is_set()
        stop.set()
        if stop.preparing or (again and number == signal.SIGINT):
            stop.preparing = False  # once: what was opened is closed in peace
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(0)

    numbers = {signal.SIGINT, signal.SIGTERM}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # Windows has none
        numbers.add(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
