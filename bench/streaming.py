"""Streaming accuracy: how good a subscriber's newest message is, for this program and for common alternatives.

Clips with exact truth are played at real rates by a camera that does not wait. A subscriber in another process keeps
the newest message. At the end of every frame's own period that message is scored against *that* frame's truth (Li,
Wang, Ramanan: Towards Streaming Perception, ECCV 2020). Also measured: the same messages scored against their own
frames, their latency, and the share of frames answered within their own period.

Two kinds of clips: `photographs` move as planes, as if a camera panned over a picture; `scenes` are the validation
scenes, with sprites that move fast in front of each other.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number
from numpy.typing import NDArray

from bench.command import BenchError, Count, JsonFile, PlotFile, pixels, run
from bench.report import Spread, finish, print_table
from online_tapir.evaluation import scores as metrics
from online_tapir.records import Tracks
from online_tapir.testing import FakeTracker, SyntheticCamera
from online_tapir.testing import run as run_through
from online_tapir.wire.subscriber import Subscription, subscribe

NS = 1_000_000_000
SEED = 1_000_000_021  # of the clips; training uses seeds below
CANDIDATES = 4  # points drawn per point kept; only points visible on the first frame are kept
SETTLE_S = 1.0  # for a subscriber to join, and for the last message to arrive
PATIENCE_S = 120.0
SHOWN = 5  # frames in a strip
LOST_PX = 48.0  # a point that is farther off is not late but lost
StripFile = Annotated[
    Path | None, Parameter(help="Draw what is held on the last clip's fastest frames into this .jpg or .png.")
]
TRACKERS = ("small", "small, flow off", "LK, recovering", "DIS flow", "still")
INTERVAL = "from the second frame of each clip to its last; starting the program is not included"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which clips are played, and which trackers track them."""

    photos: Annotated[Path | None, Parameter(help="Folder of photographs. [default: procedural textures]")] = None
    clips: Annotated[int, Parameter(help="Clips of each kind.", validator=Count)] = 3
    frames: Annotated[int, Parameter(help="Frames per clip.", validator=Number(gte=10))] = 72
    fps: Annotated[tuple[int, ...], Parameter(help="Frame rates of the camera.")] = (30,)
    size: Annotated[str, Parameter(help="Frame size.")] = "256x256"
    points: Annotated[int, Parameter(help="Points per clip.", validator=Count)] = 64
    trackers: Annotated[tuple[str, ...], Parameter(help="Some of: " + "; ".join(TRACKERS))] = TRACKERS
    input: Annotated[str, Parameter(help="As `online-tapir --input`.")] = "auto"
    engine: Annotated[
        Literal["auto", "torch", "openvino", "onnxruntime"], Parameter(help="As `online-tapir --engine`.")
    ] = "auto"
    threads: Annotated[int | None, Parameter(help="CPU threads of the model.", validator=Count)] = None


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames and the truth of the points that are visible on the first."""

    kind: str
    frames: NDArray[np.uint8]  # [T, H, W, 3]
    xy: NDArray[np.float32]  # [N, T, 2] image pixels
    visible: NDArray[np.bool_]  # [N, T]


@dataclass(frozen=True, slots=True)
class Heard:
    """A message, and when it was received."""

    received_ns: int
    tracks: Tracks


@dataclass(frozen=True, slots=True)
class Result:
    """One tracker on one clip at one rate."""

    streaming: metrics.TrackScores
    offline: metrics.TrackScores
    latency_ms: list[float]
    answered: int  # frames whose own message came within their period
    frames: int
    held_xy: NDArray[np.float32]  # [N, T, 2] at the end of every frame's period


def main(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    json: JsonFile = None,
    plot: PlotFile = None,
    strip: StripFile = None,
) -> None:
    """Score what a subscriber holds at the end of every frame's period, for every tracker, kind of clip and rate."""
    unknown = set(settings.trackers) - set(TRACKERS)
    if unknown:
        raise BenchError(f"there is no tracker {sorted(unknown)[0]!r}; there are {', '.join(TRACKERS)}")
    clips = list(make_clips(settings))
    rows: list[dict[str, Any]] = []
    held: dict[str, NDArray[np.float32]] = {}  # of the last clip, by tracker
    latency: dict[str, Spread] = {}
    for name in settings.trackers:
        with Program(name, settings) as program:
            for fps in settings.fps:
                for kind in sorted({clip.kind for clip in clips}):
                    found = [program.score(clip, fps) for clip in clips if clip.kind == kind]
                    rows.append(summary(name, kind, fps, found))
                    held[name] = found[-1].held_xy
                    latency[f"{name}, {kind}, {fps} fps"] = Spread.of(np.concatenate([one.latency_ms for one in found]))
    facts = {f"{row['tracker']}, {row['kind']}, {row['fps']} fps": in_words(row) for row in rows}
    print_table(f"milliseconds from capture to receipt, {settings.points} points, {settings.size}", latency, facts)
    if plot is not None:
        draw(rows, plot)
    if strip is not None:
        draw_strip([clip for clip in clips if clip.kind == rows[-1]["kind"]][-1], held, strip)
    finish("streaming", settings, {"rows": rows, "latency_ms": latency}, json, interval=INTERVAL)


