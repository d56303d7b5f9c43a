"""A fleet whose rigs and nodes are killed again and again, and twelve hours of placement on a clock that runs fast.

The fleet is real: a Ray cluster of several nodes on this machine's loopback, cameras that are ffmpeg streams, one rig a
node. A listener hears every address that was ever published on, those of lost rigs too, so that a camera that two rigs
publish at once would be seen. The simulation drives the placement alone, with thousands of cameras.
"""

import os
import random
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import cv2
import psutil  # type: ignore[import-untyped]
import zmq
from cyclopts import Parameter

from bench.command import BenchError, Count, JsonFile, run
from bench.report import Spread, finish, print_table
from online_tapir.camera import open_camera
from online_tapir.camera.demo import DemoScene
from online_tapir.fleet.placement import Placement, RigRoom
from online_tapir.records import Tracks
from online_tapir.wire import directory as wire_directory
from online_tapir.wire import messages
from online_tapir.wire.directory import Directory

ENVIRONMENT = {  # of Ray: loopback alone, no reports, no niceness
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
START_S = 180.0
RECOVER_S = 90.0
STEADY_S = 6.0  # between a recovery and the next kill: points are saved every second
CLIP_FRAMES = 150
CLIP_FPS = 15
FIRST_PORT = 5800
INTERVAL = "from the kill to the first message of the camera's next placement that has points"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is killed how often, and what is simulated."""

    nodes: Annotated[int, Parameter(help="Nodes with a rig each.", validator=Count)] = 3
    cameras: Annotated[int, Parameter(help="Cameras, each an ffmpeg stream.", validator=Count)] = 4
    rig_kills: Annotated[int, Parameter(help="How often a rig is killed.")] = 20
    node_kills: Annotated[int, Parameter(help="How often a node is killed, and another added.")] = 20
    hours: Annotated[float, Parameter(help="Hours of placement that are simulated.")] = 12.0
    simulated: Annotated[int, Parameter(help="Cameras of the simulation.")] = 3000
    seed: Annotated[int, Parameter(help="Of what is killed, and of the simulation.")] = 0


@dataclass
class Heard:
    """All that was published, and the newest directory."""

    directory: Directory | None = None
    messages: dict[str, list[tuple[float, Tracks]]] = field(default_factory=dict)  # by camera: monotonic s, tracks
    lock: threading.Lock = field(default_factory=threading.Lock)

    def last(self, camera: str) -> Tracks | None:
        with self.lock:
            some = self.messages.get(camera)
            return None if not some else some[-1][1]

    def since(self, camera: str, epoch: int) -> list[tuple[float, Tracks]]:
        """The messages of placements after `epoch`."""
        with self.lock:
            return [one for one in self.messages.get(camera, []) if one[1].epoch > epoch]


def measure(*, settings: Annotated[Settings, Parameter(name="*")] = Settings(), json: JsonFile = None) -> None:
    """Kill rigs and nodes of a fleet, and simulate its placement."""
    results: dict[str, Any] = {}
    if settings.hours:
        results["simulation"] = simulate(settings)
    if settings.rig_kills or settings.node_kills:
        results["kills"] = kill(settings)
    finish("fleet", settings, results, json, interval=INTERVAL)


# --- a real fleet ------------------------------------------------------------------------------------------------


def kill(settings: Settings) -> dict[str, Any]:
    """Kills what `settings` say, one after the other, under streams; checks every message."""
    os.environ.update(ENVIRONMENT)
    from online_tapir.fleet import cluster
    from online_tapir.fleet.orders import FleetSettings

    choice = random.Random(settings.seed)
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        sources = held.enter_context(streams(folder, settings.cameras))
        ray_cluster = held.enter_context(nodes(settings.nodes))
        opening_s = opens_in(next(iter(sources.values())))
        common = {"points": "auto:16", "input": "256x256"}
        fleet = FleetSettings("bench", str(folder / "storage"), common, lanes=settings.cameras, save_every_s=1.0)
        layout = cluster.Layout("cpu", cpus_per_rig=1, directory="tcp://127.0.0.1:0")
        placer = cluster.start(fleet, layout)
        heard = held.enter_context(listening(cluster.asked(placer.address)))
        cluster.asked(placer.want, {name: {"camera": source} for name, source in sources.items()})
        wait_for(heard, settings.cameras)
        told: dict[str, list[dict[str, Any]]] = {"rig": [], "node": []}
        for number in range(settings.rig_kills):
            told["rig"] += one_kill(heard, "rig", lambda rig: os.kill(process_of(rig.address_), signal.SIGKILL), choice)
            print(f"rig {number + 1} of {settings.rig_kills}: {told['rig'][-1]}", flush=True)
            wait_for(heard, settings.cameras)
        for number in range(settings.node_kills):
            told["node"] += one_kill(heard, "node", lambda rig: ray_cluster.lose(rig.name), choice)
            print(f"node {number + 1} of {settings.node_kills}: {told['node'][-1]}", flush=True)
            ray_cluster.add()
            wait_for(heard, settings.cameras, rigs=settings.nodes)
        checked = check(heard)
        assert heard.directory is not None
        checked["moves"] = heard.directory.moves
        cluster.down(placer)
    for name, value in checked.items():
        print(f"{name.replace('_', ' ')}: {value}")
    return {"recoveries": told, "source_opens_in_s": opening_s, **summary(told), **checked}


def opens_in(source: str) -> float:
    """Seconds until such a source gives its first frame to anyone who opens it: part of every recovery."""
    begun_s = time.monotonic()
    with closing(open_camera(source)) as camera:
        camera.grab()
    found = time.monotonic() - begun_s
    print(f"the source alone takes {found:.1f} s to open")
    return round(found, 2)


@dataclass(frozen=True, slots=True)
class Victim:
    """A rig that is to be lost, and where it publishes."""

    name: str
    address_: str


def one_kill(heard: Heard, what: str, strike: Any, choice: random.Random) -> list[dict[str, Any]]:
    """Strikes the rig of a random camera; what became of each camera that it had."""
    now = heard.directory
    assert now is not None
    victim = choice.choice(sorted({(one.rig, one.address) for one in now.cameras}))
    hit = [one for one in now.cameras if one.rig == victim[0]]
    before = {one.name: heard.last(one.name) for one in hit}
    struck_s = time.monotonic()
    strike(Victim(*victim))
    found = []
    for camera in hit:
        last = before[camera.name]
        assert last is not None
        at_s, after = recovered(heard, camera.name, camera.epoch, struck_s)
        kept = len(set(last.ids.tolist()) & set(after.ids.tolist()))
        found.append(
            {
                "what": what,
                "camera": camera.name,
                "seconds": round(at_s - struck_s, 2),
                "points": len(last.ids),
                "kept": kept,
                "new": len(after.ids) - kept,
            }
        )
    return found


def recovered(heard: Heard, camera: str, epoch: int, struck_s: float) -> tuple[float, Tracks]:
    """The first message of a later placement that has points, and when it came."""
    while time.monotonic() - struck_s < RECOVER_S:
        for at_s, tracks in heard.since(camera, epoch):
            if len(tracks.ids):
                return at_s, tracks
        time.sleep(0.02)
    raise BenchError(f"{camera} did not come back in {RECOVER_S:g} s")


def wait_for(heard: Heard, cameras: int, rigs: int | None = None) -> None:
    """Until all cameras stream, and so many rigs are up; then a while longer."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        now = heard.directory
        if now is not None and steady(now, cameras, rigs):
            time.sleep(STEADY_S)
            return
        time.sleep(0.1)
    raise BenchError(f"not all cameras stream after {START_S:g} s: {heard.directory}")


def steady(now: Directory, cameras: int, rigs: int | None) -> bool:
    streaming = sum(one.state == "streaming" and one.points > 0 for one in now.cameras)
    return streaming == cameras and (rigs is None or sum(rig.state == "up" for rig in now.rigs) == rigs)


def check(heard: Heard) -> dict[str, Any]:
    """What must never happen, counted over every message that was heard."""
    twice = overlapping = unaccounted = gone_back = total = 0
    for some in heard.messages.values():
        tracks = [one for _, one in some]
        total += len(tracks)
        twice += sum(count - 1 for count in Counter((one.epoch, one.frame_id) for one in tracks).values())
        spans: dict[int, tuple[int, int]] = {}
        for one in tracks:
            first, last = spans.get(one.epoch, (one.published_unix_ns, one.published_unix_ns))
            spans[one.epoch] = min(first, one.published_unix_ns), max(last, one.published_unix_ns)
        ordered = [spans[epoch] for epoch in sorted(spans)]
        overlapping += sum(later[0] < earlier[1] for earlier, later in pairwise(ordered))
        for earlier, later in pairwise(tracks):
            if earlier.epoch == later.epoch:
                unaccounted += later.frame_id - earlier.frame_id - 1 != later.dropped - earlier.dropped
            gone_back += later.epoch < earlier.epoch
    return {
        "messages": total,
        "published_twice": twice,
        "placements_that_overlap": overlapping,
        "frame_numbers_unaccounted_for": unaccounted,
        "epochs_that_went_back": gone_back,
    }


def summary(told: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    spreads = {
        f"{what} killed, {len(some)} cameras": Spread.of([one["seconds"] for one in some])
        for what, some in told.items()
        if some
    }
    facts = {
        f"{what} killed, {len(some)} cameras": f"{sum(one['kept'] for one in some)} of "
        f"{sum(one['points'] for one in some)} points kept their ids, {sum(one['new'] for one in some)} are new"
        for what, some in told.items()
        if some
    }
    print_table("seconds from the kill to the camera's next message with points", spreads, facts)
    return {"seconds": spreads, "points": facts}


class Nodes:
    """The nodes of a cluster on loopback: the first has no rig and lives, the others come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        how = {"include_dashboard": False, "object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.1"}
        self._how = {key: value for key, value in how.items() if key != "include_dashboard"}
        self._cluster: Any = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 0, **how})
        self._nodes: dict[str, Any] = {}

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> None:
        node = self._cluster.add_node(num_cpus=1, **self._how)
        self._nodes[node.node_id] = node

    def lose(self, rig: str) -> None:
        """Kills the node of a rig at once, with all its processes."""
        (found,) = [one for one in self._nodes if rig == f"rig-{one[:6]}-0"]
        self._cluster.remove_node(self._nodes.pop(found), allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()


@contextmanager
def nodes(count: int) -> Iterator[Nodes]:
    import ray

    found = Nodes()
    try:
        for _ in range(count):
            found.add()
        ray.init(found.address, namespace="online-tapir", log_to_driver=False, configure_logging=False)
        yield found
    finally:
        ray.shutdown()
        found.close()


@contextmanager
def streams(folder: Path, count: int) -> Iterator[dict[str, str]]:
    """So many ffmpeg streams, each of a scene of its own, again and again; their addresses by camera."""
    if shutil.which("ffmpeg") is None:
        raise BenchError("there is no ffmpeg; install it")
    running: list[subprocess.Popen[bytes]] = []
    try:
        addresses = {}
        for number in range(count):
            clip = folder / f"{number}.avi"
            scene = DemoScene(320, 240, number)
            writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), CLIP_FPS, (320, 240))
            for frame_id in (*range(CLIP_FRAMES), *reversed(range(CLIP_FRAMES))):  # there and back: it has no cut
                writer.write(cv2.cvtColor(scene.render(frame_id), cv2.COLOR_RGB2BGR))
            writer.release()
            packed = clip.with_suffix(".ts")
            words = [
                "ffmpeg",
                "-loglevel",
                "error",
                "-i",
                str(clip),
                "-c:v",
                "libx264",
                "-preset",
                "veryfast",
                "-g",
                "15",
            ]
            subprocess.run([*words, "-bf", "0", str(packed)], check=True)
            address = f"udp://127.0.0.1:{FIRST_PORT + number}"
            words = ["ffmpeg", "-loglevel", "quiet", "-re", "-stream_loop", "-1", "-i", str(packed), "-c", "copy"]
            running.append(subprocess.Popen([*words, "-f", "mpegts", f"{address}?pkt_size=1316"]))
            addresses[f"camera{number}"] = address
        yield addresses
    finally:
        for one in running:
            one.kill()
            one.wait()


@contextmanager
def listening(directory: str) -> Iterator[Heard]:
    """Hears the directory, and every address that it has ever named."""
    heard, stop = Heard(), threading.Event()

    def go() -> None:
        context = zmq.Context()
        where, rigs = context.socket(zmq.SUB), context.socket(zmq.SUB)
        where.setsockopt(zmq.SUBSCRIBE, wire_directory.TOPIC)
        rigs.setsockopt(zmq.SUBSCRIBE, messages.TOPIC)
        rigs.setsockopt(zmq.RCVHWM, 0)
        where.connect(directory)
        reached: set[str] = set()
        while not stop.is_set():
            ready, _, _ = zmq.select([where, rigs], [], [], 0.1)
            if where in ready:
                heard.directory = wire_directory.decode(where.recv())
                for address in {one.address for one in heard.directory.cameras if one.address} - reached:
                    rigs.connect(address)
                    reached.add(address)
            if rigs in ready:
                tracks = messages.decode(rigs.recv())
                with heard.lock:
                    heard.messages.setdefault(tracks.camera, []).append((time.monotonic(), tracks))
        where.close(0)
        rigs.close(0)
        context.term()

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join()


def process_of(address: str) -> int:
    """The process that listens at tcp://HOST:PORT."""
    port = int(address.rpartition(":")[2])
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            for one in process.net_connections("tcp"):
                if one.status == psutil.CONN_LISTEN and one.laddr.port == port:
                    return int(process.pid)
    raise BenchError(f"nobody listens at {address}")


# --- hours of placement ------------------------------------------------------------------------------------------

STEP_S = 5.0
RIGS_FULL = 0.7  # of the lanes are taken on average
LANES = 16
REPAIR_S = (60.0, 900.0)  # a lost rig comes back after this long
LOST_EVERY_S = 120.0  # on average, one of all
JOIN_EVERY_S = 60.0  # a camera leaves, another joins
DRIFT_S = 1800.0  # a camera's cost wanders over this time


def simulate(settings: Settings) -> dict[str, Any]:
    """Hours of a large fleet whose rigs are lost and come back, whose cameras join, leave and cost more or less."""
    random_ = random.Random(settings.seed)
    placement = Placement()
    count = round(settings.simulated / LANES / RIGS_FULL)
    rigs = {f"rig{number}": 0.0 for number in range(count)}  # with when each is back
    base = {f"camera{number}": random_.uniform(0.02, 0.1) for number in range(settings.simulated)}
    cost = dict(base)
    joined = settings.simulated
    imbalance: list[float] = []
    fullest: list[float] = []
    waited = lost = 0
    why: Counter[str] = Counter()
    decide_ms: list[float] = []
    for step in range(int(settings.hours * 3600 / STEP_S)):
        now_s = step * STEP_S
        if random_.random() < STEP_S / LOST_EVERY_S:
            rigs[random_.choice(list(rigs))] = now_s + random_.uniform(*REPAIR_S)
            lost += 1
        if random_.random() < STEP_S / JOIN_EVERY_S:
            gone = random_.choice(list(cost))
            del cost[gone], base[gone]
            base[f"camera{joined}"] = cost[f"camera{joined}"] = random_.uniform(0.02, 0.1)
            joined += 1
        for camera in random_.sample(list(cost), int(len(cost) * STEP_S / DRIFT_S * 4)):
            cost[camera] = base[camera] * random_.uniform(0.5, 2.0)
        there = [rig for rig, back_s in rigs.items() if back_s <= now_s]
        measured: dict[str, dict[str, float]] = {rig: {} for rig in there}
        for camera, home in placement.homes.items():
            if home.rig in measured and camera in cost:
                measured[home.rig][camera] = cost[camera]
        begun = time.perf_counter()
        decisions = placement.decide(now_s, set(cost), {rig: RigRoom(LANES, measured[rig]) for rig in there})
        decide_ms.append(1000 * (time.perf_counter() - begun))
        why.update("balance" if "fuller" in one.why else "lost" for one in decisions if one.before)
        waited += len(placement.waiting)
        loads = dict.fromkeys(there, 0.0)
        for camera, home in placement.homes.items():
            loads[home.rig] += cost[camera]
        mean = sum(loads.values()) / len(loads)
        imbalance.append(max(loads.values()) / mean)
        fullest.append(max(loads.values()))
    camera_days = settings.simulated * settings.hours / 24
    found = {
        "cameras": settings.simulated,
        "rigs": count,
        "hours": settings.hours,
        "rigs_lost": lost,
        "moves_because_a_rig_was_lost": why["lost"],
        "moves_to_balance": why["balance"],
        "moves_to_balance_per_camera_and_day": round(why["balance"] / camera_days, 2),
        "fullest_to_mean_median": round(statistics.median(imbalance), 2),
        "fullest_load_median": round(statistics.median(fullest), 2),
        "camera_seconds_waited": round(waited * STEP_S),
        "decide_ms_median": round(statistics.median(decide_ms), 1),
    }
    for name, value in found.items():
        print(f"{name.replace('_', ' ')}: {value}")
    return found


if __name__ == "__main__":
    run(measure)
