"""Builds a run's streams from their configurations: a camera, a tracker of its points, and what is written of it."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from online_tapir.camera import Awaited, Camera, Capture, Reconnect, can_come_back, open_camera
from online_tapir.camera.base import free_name
from online_tapir.camera.demo import DemoCamera
from online_tapir.errors import CameraError, ConfigError
from online_tapir.flow.model_thread import ModelThread
from online_tapir.flow.tracker import FlowTracker
from online_tapir.launch import pace, sizes
from online_tapir.launch.config import (
    DEFAULT_POINTS,
    LiveConfig,
    OutputConfig,
    PointsConfig,
    SourceConfig,
)
from online_tapir.launch.outputs import Report, open_recorder, open_writers
from online_tapir.launch.trackers import Trackers
from online_tapir.live.roster import Member
from online_tapir.live.sink import Sink
from online_tapir.live.status import Status
from online_tapir.live.stream import Stream
from online_tapir.live.truth import DemoTruth
from online_tapir.points import calibration, pose
from online_tapir.points.objects import Objects
from online_tapir.points.placement import NOWHERE, Corners, MaskPoints, PointSource, parse_points
from online_tapir.tracking import templates
from online_tapir.tracking.finder import Finder

if TYPE_CHECKING:
    from online_tapir.live.state_keeper import StateKeeper
    from online_tapir.tracking.exported import ExportedTracker
    from online_tapir.tracking.state_file import SavedState
    from online_tapir.tracking.tracker import Tracker

WriteState = Callable[[Path, "SavedState"], None]


@dataclass(slots=True)
class Streams:
    """Opens cameras that share one model, the thread that runs it, and the sinks of a run. Thread-safe."""

    trackers: Trackers
    thread: ModelThread
    status: Status
    stop: threading.Event
    sinks: Sequence[Sink]  # those of the run
    names: set[str] = field(default_factory=set)  # of the cameras that are open
    planning: threading.Lock = field(default_factory=threading.Lock)
    write_state: WriteState | None = None  # None: into the file itself

    def open(self, config: LiveConfig, cameras: int, shown_by: Sequence[Sink] = ()) -> Member:
        """One camera of several (`cameras` share the processor), and the sinks of its own, `shown_by` among them.

        Raises CameraError, ConfigError or StateError; nothing stays open then.
        """
        report = self.status.note
        with ExitStack() as opening:
            held = opening.enter_context(ExitStack())
            recorder = held.enter_context(closing(open_recorder(config, report)))
            own: list[Sink] = [recorder]
            own.extend(held.enter_context(closing(writer)) for writer in open_writers(config, report))
            own.extend(shown_by)
            saved = _state_to_resume(config.output)
            points = _points(config.points, saved, config.output)
            objects = _objects(config.points)
            open_source = _opener(config.source, report)
            camera = _first_opening(config.source, open_source, others=cameras > 1)
            opening.callback(camera.close)
            with self.planning:  # sources take seconds to open, each in a thread; what follows is shared
                open_source = self._named(camera, config.source, open_source)
                held.callback(self.names.discard, camera.name)
                tracker = self._tracker(config, camera, cameras, saved, held)
            _resume(tracker, objects, saved, config.output, report)
            keeper = _keeper(config.output, tracker, objects, report, self.write_state)
            if keeper is not None:
                own.append(held.enter_context(keeper))
            report(camera.description)
            if isinstance(camera, DemoCamera):
                own.append(DemoTruth(camera.scene, self.status.judge, self.status.judge_held, camera.fps))
            reopen = open_source if can_come_back(config.source.camera) else None
            stream = Stream(
                Capture(camera, reopen=reopen, reconnect=_reconnect(config.source), report=report),
                tracker,
                self.stop,
                points=points,
                finder=_finder(config.points, self.trackers),
                objects=objects,
                replenish=config.points.replenish,
                heartbeat_s=config.network.heartbeat,
                keeper=keeper,
                recorder=None if config.network.insecure else recorder,
                inspect=config.points.inspect,
                epoch=config.epoch,
                shows_inspection=lambda: any(sink.shows_inspection for sink in (*self.sinks, *own)),
                report=report,
            )
            opening.pop_all()  # from here on the capture closes the camera, and the run gives back what is held
            return Member(stream, own, held)

    def _named(self, camera: Camera, source: SourceConfig, open_source: Callable[[], Camera]) -> Callable[[], Camera]:
        """Gives the camera a name that no other has; returns how it is opened again, with that name."""
        if camera.name in self.names:
            if source.name is not None:
                raise ConfigError(f"two cameras are called {camera.name!r}; give each its own name")
            camera.name = free_name(camera.name, self.names)
            open_source = _opener(replace(source, name=camera.name), self.status.note)
        self.names.add(camera.name)
        return open_source

    def _tracker(
        self, config: LiveConfig, camera: Camera, cameras: int, resumed: Path | None, held: ExitStack
    ) -> "Tracker | FlowTracker | ExportedTracker":
        flows = config.model.flow == "on" or (config.model.flow == "auto" and camera.live)
        timed = camera.live or config.source.realtime
        fps = cameras * (camera.fps or pace.USUAL_FPS) if timed else None
        needs = pace.Needs(camera.size, fps, flows, resumed, cameras)
        model_alone = self.trackers.make(config, needs, held, self.status.note)
        if not flows:
            return model_alone
        return held.enter_context(_running(with_flow(model_alone, timed, self.thread)))


@contextmanager
def _running(tracker: FlowTracker) -> Iterator[FlowTracker]:
    """Closes the tracker at the end; raises the model's own error if it came after the last frame was collected."""
    with closing(tracker):
        yield tracker
    tracker.raise_error()


