"""Who may connect: by default this machine alone, with CURVE keys other machines too, with --insecure anyone.

Each party has a key folder, laid out the same way on both sides:

    robot/robot.key_secret    private, for its owner alone (mode 0600)
    robot/robot.key           public, to give to the others
    robot/peers/*.key         public keys of the others: every client a tracker admits, or a client's one tracker

Messages are then encrypted and both sides authenticated (CurveZMQ, https://rfc.zeromq.org/spec/26). The allow-list is
read on every new connection, so a change in the folder takes effect at once; existing connections stay.
"""

import errno
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq
from zmq.auth import load_certificate

from online_tapir.errors import ConfigError, OnlineTapirError
from online_tapir.files import expanded

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

PEERS = "peers"
REPORT_EVERY_S = 60.0  # for one refused key, whose client keeps trying
_DOMAIN = "online-tapir"
_REMEMBERED_KEYS = 1000
_KEY_CHARACTERS = 40  # of 32 bytes in Z85

_REASONS = {
    zmq.EADDRINUSE: "another program, perhaps another online-tapir, uses it; stop that, or choose another port",
    errno.EACCES: "no permission; ports below 1024 belong to root, choose another",
    zmq.EADDRNOTAVAIL: "this machine does not have that address; choose one of its own",
    errno.ENODEV: "this machine does not have that address; choose one of its own",
    zmq.EPROTONOSUPPORT: "no such transport; use tcp:// or ipc://",
    zmq.EINVAL: "not an address; write tcp://HOST:PORT",
}


def _listens(address: str) -> bool:
    """Whether a program of this machine listens at ipc://PATH; what a dead one left there does not."""
    path = address.removeprefix("ipc://")
    if path == address or path.startswith(("@", "*")):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


class BindError(OnlineTapirError):
    """Why an address cannot be bound; the caller adds what it was for."""


