"""Answers requests to a run, however they come: over ZeroMQ, from the page. Runs on the tracking thread.

The rate of each sender is limited; beyond it requests are refused.
"""

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]

from online_tapir.camera.base import free_name, topic_name
from online_tapir.camera.opencv import source_name
from online_tapir.control import protocol
from online_tapir.control.commands import obey
from online_tapir.control.protocol import ControlError
from online_tapir.errors import ConfigError, MemoryFullError
from online_tapir.live.roster import Roster

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream

logger = logging.getLogger(__name__)

REQUESTS_A_SECOND, BURST = 100.0, 200.0  # per sender
COST = {
    "snapshot": 20.0,
    "templates": 20.0,
    "camera_add": 20.0,
    "save": 20.0,
    "record": 20.0,
    "list": 5.0,
}  # in requests; others cost 1
ANY_CAMERA = {"stop"}  # these are of the run, not of a camera, as are those of `_of_the_run`
REPEATABLE = {
    "cameras",
    "list",
    "status",
    "snapshot",
    "templates",
}  # these change nothing, so a repeated request runs again
READING = REPEATABLE  # what one may do who may only look
_REMEMBERED = 256  # results, and senders


class Desk:
    """Where requests to a run are answered. Knows the run's streams by name, and the `roster` of its cameras.

    `anyone` says that whoever asks need not be trusted: cameras then cannot be added.
    """

    def __init__(
        self,
        roster: Roster | None = None,
        *,
        anyone: bool = False,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.streams: dict[str, Stream] = {}  # by camera
        self._roster = roster or Roster()
        self._anyone = anyone
        self._budgets = Budgets(monotonic_ns)
        self._results: OrderedDict[bytes, dict[str, Any]] = OrderedDict()  # by the digest of their request

    def answer(
        self, sender: bytes, body: Mapping[str, Any], stream: "Stream", *, may_change: bool = True
    ) -> dict[str, Any]:
        """The result of a request that came while `stream` was served. Raises ControlError.

        Without `may_change` only requests that change nothing are carried out.
        """
        command = body.get("command")
        self._budgets.spend(sender, COST.get(command, 1.0) if isinstance(command, str) else 1.0)
        digest = _digest(body)
        request = protocol.read_request(body)
        if not may_change and request.command not in READING:
            raise ControlError("view_only", f"you may watch this run, not change it; {request.command} was refused")
        if digest in self._results:
            return self._results[digest]
        result = self._carried_out(request, stream)
        if request.controller and request.command not in REPEATABLE:
            _remember(self._results, digest, result)
        return result

    def _carried_out(self, request: protocol.Request, stream: "Stream") -> dict[str, Any]:
        """The result of a request. Raises ControlError for whatever fails, as no request may end a run.

        Only MemoryFullError ends it: the points are lost then.
        """
        try:
            return self._of_the_run(request) or obey(self._asked_for(request, stream), request)
        except (ControlError, MemoryFullError):
            raise
        except Exception as error:
            logger.exception("%s failed", request.command)
            raise ControlError("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error

    def _of_the_run(self, request: protocol.Request) -> dict[str, Any] | None:
        """The result of a request that is for the run's roster of cameras; None for others. Raises ControlError."""
        arguments = request.arguments
        if request.command == "cameras":
            return {"cameras": sorted(self.streams), "states": self._states()}
        if request.command not in ("camera_add", "camera_remove"):
            return None
        if self._anyone:
            raise ControlError("no_camera", "a run that anyone may control (--insecure) takes no cameras by request")
        name = arguments.get("name", "")
        try:
            if request.command == "camera_remove":
                self._roster.remove(name)
                return {"removed": name}
            if topic_name(name or "camera") != (name or "camera"):
                raise ConfigError(f"{name!r} cannot be a topic; {topic_name(name)!r} could")
            name = name or free_name(source_name(arguments["source"]), {*self.streams, *self._roster.absent})
            self._roster.add(name, {**arguments.get("settings", {}), "camera": arguments["source"]})
        except ConfigError as error:
            raise ControlError("no_camera", str(error)) from error
        return {"camera": name}

    def _states(self) -> list[dict[str, str]]:
        """Every camera that runs or was asked for; addresses are not told."""
        running = {
            name: {"name": name, "state": stream.state, "reason": stream.health.reason}
            for name, stream in self.streams.items()
        }
        absent = {
            name: {"name": name, "state": one.state, "reason": one.reason} for name, one in self._roster.absent.items()
        }
        everyone = absent | running
        return [everyone[name] for name in sorted(everyone)]

    def _asked_for(self, request: protocol.Request, served: "Stream") -> "Stream":
        """The stream of the camera that a request names; the served one where there is no other. ControlError."""
        if request.camera in ("", served.name) and (len(self.streams) < 2 or request.command in ANY_CAMERA):
            return served
        found = self.streams.get(request.camera)
        if found is None:
            there = ", ".join(sorted(self.streams) or [served.name])
            told = f"no camera is called {request.camera[:40]!r}" if request.camera else "the run has several cameras"
            raise ControlError("which_camera", f"{told}; name one of {there}")
        return found


class Budgets:
    """Rate limits: how many requests each sender has left (a token bucket each, refilled up to BURST)."""

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._monotonic_ns = monotonic_ns
        self._left: OrderedDict[bytes, tuple[float, int]] = OrderedDict()  # by sender: requests, and when counted

    def spend(self, sender: bytes, cost: float) -> None:
        """Charges `cost` to the sender. Raises ControlError rate_limited if it has less left."""
        now_ns = self._monotonic_ns()
        left, counted_ns = self._left.get(sender, (BURST, now_ns))
        left = min(left + (now_ns - counted_ns) / 1e9 * REQUESTS_A_SECOND, BURST)
        _remember(self._left, sender, (left - cost if left >= cost else left, now_ns))
        if left < cost:
            raise ControlError("rate_limited", f"{REQUESTS_A_SECOND:g} requests a second are answered; wait a little")


def _digest(body: Mapping[str, Any]) -> bytes:
    """Tells requests apart. Raises ControlError for what msgpack cannot hold, such as JSON's longest numbers."""
    try:
        return hashlib.sha256(msgpack.packb(body)).digest()
    except (ValueError, OverflowError, TypeError, RecursionError) as error:
        raise ControlError("bad_request", f"msgpack cannot hold it: {str(error)[:80]}") from error


def _remember(known: OrderedDict[bytes, Any], key: bytes, value: Any) -> None:
    """Adds an entry, and drops the oldest of too many."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