def with_flow(tracker: "Tracker | ExportedTracker", paced: bool, thread: ModelThread | None = None) -> FlowTracker:
    """`tracker` with optical flow between its answers; frames that are not `paced` by a clock wait for the model's.

    The models of several trackers share a `thread`.
    """
    import cv2

    cv2.setNumThreads(1)
    return FlowTracker(tracker, waits=not paced, thread=thread)


def _opener(source: SourceConfig, report: Report) -> Callable[[], Camera]:
    return partial(
        open_camera,
        source.camera,
        size=sizes.frame_size(source.size),
        fps=source.fps,
        realtime=source.realtime,
        loop=source.loop,
        name=source.name,
        timeout_s=source.stall_timeout,
        report=report,
    )


def _reconnect(source: SourceConfig) -> Reconnect:
    return Reconnect(
        attempts=source.reconnect_attempts if source.reconnect else 0,  # a stall is still detected
        longest_wait_s=source.reconnect_wait,
        stall_timeout_s=source.stall_timeout,
    )


def _first_opening(source: SourceConfig, open_source: Callable[[], Camera], others: bool) -> Camera:
    """The camera; a placeholder (`Awaited`) if it cannot be opened yet and should be waited for.

    Unless told, it waits for network addresses, and where there are `others` for any camera that can come back.
    """
    wait = source.wait if source.wait is not None else others or "://" in source.camera
    try:
        return open_source()
    except CameraError as error:
        if not (wait and source.reconnect and can_come_back(source.camera)) or source.reconnect_attempts == 0:
            raise
        return Awaited(source.camera, source.name, error)


def _points(points: PointsConfig, saved: Path | None, output: OutputConfig) -> PointSource:
    if saved is not None and saved == output.save_state:
        return NOWHERE  # the same command again: its points are in the file
    if points.mask is not None:
        if points.points is not None:
            raise ConfigError("--points and --mask both say what to follow; give one of them")
        return MaskPoints(points.mask, points.mask_id)
    if points.points is not None:
        return parse_points(points.points)
    return (
        NOWHERE
        if saved is not None or points.templates is not None
        else Corners(min(DEFAULT_POINTS, points.max_points))
    )


def _objects(points: PointsConfig) -> Objects | None:
    if points.object_size and (points.calibration is None or points.objects == "off"):
        raise ConfigError("--object-size gives a pose to objects that a calibrated camera sees; add --calibration FILE")
    if points.objects == "off":
        return None
    lens = None if points.calibration is None else calibration.read(points.calibration)
    return Objects(points.objects, lens, pose.parse_sizes(points.object_size))


def _finder(points: PointsConfig, trackers: Trackers) -> Finder:
    if points.templates is None:
        return Finder()
    found = templates.read(points.templates)
    trackers.check(found)
    return Finder(found.templates)


def _state_to_resume(output: OutputConfig) -> Path | None:
    """The file to resume from; None if it is also the --save-state file and does not exist yet."""
    if output.resume is not None and output.resume == output.save_state and not output.resume.exists():
        return None
    return output.resume


def _resume(
    tracker: "Tracker | FlowTracker | ExportedTracker",
    objects: Objects | None,
    saved: Path | None,
    output: OutputConfig,
    report: Report,
) -> None:
    if saved is not None:
        state = tracker.load_state(saved)
        if objects is not None:
            objects.restore(state.objects)
        when = datetime.fromtimestamp(state.saved_unix_ns / 1e9).astimezone().isoformat(" ", "seconds")
        report(f"continuing with {state.points} points saved to {saved} at {when}, on frame {state.frame_id}")
    elif output.resume is not None:
        report(f"{output.resume} does not exist yet: this run begins without saved points")


def _keeper(
    output: OutputConfig,
    tracker: "Tracker | FlowTracker | ExportedTracker",
    objects: Objects | None,
    report: Report,
    write: WriteState | None,
) -> "StateKeeper | None":
    if output.save_state is None:
        return None
    from online_tapir.live.state_keeper import StateKeeper

    return StateKeeper(
        output.save_state, tracker, objects=objects, every_s=output.save_state_every, report=report, write=write
    )
