"""One slot between two threads; it does not queue, so a reader lags by at most one item.

A live source calls `offer`: the newest item wins, and unread ones are dropped and counted. A file calls `put`: it waits
for room, and nothing is dropped. The end of the stream and the producer's errors follow the last item. Items that must
be written in order go through a `Backlog` instead.
"""

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):  # noqa: N818  the end of a stream is not an error
    """The mailbox is closed and its last item has been taken."""


class Mailbox(Generic[T]):
    """A slot for one item. Any thread may close it, which wakes all waiting threads at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: list[T] = []  # none or one
        self._closed = False
        self._error: BaseException | None = None
        self._dropped = 0
        self._arrived = threading.Event()

    def notify(self, arrived: threading.Event) -> None:
        """Sets `arrived` whenever `poll` has news: an item, the end or an error. Many mailboxes may share an event."""
        with self._changed:
            self._arrived = arrived
            if self._items or self._closed:
                arrived.set()

    @property
    def dropped(self) -> int:
        """Items that were replaced before anyone took them."""
        with self._changed:
            return self._dropped

    @property
    def full(self) -> bool:
        """True while an item waits to be taken."""
        with self._changed:
            return bool(self._items)

    @property
    def closed(self) -> bool:
        """True once no more items can be added; the last one may still be there to take."""
        with self._changed:
            return self._closed

    def offer(self, item: T) -> None:
        """Store item without waiting; replaces an item that was not taken. Raises Closed after close() or fail()."""
        with self._changed:
            self._refuse_if_closed()
            self._dropped += len(self._items)
            self._items = [item]
            self._tell()

    def put(self, item: T, timeout: float | None = None) -> None:
        """Store item once the slot is free. Raises TimeoutError after timeout seconds, Closed if it closes first."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or not self._items, timeout):
                raise TimeoutError(f"the mailbox stayed full for {timeout:g} s")
            self._refuse_if_closed()
            self._items = [item]
            self._tell()

    def take(self, timeout: float | None = None) -> T:
        """Waits for the item and takes it.

        Raises TimeoutError when none came within timeout seconds. After the last item every call raises the error given
        to fail(), or Closed after close().
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._items, timeout):
                raise TimeoutError(f"the mailbox stayed empty for {timeout:g} s")
            return self._taken()

    def poll(self) -> T | None:
        """Takes the item without waiting; None while there is none. Raises as `take` does after the last one."""
        with self._changed:
            return self._taken() if self._items or self._closed else None

    def _taken(self) -> T:
        if self._items:
            self._changed.notify_all()
            return self._items.pop()
        if self._error is not None:
            raise self._error
        raise Closed("the mailbox is closed and empty")

    def close(self) -> None:
        """Ends the stream, from either side. Closing twice, or after fail(), changes nothing."""
        with self._changed:
            self._closed = True
            self._tell()

    def fail(self, error: BaseException) -> None:
        """Close, and make the next `take` raise `error`. Ignored when already closed."""
        with self._changed:
            if not self._closed:
                self._error = error
            self._closed = True
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        self._arrived.set()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Closed("the mailbox is closed")


class Backlog(Generic[T]):
    """A queue of at most `capacity` items, taken in order; items that do not fit are dropped and counted."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Items that did not fit."""
        with self._changed:
            return self._dropped

    def offer(self, item: T) -> None:
        """Append item if there is room, without waiting. Raises Closed after close()."""
        with self._changed:
            if self._closed:
                raise Closed("the backlog is closed")
            if len(self._items) == self._capacity:
                self._dropped += 1
                return
            self._items.append(item)
            self._changed.notify()

    def take(self, timeout: float | None = None) -> T:
        """The oldest item. Raises TimeoutError after timeout seconds without one, Closed after the last one."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._closed, timeout):
                raise TimeoutError(f"the backlog stayed empty for {timeout:g} s")
            if not self._items:
                raise Closed("the backlog is closed and empty")
            return self._items.popleft()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
