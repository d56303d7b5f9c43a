"""The cameras of a run, which may join and leave while it goes on.

A camera is opened and closed in threads of the roster's own: neither may delay the cameras that run, nor each other.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from online_tapir.errors import ConfigError, OnlineTapirError
from online_tapir.live.sink import Sink
from online_tapir.live.stream import Stream

CLOSE_SECONDS = 10.0

Settings = Mapping[str, Any]  # of a camera, as in a [[camera]] table
Absence = Literal["opening", "failed"]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A camera of the run: its stream, the sinks of its own, and all that is given back when it leaves."""

    stream: Stream
    sinks: Sequence[Sink] = ()
    held: ExitStack = field(default_factory=ExitStack)


@dataclass(frozen=True, slots=True)
class Absent:
    """A camera that was asked for and does not run."""

    state: Absence
    reason: str = ""


def _closed(name: str, settings: Settings) -> Member:
    raise ConfigError("this run takes no further cameras")


class Roster:
    """Who is in a run: `add` and `remove` say who should be, the run takes `arrivals` in and lets `leavers` go.

    `open_` opens the camera `name` with its settings, in a thread; it raises an error for one that cannot be
    opened. A run that `stays` goes on without any camera, and its last one may be removed. Everything
    that members hold is given back at the end of the `with`. Thread-safe.
    """

    def __init__(
        self,
        open_: Callable[[str, Settings], Member] = _closed,
        report: Callable[[str], None] = print,
        *,
        stays: bool = False,
    ) -> None:
        self._open = open_
        self._report = report
        self._stays = stays
        self._changed = threading.Condition()
        self._members: dict[str, Member] = {}
        self._absent: dict[str, Absent] = {}
        self._arrived: deque[Member] = deque()
        self._leaving: set[str] = set()
        self._closing: set[str] = set()  # left, and not given back yet
        self._work: dict[str, deque[Callable[[], None]]] = {}  # by camera, each in a thread of its own
        self._ending = False  # nobody is opened any more; what is to be given back still is
        self.notify: Callable[[], None] = lambda: None  # called when there are arrivals or leavers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._ending = True
            self._changed.wait_for(lambda: not self._work, CLOSE_SECONDS)
            self._changed.wait_for(lambda: not self._closing)  # their files are waited for, as those of the others
            members = [*self._members.values(), *self._arrived]
        everything = ExitStack()
        for member in members:
            everything.push(member.held)
        everything.__exit__(kind, error, traceback)

    def begin(self, members: Sequence[Member]) -> None:
        """The cameras that the run begins with."""
        with self._changed:
            self._members |= {member.stream.name: member for member in members}

    @property
    def absent(self) -> dict[str, Absent]:
        """The cameras that were asked for and do not run, by name."""
        with self._changed:
            return dict(self._absent)

    @property
    def held(self) -> set[str]:
        """The cameras that are open, or whose camera and outputs are still being closed."""
        with self._changed:
            return {*self._members, *(member.stream.name for member in self._arrived), *self._closing}

    @property
    def expected(self) -> bool:
        """Whether a camera may still come: one is being opened or has yet to be taken in, or the run stays."""
        with self._changed:
            opening = any(absent.state == "opening" for absent in self._absent.values())
            return self._stays or opening or bool(self._arrived)

    def add(self, name: str, settings: Settings) -> None:
        """Opens a camera, which joins the run when it is ready. Raises ConfigError if the name is taken."""
        with self._changed:
            taken = self._absent.get(name)
            if name in self._members or (taken is not None and taken.state == "opening"):
                raise ConfigError(f"there is a camera {name!r} already; give another name")
            self._absent[name] = asked = Absent("opening")
        self._later(name, lambda: self._admit(name, settings, asked))

    def remove(self, name: str) -> None:
        """Lets a camera go, or forgets one that never came. Raises ConfigError: no such camera, or it is the last."""
        with self._changed:
            if self._absent.pop(name, None) is not None:  # one that is still being opened is closed when it is ready
                for member in [member for member in self._arrived if member.stream.name == name]:
                    self._arrived.remove(member)
                    self._closing.add(name)
                    self._later(name, lambda member=member: self._send_back(member))  # type: ignore[misc]
                return
            staying = [other for other in self._members if other not in self._leaving]
            if name not in staying:
                there = ", ".join(sorted([*staying, *self._absent]))
                raise ConfigError(f"no camera is called {name[:40]!r}; there are {there}")
            if len(staying) == 1 and not self._stays:
                raise ConfigError(f"{name} is the only camera; add another first, or stop the run")
            self._leaving.add(name)
        self.notify()

    def arrivals(self) -> list[Member]:
        """The cameras that are ready to run, each once."""
        with self._changed:
            arrived = list(self._arrived)
            self._arrived.clear()
            for member in arrived:
                self._members[member.stream.name] = member
                self._absent.pop(member.stream.name, None)
            return arrived

    def leavers(self) -> set[str]:
        """The names of the cameras that should leave."""
        with self._changed:
            return set(self._leaving)

    def left(self, stream: Stream, reason: str = "", opened: ExitStack | None = None) -> None:
        """The run has let a camera go, because of a failure if there is a `reason`.

        The camera, which is `opened`, is closed, and what it held is given back, in a thread.
        """
        with self._changed:
            member = self._members.pop(stream.name, None)
            self._leaving.discard(stream.name)
            if member is not None:
                self._closing.add(stream.name)
            if reason:
                self._absent[stream.name] = Absent("failed", reason)
        if member is not None:
            self._later(stream.name, lambda: self._give_back(member, opened))
        elif opened is not None:
            self._later(stream.name, opened.close)

    def _admit(self, name: str, settings: Settings, asked: Absent) -> None:
        """Opens a camera that was `asked` for, and takes it in unless it is not wanted any more."""
        if self._ending:
            return
        try:
            member = self._open(name, settings)
        except Exception as error:  # whatever it is, the cameras that run go on
            with self._changed:
                if self._absent.get(name) is asked:
                    self._absent[name] = Absent("failed", _told(error))
            self._report(f"camera {name} cannot join: {_told(error)}")
            return
        with self._changed:
            wanted = self._absent.get(name) is asked
            if wanted:
                self._arrived.append(member)
        if wanted:
            self.notify()
        else:
            self._send_back(member)

    def _send_back(self, member: Member) -> None:
        """Closes a camera that never ran."""
        camera = ExitStack()
        camera.callback(member.stream.camera.close)
        self._give_back(member, camera)

    def _give_back(self, member: Member, opened: ExitStack | None = None) -> None:
        try:
            with member.held:
                if opened is not None:
                    opened.close()
        except Exception as error:
            self._report(f"camera {member.stream.name}: {_told(error)}")
        finally:
            with self._changed:
                self._closing.discard(member.stream.name)
                self._changed.notify_all()

    def _later(self, camera: str, work: Callable[[], None]) -> None:
        """Does this in a thread, after what it was given before for the same camera; cameras wait for no other."""
        with self._changed:
            if camera in self._work:
                self._work[camera].append(work)
                return
            self._work[camera] = deque([work])
        threading.Thread(target=self._run, args=(camera,), name=f"roster {camera}", daemon=True).start()

    def _run(self, camera: str) -> None:
        while True:
            with self._changed:
                if not self._work[camera]:
                    del self._work[camera]
                    self._changed.notify_all()
                    return
                work = self._work[camera].popleft()
            work()


def _told(error: Exception) -> str:
    """Ours are sentences; of others the kind is told, too."""
    return str(error) if isinstance(error, OnlineTapirError | OSError) else repr(error)
