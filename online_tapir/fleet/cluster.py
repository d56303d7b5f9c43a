"""Ray: starts or joins a cluster, and makes the fleet's actors of the rigs and the placer.

Ray starts processes, restarts those that die and knows which machines are there; frames, tracks and weights never pass
through it. A cluster that `local` starts listens on loopback alone.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

import zmq
from prometheus_client import CollectorRegistry

from online_tapir.errors import ConfigError, OnlineTapirError
from online_tapir.fleet.metrics import FleetMetrics
from online_tapir.fleet.orders import FleetSettings, Order, RigReport
from online_tapir.fleet.placer import Placer, RigState
from online_tapir.fleet.rig import RigRun
from online_tapir.fleet.storage import Storage
from online_tapir.sinks.metrics_server import MetricsServer
from online_tapir.wire import directory as wire
from online_tapir.wire.directory import DEFAULT_ADDRESS, Directory
from online_tapir.wire.fleet import directory_address
from online_tapir.wire.security import Access, BoundSocket, load_keys

# How Ray is told, before it is imported, to stay on this machine, and to let in those who have its token: this user.
_LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to Ray's makers
    "RAY_worker_niceness": "0",  # Ray would have its processes yield to all others
}

NAMESPACE = "online-tapir"
PLACER = "placer"
TICK_S = 0.25
PUBLISH_S = 1.0  # at least this often
NODES_S = 1.0  # between two looks at the machines
HANGS_S = 10.0  # without an answer a rig is away, though its process lives
REMAKE_S = 10.0  # before a rig that could not be started is tried again
STARTUP_S = 120.0
KNOCK_S = 5.0
SMALL_STORE = 80 * 2**20  # bytes of Ray's object store, which we do not use

Kind = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How rigs are made on the machines of a cluster."""

    kind: Kind = "auto"  # gpu: one rig for each GPU and none elsewhere; cpu: none uses a GPU; auto: what is there
    cpus_per_rig: int = 4
    directory: str = DEFAULT_ADDRESS
    metrics: str | None = None  # port, or HOST:PORT, on the placer's machine


@dataclass(slots=True)
class _Actor:
    """A rig's actor, and what is known of it."""

    node: str  # its machine's id
    address: str
    handle: Any
    pending: Any = None  # the answer that is awaited
    asked_s: float = 0.0
    report: RigReport | None = None
    away_since_s: float | None = None
    gone: bool = False
    dead_s: float | None = None  # since when it can only be made anew


