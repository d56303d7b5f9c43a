"""Who may open the page: this machine; others with a token, or anyone if the run is insecure.

Browsers carry requests for whatever page they show, so three things are checked on each one: the Host header, since a
hostile page may give its own name this machine's address (DNS rebinding); the Origin of a WebSocket, since browsers let
any page open one; and outside this machine a session, which only the printed link begins.
"""

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from socket import gethostname
from typing import Literal

Right = Literal["control", "watch"]

IDLE_SECONDS = 12 * 3600.0  # after which a session ends
MOST_SESSIONS = 256
TOKEN_BYTES = 16
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # the token is in a link
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """The secrets in the two links of a run that other machines can reach."""

    control: str
    watch: str

    @classmethod
    def new(cls) -> "Tokens":
        return cls(secrets.token_urlsafe(TOKEN_BYTES), secrets.token_urlsafe(TOKEN_BYTES))


@dataclass(slots=True)
class _Session:
    right: Right
    client: str  # the address that it was begun from; a cookie that comes from another is refused
    used_s: float


class Guard:
    """Decides on requests by their headers (lower-case names) and the client's address.

    This machine also answers to `names`. Without `tokens` everyone who gets through to the port may control the run, or
    only watch it if `view_only`.
    """

    def __init__(
        self,
        port: int,
        *,
        names: Sequence[str] = (),
        tokens: Tokens | None = None,
        tls: bool = False,
        view_only: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cookie = f"online-tapir-{port}"  # cookies are shared between the ports of a host
        self.tls = tls
        self._tokens = tokens
        self._view_only = view_only
        self._clock = clock
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        own = gethostname()
        self._names = {name.lower().rstrip(".") for name in ("localhost", own, f"{own}.local", *names)}

    def knows_host(self, headers: Mapping[str, str]) -> bool:
        """Whether the request names this machine: by an address, as localhost or by its own name."""
        name = _host_of(headers.get("host", ""))
        return name in self._names or _is_address(name)

    def same_origin(self, headers: Mapping[str, str]) -> bool:
        """Whether the page that asks came from here; programs that are no browsers send no Origin."""
        origin = headers.get("origin")
        return origin is None or origin == f"{'https' if self.tls else 'http'}://{headers.get('host', '')}"

    def right(self, cookies: Mapping[str, str], client: str) -> Right | None:
        """What this client may do; None: nothing, it has not opened a link of this run."""
        if self._tokens is None:
            return "watch" if self._view_only else "control"
        key = cookies.get(self.cookie, "")
        session = self._sessions.get(key)
        if session is None or session.client != client:
            return None
        now_s = self._clock()
        if now_s - session.used_s > IDLE_SECONDS:
            del self._sessions[key]
            return None
        session.used_s = now_s
        self._sessions.move_to_end(key)
        return session.right

    def begin(self, token: str, client: str) -> str | None:
        """The cookie of a new session for who has a link; None for a wrong token."""
        if self._tokens is None:
            return None
        told: dict[str, Right] = {self._tokens.control: "control", self._tokens.watch: "watch"}
        for secret, right in told.items():
            if hmac.compare_digest(secret.encode(), token.encode()):
                key = secrets.token_urlsafe(TOKEN_BYTES)
                granted: Right = "watch" if self._view_only else right
                self._sessions[key] = _Session(granted, client, self._clock())
                if len(self._sessions) > MOST_SESSIONS:
                    self._sessions.popitem(last=False)
                return key
        return None


def _host_of(header: str) -> str:
    """The name in a Host header, without its port."""
    text = header.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
