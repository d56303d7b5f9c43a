"""Runs each command on a live run. A refused command raises a named ControlError and changes nothing."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from online_tapir.control.protocol import LONGEST_HEARTBEAT_S, SHORTEST_HEARTBEAT_S, ControlError, Request
from online_tapir.errors import OnlineTapirError, QueryError, TemplateError
from online_tapir.live.stream import Stream
from online_tapir.points.placement import check_inside
from online_tapir.records import Frame, Label

Result = dict[str, Any]

ENCODINGS = {
    "jpeg": (".jpg", (cv2.IMWRITE_JPEG_QUALITY, 90)),
    "png": (".png", (cv2.IMWRITE_PNG_COMPRESSION, 1)),
}


def obey(stream: Stream, request: Request) -> Result:
    """Runs a request and returns its result. Raises ControlError."""
    return _COMMANDS[request.command](stream, **request.arguments)


def add(
    stream: Stream,
    xy: list[tuple[float, float]],
    frame_id: int | None = None,
    normalised: bool = False,
    names: Sequence[str] = (),
    group: str = "",
) -> Result:
    newest = _newest(stream)
    named_on = newest.id if frame_id is None else frame_id
    window, room = stream.tracker.frame_ids, stream.tracker.max_points - len(stream.tracker.ids)
    if named_on not in window:
        raise ControlError(
            "frame_left_window", f"frame {named_on} is not in the window; name one from {min(window)} to {max(window)}"
        )
    if len(xy) > room:
        raise ControlError("no_room", f"{len(xy)} points, but room for {room}; remove some or raise --max-points")
    height, width = newest.rgb.shape[:2]
    points = np.array(xy, np.float64).reshape(-1, 2) * ((width, height) if normalised else (1, 1))
    try:
        check_inside(points, width, height)
    except QueryError as error:
        raise ControlError("outside_frame", str(error)) from error
    try:
        ids = stream.add(points.astype(np.float32), named_on, names, group)
    except QueryError as error:
        raise ControlError("bad_name", str(error)) from error
    return {"ids": ids.tolist(), "frame_id": named_on}


def label(
    stream: Stream, id: int, name: str | None = None, group: str | None = None, color: int | None = None
) -> Result:
    if id not in stream.tracker.ids:
        raise ControlError("unknown_point", f"there is no point {id}; it was removed before, or never added")
    before = stream.tracker.labels.get(id, Label())
    wanted = Label(
        before.name if name is None else name,
        before.group if group is None else group,
        before.color if color is None else None if color < 0 else color,
    )
    try:
        stream.tracker.label(id, wanted)
    except QueryError as error:
        raise ControlError("bad_name", str(error)) from error
    return dict(zip(("id", "name", "group", "color"), _told(id, wanted), strict=True))


def _told(id: int, label: Label) -> tuple[int, str, str, int]:
    return id, label.name, label.group, -1 if label.color is None else label.color


def remove(stream: Stream, ids: list[int]) -> Result:
    wanted = np.unique(np.array(ids, np.int32))
    unknown = np.setdiff1d(wanted, stream.tracker.ids)
    if len(unknown):
        raise ControlError("unknown_point", f"there is no point {unknown[0]}; it was removed before, or never added")
    stream.remove(wanted)
    return {"removed": len(wanted)}


def clear(stream: Stream) -> Result:
    removed = len(stream.tracker.ids)
    stream.clear()
    return {"removed": removed}


def list_points(stream: Stream) -> Result:
    sought = stream.sought
    living = np.array([id for id in stream.tracker.ids.tolist() if id not in sought], np.int32)
    tracks = stream.tracks
    labels = [list(_told(id, label)) for id, label in sorted(stream.tracker.labels.items()) if id not in sought]
    if tracks is None:
        return {"frame_id": -1, "points": [], "waiting": living.tolist(), "labels": labels}
    rows = zip(tracks.ids.tolist(), tracks.xy.tolist(), tracks.visible.tolist(), strict=True)
    there = set(living.tolist())
    return {
        "frame_id": tracks.frame_id,
        "points": [[id, x, y, visible] for id, (x, y), visible in rows if id in there],
        "waiting": np.setdiff1d(living, tracks.ids).tolist(),
        "labels": labels,
    }


def replenish(stream: Stream, on: bool, points: int | None = None) -> Result:
    room = stream.tracker.max_points
    if points is not None and points > room:
        raise ControlError("no_room", f"{points} points, but room for {room}; raise --max-points")
    stream.replenish((stream.points if points is None else points) if on else None)
    return {"on": on, "points": stream.replenishing or 0}


def inspect(stream: Stream, id: int | None = None) -> Result:
    if id is not None and not stream.shows_inspection():
        raise ControlError(
            "not_shown",
            "this run has no Rerun viewer or window to show it in, or its viewer has ended; start it with --rerun "
            "serve or --window",
        )
    try:
        stream.inspect(id)
    except QueryError as error:
        raise ControlError("unknown_point", str(error)) from error
    return {"inspected": _inspected(stream)}


def pause(stream: Stream) -> Result:
    stream.pause()
    return {"paused": True}


def resume(stream: Stream) -> Result:
    stream.resume()
    return {"paused": False}


def status(stream: Stream) -> Result:
    tracks, window = stream.tracks, stream.tracker.frame_ids
    saved = None if stream.keeper is None else stream.keeper.outcome
    heartbeat = asdict(stream.heartbeat())
    del heartbeat["published_unix_ns"]
    return {
        **heartbeat,
        "oldest_frame_id": min(window, default=-1),
        "visible": 0 if tracks is None else int(tracks.visible.sum()),
        "room": stream.tracker.max_points - heartbeat["points"],
        "model": "" if tracks is None else tracks.model,
        "width": stream.camera.size[0] if tracks is None else tracks.width,
        "height": stream.camera.size[1] if tracks is None else tracks.height,
        "dropped": 0 if tracks is None else tracks.dropped,
        "skipped": stream.skipped,
        "reconnects": stream.health.reconnects,
        "corrupt": stream.health.corrupt,
        "reason": stream.health.reason,
        "replenish": stream.replenishing is not None,
        "replenish_points": stream.replenishing or 0,
        "inspected": _inspected(stream),
        "recording": "" if stream.recorder is None else stream.recorder.folder,
        "saves": 0 if saved is None else saved.number,
        "save_error": "" if saved is None else saved.error,
        **_options(stream),
    }


def snapshot(stream: Stream, format: str = "jpeg") -> Result:
    if format not in ENCODINGS:
        raise ControlError("bad_request", f"format {format[:40]!r} is not one of {', '.join(ENCODINGS)}")
    frame = _newest(stream)
    suffix, settings = ENCODINGS[format]
    _, image = cv2.imencode(suffix, cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR), settings)
    return {
        "frame_id": frame.id,
        "width": frame.rgb.shape[1],
        "height": frame.rgb.shape[0],
        "captured_unix_ns": frame.captured_unix_ns,
        "format": format,
        "image": image.tobytes(),
    }


def set_options(stream: Stream, heartbeat_s: float | None = None, patience_frames: int | None = None) -> Result:
    shortest, longest = SHORTEST_HEARTBEAT_S, LONGEST_HEARTBEAT_S
    if heartbeat_s is not None and not shortest <= heartbeat_s <= longest:
        raise ControlError("bad_request", f"heartbeat_s is {heartbeat_s:g}, not {shortest:g} to {longest:g} seconds")
    if heartbeat_s is not None:
        stream.heartbeat_s = heartbeat_s
    if patience_frames is not None:
        stream.wait_for_hidden(patience_frames)
    return _options(stream)


def record(stream: Stream, on: bool) -> Result:
    if stream.recorder is None:
        raise ControlError("not_recorded", "this run takes no recordings on request")
    try:
        stream.recorder.switch(on)
    except OnlineTapirError as error:
        raise ControlError("not_recorded", str(error)) from error
    return {"recording": stream.recorder.folder}


def templates(stream: Stream) -> Result:
    try:
        found = stream.templates()
    except TemplateError as error:
        raise ControlError("no_template", str(error)) from error
    return {"names": [template.name for template in found.templates], "file": found.content()}


def save(stream: Stream) -> Result:
    _newest(stream)
    if stream.keeper is None:
        raise ControlError("not_saved", "this run was started without --save-state, so it has no file for its points")
    saved = stream.keeper.save()
    return {"save": saved.number, "frame_id": saved.state.frame_id, "points": saved.state.points}


def stop(stream: Stream) -> Result:
    stream.stop.set()
    return {"stopping": True}


def _newest(stream: Stream) -> Frame:
    if stream.frame is None:
        raise ControlError("no_frame", "no frame has been tracked yet; ask again when one has come")
    return stream.frame


def _inspected(stream: Stream) -> int:
    inspected = stream.tracker.inspected
    return -1 if inspected is None else inspected


def _options(stream: Stream) -> Result:
    return {"heartbeat_s": stream.heartbeat_s, "patience_frames": stream.patience_frames}


_COMMANDS: dict[str, Callable[..., Result]] = {
    "add": add,
    "label": label,
    "remove": remove,
    "clear": clear,
    "list": list_points,
    "replenish": replenish,
    "inspect": inspect,
    "pause": pause,
    "resume": resume,
    "status": status,
    "snapshot": snapshot,
    "set": set_options,
    "record": record,
    "save": save,
    "templates": templates,
    "stop": stop,
}
