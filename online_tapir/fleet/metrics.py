"""A fleet's figures for Prometheus, from its newest directory."""

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from online_tapir.wire.directory import CameraEntry, Directory

PREFIX = "online_tapir_fleet"


class FleetMetrics(Collector):
    """Collects what `directory` returns at that moment; None before the first."""

    def __init__(self, directory: Callable[[], Directory | None]) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        now = self._directory()
        if now is None:
            return
        nodes = {rig.name: rig.node for rig in now.rigs}
        moves = CounterMetricFamily(f"{PREFIX}_moves", "Cameras that were given to another rig.")
        moves.add_metric([], now.moves)
        yield moves
        yield from self._cameras(now, nodes)
        yield from self._rigs(now)

    def _cameras(self, now: Directory, nodes: dict[str, str]) -> Iterator[Metric]:
        by_node = GaugeMetricFamily(f"{PREFIX}_cameras", "Cameras by machine and state.", labels=["node", "state"])
        for (node, state), count in Counter((nodes.get(one.rig, ""), one.state) for one in now.cameras).items():
            by_node.add_metric([node, state], count)
        yield by_node
        gauges: dict[str, tuple[str, Callable[[CameraEntry], float]]] = {
            "frames_per_second": ("Frames tracked a second.", lambda one: one.fps),
            "latency_seconds": ("Capture to publish, median of the last seconds.", lambda one: one.latency_ms / 1e3),
            "points": ("Points that are tracked.", lambda one: one.points),
            "epoch": ("Number of the camera's placement.", lambda one: one.epoch),
        }
        for name, (meaning, value) in gauges.items():
            gauge = GaugeMetricFamily(f"{PREFIX}_{name}", meaning, labels=["camera", "rig"])
            for one in now.cameras:
                gauge.add_metric([one.name, one.rig], value(one))
            yield gauge
        restarts = CounterMetricFamily(f"{PREFIX}_camera_restarts", "Times a camera lost its rig.", labels=["camera"])
        for one in now.cameras:
            restarts.add_metric([one.name], one.restarts)
        yield restarts

    def _rigs(self, now: Directory) -> Iterator[Metric]:
        up = GaugeMetricFamily(f"{PREFIX}_rig_up", "1 where a rig is up.", labels=["rig", "node"])
        load = GaugeMetricFamily(f"{PREFIX}_rig_load", "Load of a rig; 1 is full.", labels=["rig", "node"])
        lanes = GaugeMetricFamily(f"{PREFIX}_rig_lanes", "Cameras a rig may have.", labels=["rig", "node"])
        restarts = CounterMetricFamily(f"{PREFIX}_rig_restarts", "Times a rig was restarted.", labels=["rig", "node"])
        for rig in now.rigs:
            labels = [rig.name, rig.node]
            up.add_metric(labels, int(rig.state == "up"))
            load.add_metric(labels, rig.load)
            lanes.add_metric(labels, rig.lanes)
            restarts.add_metric(labels, rig.restarts)
        yield from (up, load, lanes, restarts)