def make_clips(settings: Settings) -> Iterator[Clip]:
    """Renders the clips; the same settings give the same clips."""
    from online_tapir.scenes.clips import SceneConfig
    from online_tapir.scenes.clips import make_clips as render
    from online_tapir.scenes.textures import TextureBank

    width, height = pixels(settings.size)
    side = max(320, width, height)
    bank = (
        TextureBank.procedural(96, seed=1, size=side)
        if settings.photos is None
        else TextureBank.from_folder(settings.photos, size=side)
    )
    scenes = SceneConfig(height=height, width=width, frames=settings.frames, points=CANDIDATES * settings.points)
    kinds = {"photographs": replace(scenes, sprites=(0, 0), hidden_points=0.0), "scenes": scenes}
    for kind, config in kinds.items():
        for seed in range(SEED, SEED + settings.clips):
            rendered = render([seed], config, bank)
            visible = rendered.visible[0].numpy()
            kept = np.flatnonzero(visible[:, 0])[: settings.points]
            if not len(kept):
                raise BenchError(f"no point is visible on the first frame of the {kind} of seed {seed}")
            frames = ((rendered.frames[0] + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
            yield Clip(kind, frames, rendered.xy[0].numpy()[kept], visible[kept])


class Program:
    """A tracker that publishes from its own process; scores clips by the messages received from it."""

    def __init__(self, name: str, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(name, settings, theirs), daemon=True)
        self._next = 0

    def __enter__(self) -> "Program":
        self._process.start()
        self._stream: Subscription[Tracks] = subscribe(self._receive(), timeout_ms=int(1000 * PATIENCE_S))
        self._heard: list[Heard] = []
        Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join(PATIENCE_S)
        self._process.kill()

    def score(self, clip: Clip, fps: int) -> Result:
        """Plays the clip at a frame rate, and scores the messages received."""
        time.sleep(SETTLE_S)
        self._heard.clear()
        name, self._next = f"clip-{self._next}", self._next + 1
        self._pipe.send((name, clip.frames, clip.xy[:, 0], fps))
        self._receive()
        time.sleep(SETTLE_S)
        return scored(clip, fps, [one for one in self._heard if one.tracks.camera == name])

    def _receive(self) -> Any:
        if not self._pipe.poll(PATIENCE_S):
            raise BenchError(f"the tracker's process gave no answer for {PATIENCE_S:g} s; its output is above")
        return self._pipe.recv()

    def _listen(self) -> None:
        with suppress(TimeoutError):  # long after the program has ended
            for tracks in self._stream:
                self._heard.append(Heard(time.monotonic_ns(), tracks))


def scored(clip: Clip, fps: int, heard: Sequence[Heard]) -> Result:
    """What a subscriber held at the end of each frame's period, against the truth of that frame."""
    if not heard or heard[0].tracks.frame_id != 0:
        raise BenchError("the first frame of a clip was not tracked; is this machine too busy to measure on?")
    count, frames = clip.visible.shape
    period_ns = NS / fps
    ids = [one.tracks.frame_id for one in heard]
    begun_ns = [one.tracks.captured_ns - one.tracks.frame_id * period_ns for one in heard]  # a late camera shifts it
    ends_ns = np.interp(np.arange(frames), ids, begun_ns) + (np.arange(frames) + 1) * period_ns
    held_xy, held_visible = np.empty((count, frames, 2), np.float32), np.zeros((count, frames), np.bool_)
    own_xy, own_visible, own = held_xy.copy(), held_visible.copy(), np.zeros(frames, np.bool_)
    held_xy[:] = clip.xy[:, :1]
    in_time, newest = 0, 0
    for frame_id in range(frames):
        while newest < len(heard) and heard[newest].received_ns <= ends_ns[frame_id]:
            in_time += 0 < heard[newest].tracks.frame_id == frame_id
            newest += 1
        if newest:
            tracks = heard[newest - 1].tracks
            held_xy[:, frame_id], held_visible[:, frame_id] = tracks.xy, tracks.visible
    for one in heard:
        own[one.tracks.frame_id] = True
        own_xy[:, one.tracks.frame_id], own_visible[:, one.tracks.frame_id] = one.tracks.xy, one.tracks.visible
    after = np.arange(frames) > 0
    return Result(
        _score(clip, held_xy, held_visible, after),
        _score(clip, own_xy, own_visible, after & own),
        [(one.received_ns - one.tracks.captured_ns) / 1e6 for one in heard if one.tracks.frame_id],
        in_time,
        frames - 1,
        held_xy,
    )


def _score(
    clip: Clip, xy: NDArray[np.float32], visible: NDArray[np.bool_], frames: NDArray[np.bool_]
) -> metrics.TrackScores:
    height, width = clip.frames.shape[1:3]
    told, truth = metrics.scale_to_256(xy, width, height), metrics.scale_to_256(clip.xy, width, height)
    return metrics.score(told, visible, truth, clip.visible, np.broadcast_to(frames, visible.shape))


def summary(name: str, kind: str, fps: int, found: Sequence[Result]) -> dict[str, Any]:
    """The figures of one tracker on the clips of one kind."""
    streaming, offline = (metrics.average([getattr(one, which) for one in found]) for which in ("streaming", "offline"))
    return {
        "tracker": name,
        "kind": kind,
        "fps": fps,
        "streaming_jaccard": round(100 * streaming.average_jaccard, 1),
        "streaming_position": round(100 * float(np.mean(streaming.position_accuracy)), 1),
        "streaming_occlusion": round(100 * streaming.occlusion_accuracy, 1),
        "offline_jaccard": round(100 * offline.average_jaccard, 1),
        "answered": round(sum(one.answered for one in found) / sum(one.frames for one in found), 3),
    }


def in_words(row: dict[str, Any]) -> str:
    return (
        f"held in time {row['streaming_jaccard']} AJ (position {row['streaming_position']}, occlusion "
        f"{row['streaming_occlusion']}), of their own frames {row['offline_jaccard']}; {row['answered']:.1%} in time"
    )


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Streaming Average Jaccard over the camera's rate, one panel per kind of clip."""
    from matplotlib.figure import Figure

    kinds = sorted({row["kind"] for row in rows})
    figure = Figure(figsize=(5 * len(kinds), 4), layout="constrained")
    for column, kind in enumerate(kinds):
        axes = figure.add_subplot(1, len(kinds), column + 1)
        axes.set(title=kind, xlabel="frames a second", ylabel="streaming Average Jaccard", ylim=(0, 100))
        for name in dict.fromkeys(row["tracker"] for row in rows):
            line = [
                (row["fps"], row["streaming_jaccard"]) for row in rows if (row["tracker"], row["kind"]) == (name, kind)
            ]
            axes.plot(*zip(*line, strict=True), marker="o", label=name)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def draw_strip(clip: Clip, held: dict[str, NDArray[np.float32]], path: Path) -> None:
    """Draws what a subscriber holds on the frame of that moment, around the fastest point that none has lost.

    A row for each tracker. Green is the truth, orange what is held; a line joins the two.
    """
    import cv2

    speed = np.linalg.norm(np.diff(clip.xy, axis=1), axis=2) * (clip.visible[:, 1:] & clip.visible[:, :-1])  # [N, T-1]
    lost = np.max([np.linalg.norm(xy - clip.xy, axis=2)[:, 1:] for xy in held.values()], axis=0) > LOST_PX
    speed[lost] = 0
    run_of = np.lib.stride_tricks.sliding_window_view(speed, SHOWN, axis=1).min(axis=2)  # fast throughout
    point, first = np.unravel_index(int(run_of.argmax()), run_of.shape)
    height, width = clip.frames.shape[1:3]
    side = min(160, height, width)
    rows = []
    for name, xy in held.items():
        pictures = []
        for frame in range(int(first) + 1, int(first) + 1 + SHOWN):
            left, top = (
                int(np.clip(centre - side / 2, 0, most - side))
                for centre, most in zip(clip.xy[point, frame], (width, height), strict=True)
            )
            crop = cv2.cvtColor(clip.frames[frame, top : top + side, left : left + side], cv2.COLOR_RGB2BGR)
            large = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
            for index in np.flatnonzero(clip.visible[:, frame]):
                truth, told = (
                    tuple(np.round(2 * (places[index, frame] - (left, top))).astype(int).tolist())
                    for places in (clip.xy, xy)
                )
                cv2.line(large, truth, told, (0, 140, 255), 1, cv2.LINE_AA)
                cv2.circle(large, truth, 3, (90, 220, 90), -1, cv2.LINE_AA)
                cv2.circle(large, told, 5, (0, 140, 255), 2, cv2.LINE_AA)
            pictures.append(cv2.copyMakeBorder(large, 2, 2, 2, 2, cv2.BORDER_CONSTANT))
        row = np.concatenate(pictures, axis=1)
        label = np.zeros((26, row.shape[1], 3), np.uint8)
        cv2.putText(label, name, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        rows.append(np.concatenate([label, row]))
    cv2.imwrite(str(path), np.concatenate(rows))


class Peer(FakeTracker):
    """Gives OpenCV's trackers the interface of ours: each takes the newest frame, as a user would run it live."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self._inner = inner

    def add(
        self, xy: Any, frame_id: int | None = None, *, names: Sequence[str] = (), group: str = ""
    ) -> NDArray[np.int32]:
        self._inner.add(xy)
        return super().add(xy, frame_id, names=names, group=group)

    def collect(self) -> Tracks:
        frame = self._submitted.popleft()
        tracks: Tracks = self._inner.step(frame.rgb)
        return replace(
            tracks, frame_id=frame.id, captured_ns=frame.captured_ns, captured_unix_ns=frame.captured_unix_ns
        )


def serve(name: str, settings: Settings, pipe: Connection) -> None:
    """The tracker's process: plays each clip that comes through the pipe, and publishes."""
    from online_tapir.points.placement import Listed
    from online_tapir.sinks.zmq import ZmqPublisher

    make = maker(name, settings)
    publisher = ZmqPublisher("tcp://127.0.0.1:0")
    pipe.send(publisher.address)
    while (asked := pipe.recv()) is not None:
        camera, frames, xy, fps = asked
        tracker = make()
        source = SyntheticCamera(frames, name=camera, live=True, fps=fps)
        run_through(source, tracker, Listed(xy), [publisher], report=lambda note: None)
        if hasattr(tracker, "close"):
            tracker.close()
        pipe.send("done")


def maker(name: str, settings: Settings) -> Callable[[], Any]:
    """Returns a function that makes the named tracker; the model is warmed up."""
    from online_tapir.evaluation.baselines import DenseFlow, LucasKanadeWithRecovery
    from online_tapir.launch.config import ModelConfig, PointsConfig
    from online_tapir.launch.plan import planned
    from online_tapir.launch.streams import with_flow
    from online_tapir.model.checkpoint import load_model

    peers: dict[str, Callable[[], Any]] = {
        "LK, recovering": lambda: Peer(LucasKanadeWithRecovery()),
        "DIS flow": lambda: Peer(DenseFlow()),
        "still": FakeTracker,
    }
    if name in peers:
        return peers[name]
    flows = not name.endswith("off")
    wanted = ModelConfig(engine=settings.engine, input=settings.input, threads=settings.threads)
    plan = planned(
        load_model("small"),
        wanted,
        PointsConfig(),
        pixels(settings.size),
        fps=max(settings.fps),
        paced=flows,
        report=lambda note: print(note, file=sys.stderr),
    )

    def make() -> Any:
        tracker = plan.tracker()
        return with_flow(tracker, paced=True) if flows else tracker

    return make


if __name__ == "__main__":
    run(main)
