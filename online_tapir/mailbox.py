"""One slot between two threads; it never queues, so what is taken is never older than one item.

A live source offers (the newest wins, what was not read is dropped and counted); a file puts (it waits for room, and
nothing is dropped). The end of the stream and the producer's errors travel the same way as the items, behind the last.
What is to be written down in order has a `Backlog` instead.
"""

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):  # noqa: N818  the end of a stream is not an error
    """The mailbox is closed and its last item has been taken."""


class Mailbox(Generic[T]):
    """A slot for one item. Any thread may close it, and whoever waits on it wakes at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: list[T] = []  # none or one
        self._closed = False
        self._error: BaseException | None = None
        self._dropped = 0

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
        """True once nothing more can be put in; the last item may still be there to take."""
        with self._changed:
            return self._closed

    def offer(self, item: T) -> None:
        """Leave item without waiting, in place of one that nobody took. Raises Closed after close() or fail()."""
        with self._changed:
            self._refuse_if_closed()
            self._dropped += len(self._items)
            self._items = [item]
            self._changed.notify_all()

    def put(self, item: T, timeout: float | None = None) -> None:
        """Leave item once the slot is free. Raises TimeoutError after timeout seconds, Closed if it closes before."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or not self._items, timeout):
                raise TimeoutError(f"nobody made room in the mailbox for {timeout:g} s")
            self._refuse_if_closed()
            self._items = [item]
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> T:
        """The item, once there is one.

        Raises TimeoutError when none came for timeout seconds. After the last item it raises the error given to fail(),
        or Closed after close(), every time it is called.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._items, timeout):
                raise TimeoutError(f"nothing came into the mailbox for {timeout:g} s")
            if self._items:
                self._changed.notify_all()
                return self._items.pop()
            if self._error is not None:
                raise self._error
            raise Closed("the mailbox is closed and empty")

    def close(self) -> None:
        """Nothing more will come, or nothing more is wanted. Closing twice, or after fail(), changes nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Close, and let whoever takes next meet error itself. Ignored when closed already: the end came first."""
        with self._changed:
            if not self._closed:
                self._error = error
            self._closed = True
            self._changed.notify_all()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Closed("the mailbox is closed")


class Backlog(Generic[T]):
    """A mailbox with room for `capacity` items, taken in order; what does not fit is dropped and counted."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Items that there was no room for."""
        with self._changed:
            return self._dropped

    def offer(self, item: T) -> None:
        """Leave item if there is room, without waiting. Raises Closed after close()."""
        with self._changed:
            if self._closed:
                raise Closed("the backlog is closed")
            if len(self._items) == self._capacity:
                self._dropped += 1
                return
            self._items.append(item)
            self._changed.notify()

    def take(self, timeout: float | None = None) -> T:
        """The oldest item. Raises TimeoutError after timeout seconds without one, Closed behind the last one."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._closed, timeout):
                raise TimeoutError(f"nothing came into the backlog for {timeout:g} s")
            if not self._items:
                raise Closed("the backlog is closed and empty")
            return self._items.popleft()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