@dataclass(frozen=True, slots=True)
class Keys:
    """One party's keys, Z85 text; `peers` is the folder of the public keys it trusts."""

    public: bytes
    secret: bytes = field(repr=False)
    peers: Path

    def allowed(self) -> set[bytes]:
        """The public keys that are in the peers folder now; files without a valid key are skipped."""
        return {key for key in map(_public_key, self.peers.glob("*.key")) if key is not None}

    def server(self) -> bytes:
        """The one peer of a client. Raises ConfigError unless there is exactly one."""
        allowed = self.allowed()
        if len(allowed) != 1:
            raise ConfigError(
                f"{self.peers} holds {len(allowed)} public keys, and one is needed: the tracker's; copy its .key there"
            )
        return allowed.pop()


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect to a bound socket: holders of allowed `keys`; without keys, this machine; if `insecure`, anyone.

    `report` gets a line for every refused key, from another thread. Raises ConfigError for `keys` with `insecure`.
    """

    keys: Keys | None = None
    insecure: bool = False
    report: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        if self.keys is not None and self.insecure:
            raise ConfigError("--keys restricts who connects and --insecure lets anyone in; give one of them")


THIS_MACHINE = Access()


def new_keys(folder: Path) -> Keys:
    """Makes a key pair, named after its folder. Raises ConfigError if it has one already, or on OS errors."""
    name = folder.resolve().name
    public, secret = zmq.curve_keypair()
    try:
        (folder / PEERS).mkdir(mode=0o700, parents=True, exist_ok=True)
        if taken := [*folder.glob("*.key_secret"), *folder.glob("*.key")]:
            kind = "private" if taken[0].suffix == ".key_secret" else "public"
            raise ConfigError(f"{folder} has a {kind} key already, which others may trust; name another folder")
        _write(folder / f"{name}.key_secret", 0o600, {"public-key": public, "secret-key": secret})
        _write(folder / f"{name}.key", 0o644, {"public-key": public})
    except OSError as error:
        raise ConfigError(f"cannot make keys in {folder}: {error.strerror or error}") from error
    return Keys(public, secret, folder / PEERS)


def load_keys(folder: Path | str) -> Keys:
    """Loads a key folder. Raises ConfigError unless it has one valid private key that only its owner can read."""
    folder = expanded(folder)
    files = sorted(folder.glob("*.key_secret"))
    if len(files) != 1:
        raise ConfigError(
            f"{folder} has {len(files)} private keys (*.key_secret), and one is needed; "
            f"`online-tapir keys new {folder}` makes one"
        )
    try:
        mode = files[0].stat().st_mode
        public, secret = load_certificate(files[0])
    except (OSError, ValueError) as error:
        raise ConfigError(f"{files[0]} cannot be read as a private key: {error}") from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(f"{files[0]} may be read by others (mode {mode & 0o777:o}); chmod 600 {files[0]}")
    if secret is None or not _matches(public, secret):
        raise ConfigError(f"{files[0]} holds no valid key pair; `online-tapir keys new` makes one")
    return Keys(public, secret, folder / PEERS)


def trust(folder: Path, public: Path) -> Path:
    """Copies a public key into the peers of a key folder; returns the path of the copy.

    Raises ConfigError for a file that is not a public key or holds a private one, and for a name that is taken by
    another key.
    """
    try:
        key, secret = load_certificate(public)
    except (OSError, ValueError):
        key, secret = b"", None
    if secret is not None:
        raise ConfigError(
            f"{public} holds a private key, which must stay with its owner; nothing was copied. Give the public key "
            f"next to it, {public.with_suffix('.key').name}"
        )
    if len(key) != _KEY_CHARACTERS:
        raise ConfigError(f"{public} is not a public key; give the .key file that `online-tapir keys new` made")
    peers = load_keys(folder).peers
    copy = peers / f"{public.stem}.key"
    if copy.exists():
        if _public_key(copy) == key:
            return copy
        raise ConfigError(f"{copy} holds another key already; rename {public}, or remove {copy} to trust it no longer")
    try:
        peers.mkdir(mode=0o700, exist_ok=True)
        _write(copy, 0o644, {"public-key": key})  # what was read, not the file: only the public key can get out
    except OSError as error:
        raise ConfigError(f"cannot copy {public} into {peers}: {error.strerror or error}") from error
    return copy


def authenticate(socket: zmq.Socket[Any], keys: Path | str | None, *, itself: bool = False) -> None:
    """Sets the keys of a client's socket, before it connects; None leaves it unencrypted. Raises ConfigError.

    With `itself` the folder is the server's own, which lets itself in.
    """
    if keys is None:
        return
    own = load_keys(keys)
    socket.curve_publickey, socket.curve_secretkey = own.public, own.secret
    socket.curve_serverkey = own.public if itself else own.server()


class BoundSocket:
    """A server's socket with its own context, bound to an address that `access` allows.

    Port 0 or * picks a free one; `address` has it. Raises BindError with the reason.
    """

    def __init__(self, kind: int, address: str, access: Access, options: Mapping[zmq.SocketOption, int]) -> None:
        _check(address, access)
        if _listens(address):  # libzmq would take its file away
            raise BindError(_REASONS[zmq.EADDRINUSE])
        self._context = zmq.Context()
        self._doorman: ThreadAuthenticator | None = None
        self.socket = self._context.socket(kind)
        try:
            for option, value in {**options, zmq.IPV6: int("[" in address)}.items():
                self.socket.setsockopt(option, value)
            if access.keys is not None:
                self._admit_only(AllowList(access.keys, access.report, address))
            self.socket.bind(address)
        except zmq.ZMQError as error:
            self.close(linger_ms=0)
            raise BindError(_REASONS.get(error.errno or 0, str(error))) from error
        self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def close(self, linger_ms: int) -> None:
        """Close the socket; messages still queued get `linger_ms` to leave. May be called twice."""
        self.socket.close(linger_ms)
        if self._doorman is not None:
            self._doorman.stop()
        self._context.term()

    def _admit_only(self, allowed: "AllowList") -> None:
        from zmq.auth.thread import ThreadAuthenticator  # imports asyncio, which a client does not need

        self._doorman = ThreadAuthenticator(self._context)
        self._doorman.start()
        self._doorman.configure_curve_callback(_DOMAIN, allowed)
        self.socket.curve_secretkey = allowed.keys.secret
        self.socket.curve_server = True
        self.socket.zap_domain = _DOMAIN.encode()
        self.socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # fails closed if the authenticator dies


class AllowList:
    """Decides which keys are admitted, and reports each refused key at most once a minute."""

    def __init__(
        self,
        keys: Keys,
        report: Callable[[str], None],
        address: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = keys
        self._report = report
        self._address = address
        self._monotonic = monotonic
        self._reported: dict[bytes, float] = {}

    def callback(self, domain: str, key: bytes) -> bool:
        if key == self.keys.public or key in self.keys.allowed():  # who has its own key is itself
            return True
        now = self._monotonic()
        if now - self._reported.get(key, -REPORT_EVERY_S) >= REPORT_EVERY_S:
            if len(self._reported) >= _REMEMBERED_KEYS:
                self._reported.clear()
            self._reported[key] = now
            self._report(f"refused a client at {self._address}: its key {key.decode()} is not in {self.keys.peers}")
        return False


def is_local(address: str) -> bool:
    """True if only this machine can connect: ipc, or TCP on loopback."""
    transport, _, rest = address.partition("://")
    host = rest.rpartition(":")[0].strip("[]")
    if transport in ("ipc", "inproc") or host in ("localhost", "lo"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # *, or the name of an interface
        return False


def _check(address: str, access: Access) -> None:
    port = address.rpartition(":")[2]
    if port.isdecimal() and int(port) > 65_535:  # libzmq would take it modulo 65536
        raise BindError("a port is at most 65535")
    if "://" in address and access.keys is None and not access.insecure and not is_local(address):
        raise BindError(
            "other machines could connect; give --keys DIR, so that only those you allow can "
            "(`online-tapir keys new DIR` makes them), or say --insecure to let anyone in"
        )


def _matches(public: bytes, secret: bytes) -> bool:
    try:
        return zmq.curve_public(secret) == public
    except (zmq.ZMQError, ValueError):
        return False


def _public_key(file: Path) -> bytes | None:
    try:
        key, _ = load_certificate(file)
    except (OSError, ValueError):
        return None
    return key if len(key) == _KEY_CHARACTERS else None


def _write(file: Path, mode: int, values: Mapping[str, bytes]) -> None:
    """Writes a certificate as pyzmq reads it; never overwrites a file, and creates it with `mode` from the start."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as out:
        out.write("metadata\ncurve\n" + "".join(f'    {key} = "{value.decode()}"\n' for key, value in values.items()))
