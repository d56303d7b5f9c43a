import threading
from collections.abc import Callable

import pytest

from online_tapir.mailbox import Closed, Mailbox

LONG = 30.0  # seconds; only a broken mailbox waits so long


def outcome_of(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Start call in a thread; the list will hold what it returned or raised."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def take_all(mailbox: Mailbox[int]) -> list[int]:
    taken = []
    try:
        while True:
            taken.append(mailbox.take(LONG))
    except Closed:
        return taken


def test_the_newest_offer_wins_and_the_others_are_counted() -> None:
    mailbox: Mailbox[int] = Mailbox()
    for item in range(7):
        mailbox.offer(item)
    assert mailbox.take(0) == 6
    assert mailbox.dropped == 6


def test_nothing_put_is_dropped_or_reordered() -> None:
    mailbox: Mailbox[int] = Mailbox()

    def produce() -> None:
        for item in range(1000):
            mailbox.put(item, LONG)
        mailbox.close()

    thread, _ = outcome_of(produce)
    taken = take_all(mailbox)
    thread.join(LONG)
    assert taken == list(range(1000))
    assert mailbox.dropped == 0


def test_whatever_is_offered_is_either_taken_or_counted() -> None:
    mailbox: Mailbox[int] = Mailbox()

    def produce() -> None:
        for item in range(5000):
            mailbox.offer(item)
        mailbox.close()

    outcome_of(produce)
    taken = take_all(mailbox)
    assert taken == sorted(set(taken))
    assert taken[-1] == 4999
    assert len(taken) + mailbox.dropped == 5000


def test_an_empty_mailbox_times_out() -> None:
    with pytest.raises(TimeoutError, match="the mailbox stayed empty"):
        Mailbox[int]().take(0.001)


def test_a_full_mailbox_times_out() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.put(1)
    with pytest.raises(TimeoutError, match="the mailbox stayed full"):
        mailbox.put(2, 0.001)
    assert mailbox.take(0) == 1


def test_the_end_comes_after_the_last_item_and_stays() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.offer(1)
    mailbox.close()
    mailbox.close()
    assert mailbox.take(0) == 1
    for _ in range(2):
        with pytest.raises(Closed):
            mailbox.take(LONG)


def test_the_producers_own_error_comes_after_the_last_item_with_its_cause() -> None:
    mailbox: Mailbox[int] = Mailbox()
    error = ValueError("no light")
    error.__cause__ = OSError("lens cap")
    mailbox.offer(1)
    mailbox.fail(error)
    mailbox.close()
    assert mailbox.take(0) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="no light") as caught:
            mailbox.take(LONG)
        assert caught.value is error
        assert isinstance(caught.value.__cause__, OSError)


def test_an_error_after_the_end_changes_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.close()
    mailbox.fail(ValueError("too late"))
    with pytest.raises(Closed):
        mailbox.take(0)


def test_closing_wakes_a_waiting_taker_at_once() -> None:
    mailbox: Mailbox[int] = Mailbox()
    thread, outcome = outcome_of(lambda: mailbox.take(LONG))
    mailbox.close()
    thread.join(LONG / 2)
    assert isinstance(outcome[0], Closed)


def test_closing_wakes_a_waiting_putter_at_once() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.put(1)
    thread, outcome = outcome_of(lambda: mailbox.put(2, LONG))
    mailbox.close()
    thread.join(LONG / 2)
    assert isinstance(outcome[0], Closed)


def test_a_closed_mailbox_takes_nothing_in() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.close()
    assert mailbox.closed
    for leave in (mailbox.offer, mailbox.put):
        with pytest.raises(Closed):
            leave(1)
