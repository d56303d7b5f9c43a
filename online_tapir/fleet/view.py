"""A fleet in the Rerun viewer: curves for every camera and rig, a table of who is where, and what happened."""

import time
from collections.abc import Iterable

import rerun as rr
import rerun.blueprint as rrb

from online_tapir.fleet.notes import new_notes
from online_tapir.wire.directory import Directory

TIMELINE = "time"
CURVES = {"fps": "Frames a second", "latency_ms": "Latency, ms", "points": "Points"}


def layout() -> rrb.Blueprint:
    """Curves of the cameras, the load of the rigs, and two texts."""
    curves = [
        rrb.TimeSeriesView(origin="/", contents=f"cameras/*/{name}", name=title) for name, title in CURVES.items()
    ]
    load = rrb.TimeSeriesView(origin="/", contents="rigs/*/load", name="Load of the rigs; 1 is full")
    texts = [rrb.TextDocumentView(origin="places", name="Who is where"), rrb.TextLogView(origin="notes", name="Notes")]
    columns = rrb.Horizontal(rrb.Vertical(*curves, load), rrb.Vertical(*texts), column_shares=[3, 2])
    return rrb.Blueprint(columns, collapse_panels=True)


def watch(directories: Iterable[Directory], recording: rr.RecordingStream) -> None:
    """Logs each directory as it comes."""
    told: tuple[str, ...] = ()
    for now in directories:
        recording.set_time(TIMELINE, timestamp=(now.published_unix_ns or time.time_ns()) / 1e9)
        for camera in now.cameras:
            for name in CURVES:
                recording.log(f"cameras/{camera.name}/{name}", rr.Scalars(float(getattr(camera, name))))
        for rig in now.rigs:
            recording.log(f"rigs/{rig.name}/load", rr.Scalars(rig.load))
        recording.log("places", rr.TextDocument(places(now), media_type=rr.MediaType.MARKDOWN))
        for note in new_notes(told, now.notes):
            recording.log("notes", rr.TextLog(note))
        told = now.notes


def places(now: Directory) -> str:
    """Markdown: the cameras of every rig, and their state."""
    rows = ["| camera | rig | machine | state | restarts |", "| --- | --- | --- | --- | --- |"]
    nodes = {rig.name: rig.node for rig in now.rigs}
    for one in sorted(now.cameras, key=lambda one: (one.rig, one.name)):
        rows.append(f"| {one.name} | {one.rig} | {nodes.get(one.rig, '')} | {one.state} | {one.restarts} |")
    return f"{len(now.cameras)} cameras, {len(now.rigs)} rigs, {now.moves} moves\n\n" + "\n".join(rows)
