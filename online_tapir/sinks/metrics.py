"""Serves a run's metrics to Prometheus: counted once a frame, formatted on request, in a separate thread.

Exports only numbers and the names of camera and model: no pictures, no positions, no source addresses. HTTP here has no
authentication, so it binds to this machine alone unless anyone may read it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from online_tapir.live.sink import Sink
from online_tapir.records import Frame, StageTimes, Tracks
from online_tapir.sinks.metrics_server import MetricsServer
from online_tapir.wire.messages import State
from online_tapir.wire.security import THIS_MACHINE, Access

if TYPE_CHECKING:
    from online_tapir.live.stream import Stream

PREFIX = "online_tapir"
LATENCY_S = (0.005, 0.01, 0.015, 0.02, 0.025, 0.033, 0.05, 0.067, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
STAGE_S = (0.0001, 0.0003, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.2, 0.5, 1.0)


class Metrics(Sink, Collector):
    """A sink that counts, and serves its counts at `url`.

    `address` is PORT (on loopback) or HOST:PORT; port 0 picks a free one. Put it after the other sinks: a latency ends
    when its turn comes. Raises ConfigError for an invalid address, PublishError when the address cannot be bound, or
    when other machines can reach it and `access` is not insecure.
    """

    def __init__(
        self, address: str, *, access: Access = THIS_MACHINE, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._frames: Counter[str] = Counter()  # by camera
        self._last: dict[str, Tracks] = {}
        self._watched: dict[str, Stream] = {}
        registry = CollectorRegistry()
        self._latency = Histogram(
            f"{PREFIX}_latency_seconds",
            "From the grab of a frame to its publication.",
            ["camera"],
            buckets=LATENCY_S,
            registry=registry,
        )
        self._stages = Histogram(
            f"{PREFIX}_stage_seconds",
            "Time per frame by stage; capture is how long it waited, publish is that of the previous frame.",
            ["camera", "stage"],
            buckets=STAGE_S,
            registry=registry,
        )
        registry.register(self)
        ProcessCollector(registry=registry)  # resident memory, open files, CPU seconds, start time
        self._server = MetricsServer(address, registry, access)
        self.url = self._server.url

    def begin(self, stream: "Stream") -> None:
        """Serves this stream's figures too from now on; they are read on each request."""
        self._watched[stream.name] = stream

    def end(self, stream: "Stream") -> None:
        """Serves this stream's figures no longer."""
        camera = stream.name
        self._watched.pop(camera, None)
        if self._last.pop(camera, None) is None:
            return
        self._latency.remove(camera)
        for field in fields(StageTimes):
            self._stages.remove(camera, field.name)

    def publish(self, frame: Frame, tracks: Tracks) -> None:
        """Counts a frame that has just been published."""
        camera = tracks.camera
        self._latency.labels(camera).observe((self._monotonic_ns() - tracks.captured_ns) / 1e9)
        for field in fields(StageTimes):
            self._stages.labels(camera, field.name).observe(getattr(tracks.times, field.name) / 1e9)
        self._frames[camera] += 1
        self._last[camera] = tracks

    def close(self) -> None:
        """Stops serving, within a fraction of a second unless a silent client is connected. May be called twice."""
        self._server.close()

    def collect(self) -> Iterator[Metric]:
        """The current values of all but the histograms; called by the serving thread."""
        frames = CounterMetricFamily(f"{PREFIX}_frames", "Frames tracked and published.", labels=["camera"])
        points = GaugeMetricFamily(f"{PREFIX}_points", "Points that are tracked.", labels=["camera", "state"])
        seen = GaugeMetricFamily(
            f"{PREFIX}_last_frame_timestamp_seconds",
            "Wall-clock time when the last tracked frame was grabbed.",
            labels=["camera"],
        )
        model = InfoMetricFamily(PREFIX, "Cameras and model of the run.", labels=["camera"])
        for camera in {*tuple(self._watched), *tuple(self._last)}:
            frames.add_metric([camera], self._frames[camera])
        for camera, last in tuple(self._last.items()):
            visible = int(last.visible.sum())
            points.add_metric([camera, "visible"], visible)
            points.add_metric([camera, "hidden"], len(last.ids) - visible)
            seen.add_metric([camera], last.captured_unix_ns / 1e9)
            model.add_metric([camera], {"model": last.model})
        yield from (frames, points, seen, model)
        yield from _of_the_sources(dict(self._watched))


def _of_the_sources(streams: dict[str, "Stream"]) -> Iterator[Metric]:
    state = GaugeMetricFamily(f"{PREFIX}_source_state", "1 for the current state.", labels=["camera", "state"])
    counters = {
        name: CounterMetricFamily(f"{PREFIX}_{name}", meaning, labels=["camera"])
        for name, meaning in {
            "dropped_frames": "Frames of the source that were not tracked.",
            "corrupt_frames": "Frames that could not be decoded; also counted as dropped.",
            "reconnects": "Times the source came back after it was lost or stalled.",
            "control_requests": "Requests that were answered or refused.",
        }.items()
    }
    for camera, stream in streams.items():
        health = stream.capture.health
        now: State = "paused" if stream.paused else health.state
        for one in get_args(State):
            state.add_metric([camera, one], int(one == now))
        counters["dropped_frames"].add_metric([camera], stream.capture.dropped + stream.skipped)
        counters["corrupt_frames"].add_metric([camera], health.corrupt)
        counters["reconnects"].add_metric([camera], health.reconnects)
        counters["control_requests"].add_metric([camera], stream.requests)
    yield from (state, *counters.values())