class RayRigs:
    """The rigs of the cluster: one actor for each GPU, or for so many CPU cores, of every machine."""

    def __init__(self, fleet: FleetSettings, layout: Layout, notes: list[str]) -> None:
        self._fleet = fleet
        self._layout = layout
        self._notes = notes
        self._actors: dict[str, _Actor] = {}
        self._looked_s = float("-inf")

    def look(self) -> Mapping[str, RigState]:
        now_s = time.monotonic()
        if now_s - self._looked_s >= NODES_S:
            self._looked_s = now_s
            self._meet_nodes(now_s)
        for name, actor in list(self._actors.items()):
            self._hear(name, actor, now_s)
        return {
            name: RigState(
                actor.address,
                actor.report,
                None if actor.away_since_s is None else now_s - actor.away_since_s,
                actor.gone,
            )
            for name, actor in self._actors.items()
        }

    def order(self, rig: str, orders: Mapping[str, Order]) -> None:
        actor = self._actors[rig]
        if actor.pending is None and actor.dead_s is None:
            life = "" if actor.report is None else actor.report.life
            actor.pending = actor.handle.sync.remote(dict(orders), life)
            actor.asked_s = time.monotonic()

    def stop(self) -> None:
        """Lets all rigs save their points and end."""
        ray = _ray()
        ends = [actor.handle.stop.remote() for actor in self._actors.values() if actor.dead_s is None]
        ray.wait(ends, num_returns=len(ends), timeout=30) if ends else None
        for actor in self._actors.values():
            ray.kill(actor.handle)

    def _meet_nodes(self, now_s: float) -> None:
        ray = _ray()

        there = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        for name, actor in list(self._actors.items()):
            if actor.gone:
                del self._actors[name]
            elif actor.node not in there:
                actor.gone = True
                actor.away_since_s = actor.away_since_s or now_s
                with suppress(Exception):
                    ray.kill(actor.handle)  # it must not be restarted when the name is given out again
                self._notes.append(f"{name} is gone with its machine {actor.address}")
        for node_id, node in there.items():
            for name, resources in self._planned(node_id, node["Resources"]).items():
                known = self._actors.get(name)
                if known is None or (known.dead_s is not None and now_s - known.dead_s > REMAKE_S):
                    self._actors[name] = self._made(name, node_id, node["NodeManagerAddress"], resources)

    def _planned(self, node_id: str, resources: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """The rigs of a machine by name, with what Ray should keep for each."""
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
        gpus = 0 if self._layout.kind == "cpu" else gpus
        if gpus:
            each = [{"num_gpus": 1.0, "num_cpus": float(min(1, cpus))} for _ in range(gpus)]
        elif self._layout.kind == "gpu" or not cpus:
            each = []
        else:
            share = min(self._layout.cpus_per_rig, cpus)
            each = [{"num_cpus": float(share), "num_gpus": 0.0} for _ in range(cpus // share)]
        return {f"rig-{node_id[:6]}-{number}": one for number, one in enumerate(each)}

    def _made(self, name: str, node_id: str, address: str, resources: Mapping[str, float]) -> _Actor:
        threads = None if resources["num_gpus"] else int(resources["num_cpus"])
        calm = {"GOMP_SPINCOUNT": "10000", "OPENBLAS_NUM_THREADS": "1"}
        how = {"max_concurrency": 1, "runtime_env": {"env_vars": calm}, **resources}
        handle = _actor(RigRun, f"{self._fleet.name}/{name}", node_id, how).remote(self._fleet, name, address, threads)
        return _Actor(node_id, address, handle)

    def _hear(self, name: str, actor: _Actor, now_s: float) -> None:
        """Takes a rig's answer if it has come."""
        ray = _ray()
        from ray.exceptions import ActorDiedError, RayError, RayTaskError

        if actor.pending is None:
            return
        ready, _ = ray.wait([actor.pending], timeout=0)
        if not ready:
            if actor.report is not None and now_s - actor.asked_s > HANGS_S:
                actor.away_since_s = actor.away_since_s or actor.asked_s
            return
        pending, actor.pending = actor.pending, None
        try:
            actor.report = ray.get(pending)
        except RayTaskError as error:  # its run has failed: another process begins anew
            self._notes.append(f"{name}: {error.cause}; it is restarted")
            ray.kill(actor.handle, no_restart=False)
            actor.away_since_s = actor.away_since_s or now_s
        except ActorDiedError as error:
            actor.away_since_s = actor.away_since_s or now_s
            if _is_final(error):
                actor.dead_s = now_s
                self._notes.append(f"{name} cannot be started: {_reason(error)}; another attempt in {REMAKE_S:g} s")
        except RayError:  # it is being restarted, or cannot be reached for a moment
            actor.away_since_s = actor.away_since_s or now_s
        else:
            actor.away_since_s = None


def _metrics(address: str, access: Access, directory: Callable[[], Directory | None]) -> MetricsServer:
    registry = CollectorRegistry()
    registry.register(FleetMetrics(directory))
    return MetricsServer(address, registry, access)


def _is_final(error: Exception) -> bool:
    """Whether Ray has given the actor up: it does when its constructor raises."""
    return "creation task" in str(error)


def _reason(error: Exception) -> str:
    """The last line of what Ray tells of an error, which is the error itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class PlacerActor:
    """The placer in a process of its own, with the directory's socket. One method runs at a time."""

    def __init__(self, fleet: FleetSettings, layout: Layout) -> None:
        ray = _ray()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._rig_notes: list[str] = []
        self._rigs = RayRigs(fleet, layout, self._rig_notes)
        address = ray.get_runtime_context().gcs_address
        self._placer = Placer(fleet, self._rigs, Storage(fleet.storage), version=version("online-tapir"), ray=address)
        keys = None if fleet.keys is None else load_keys(fleet.keys)
        access = Access(keys, fleet.insecure, self._placer.note)
        self._bound = BoundSocket(zmq.PUB, directory_address(layout.directory), access, {zmq.SNDHWM: 4})
        self._last: Directory | None = None
        self._metrics = None if layout.metrics is None else _metrics(layout.metrics, access, lambda: self._last)
        self._thread = threading.Thread(target=self._go, name="placer", daemon=True)
        self._thread.start()

    def address(self) -> str:
        """Where the directory is published."""
        return self._bound.address

    def want(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        with self._lock:
            self._placer.want(tables)

    def add(self, name: str, table: Mapping[str, Any]) -> None:
        with self._lock:
            self._placer.add(name, table)

    def remove(self, name: str) -> None:
        with self._lock:
            self._placer.remove(name)

    def move(self, name: str, rig: str) -> None:
        with self._lock:
            self._placer.move(name, rig)

    def drain(self, place: str, back: bool) -> list[str]:
        with self._lock:
            return self._placer.drain(place, back=back)

    def stop(self) -> None:
        """Ends all rigs, after they have saved their points, and the directory."""
        self._stop.set()
        self._thread.join()
        self._rigs.stop()
        self._bound.close(200)
        if self._metrics is not None:
            self._metrics.close()

    def _go(self) -> None:
        sent_s = float("-inf")
        while not self._stop.wait(TICK_S):
            with self._lock:
                for note in self._rig_notes:
                    self._placer.note(note)
                self._rig_notes.clear()
                now = self._placer.tick()
            if now != self._last or time.monotonic() - sent_s > PUBLISH_S:
                self._last, sent_s = now, time.monotonic()
                stamped = replace(now, published_unix_ns=time.time_ns())
                self._bound.socket.send(wire.encode(stamped), zmq.NOBLOCK)


@contextmanager
def local() -> Iterator[None]:
    """A Ray of our own on this machine, on loopback alone; all of it ends with the `with`."""
    with _environment({**_LOCAL, **_ALWAYS}):
        ray = _ray()
        ray.init(
            "local",
            namespace=NAMESPACE,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=SMALL_STORE,
        )
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Connects to the cluster at HOST:PORT, or "auto" for the one that this machine belongs to.

    Raises ConfigError if there is none that can be joined.
    """
    _knock(address)
    ours = _LOCAL if address.startswith(("127.", "localhost")) else {}
    with _environment({**ours, **_ALWAYS}):
        ray = _ray()
        try:
            ray.init(address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = str(error).partition("\n")[0]
            raise ConfigError(
                f"cannot join Ray at {address}: {first}; run this on a machine of the cluster, with the same Ray"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raises ConfigError if nothing answers there: Ray itself would go on trying for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return  # "auto"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot join Ray at {address}: {why}; `ray status` shows where the cluster is") from error


def start(fleet: FleetSettings, layout: Layout) -> Any:
    """The fleet's placer on this machine: the one that is there, or a new one. Raises ConfigError."""
    ray = _ray()
    if layout.kind == "gpu" and not ray.cluster_resources().get("GPU"):
        raise ConfigError(
            "--rigs gpu: no machine of this cluster has a GPU that Ray knows; take --rigs cpu, or add one"
        )
    here = ray.get_runtime_context().get_node_id()
    how = {"max_concurrency": 4, "num_cpus": 0}
    placer = _actor(PlacerActor, f"{fleet.name}/{PLACER}", here, how).remote(fleet, layout)
    asked(placer.address)
    return placer


def _actor(kind: type, name: str, node_id: str, how: Mapping[str, Any]) -> Any:
    """A named actor class on one node, which outlives us and is restarted whenever it dies; the one that is there."""
    ray = _ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return ray.remote(kind).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        **how,
    )


def placer_of(fleet: str) -> Any:
    """The placer of a fleet that is up. Raises ConfigError if there is none."""
    ray = _ray()

    try:
        return ray.get_actor(f"{fleet}/{PLACER}", namespace=NAMESPACE)
    except ValueError as error:
        raise ConfigError(f"no fleet {fleet!r} is up in this cluster; `online-tapir fleet up` starts one") from error


def down(placer: Any) -> None:
    """Ends a fleet: its rigs save their points first."""
    ray = _ray()

    asked(placer.stop)
    ray.kill(placer)


def asked(method: Any, *arguments: Any) -> Any:
    """The result of an actor's method; raises its own error as it was there."""
    ray = _ray()
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(method.remote(*arguments), timeout=STARTUP_S)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, OnlineTapirError):
            raise cause from None
        raise
    except RayError as error:
        raise ConfigError(f"the fleet's placer cannot be reached: {_reason(error)}") from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("a fleet needs ray; run `pip install 'online-tapir[fleet]'`") from error
    return ray
