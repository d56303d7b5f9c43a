"""What each command does to a live run. Refuses by name, and then has changed nothing."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from online_tapir.control.protocol import ControlError, Request
from online_tapir.errors import QueryError
from online_tapir.live.session import Session
from online_tapir.points.placement import check_inside
from online_tapir.records import Frame

Result = dict[str, Any]

HEARTBEAT_S = 0.1, 60.0  # between
ENCODINGS = {
    "jpeg": (".jpg", (cv2.IMWRITE_JPEG_QUALITY, 90)),
    "png": (".png", (cv2.IMWRITE_PNG_COMPRESSION, 1)),
}


def obey(session: Session, request: Request) -> Result:
    """Does what was asked and says what came of it. Raises ControlError."""
    return _COMMANDS[request.command](session, **request.arguments)


def add(
    session: Session, xy: list[tuple[float, float]], frame_id: int | None = None, normalised: bool = False
) -> Result:
    newest = _newest(session)
    named_on = newest.id if frame_id is None else frame_id
    window, room = session.tracker.frame_ids, session.tracker.max_points - len(session.tracker.ids)
    if named_on not in window:
        raise ControlError(
            "frame_left_window", f"frame {named_on} is not remembered; name one from {min(window)} to {max(window)}"
        )
    if len(xy) > room:
        raise ControlError("no_room", f"{len(xy)} points, and room for {room}; remove some or raise --max-points")
    height, width = newest.rgb.shape[:2]
    points = np.array(xy, np.float64).reshape(-1, 2) * ((width, height) if normalised else (1, 1))
    try:
        check_inside(points, width, height)
    except QueryError as error:
        raise ControlError("outside_frame", str(error)) from error
    return {"ids": session.add(points.astype(np.float32), named_on).tolist(), "frame_id": named_on}


def remove(session: Session, ids: list[int]) -> Result:
    wanted = np.unique(np.array(ids, np.int32))
    unknown = np.setdiff1d(wanted, session.tracker.ids)
    if len(unknown):
        raise ControlError("unknown_point", f"there is no point {unknown[0]}; it was removed before, or never added")
    session.remove(wanted)
    return {"removed": len(wanted)}


def clear(session: Session) -> Result:
    removed = len(session.tracker.ids)
    session.clear()
    return {"removed": removed}


def list_points(session: Session) -> Result:
    living = session.tracker.ids
    tracks = session.tracks
    if tracks is None:
        return {"frame_id": -1, "points": [], "waiting": living.tolist()}
    rows = zip(tracks.ids.tolist(), tracks.xy.tolist(), tracks.visible.tolist(), strict=True)
    there = set(living.tolist())
    return {
        "frame_id": tracks.frame_id,
        "points": [[id, x, y, visible] for id, (x, y), visible in rows if id in there],
        "waiting": np.setdiff1d(living, tracks.ids).tolist(),
    }


def replenish(session: Session, on: bool, points: int | None = None) -> Result:
    room = session.tracker.max_points
    if points is not None and points > room:
        raise ControlError("no_room", f"{points} points, and room for {room}; raise --max-points")
    session.replenish((len(session.tracker.ids) if points is None else points) if on else None)
    return {"on": on, "points": session.replenishing or 0}


def inspect(session: Session, id: int | None = None) -> Result:
    try:
        session.inspect(id)
    except QueryError as error:
        raise ControlError("unknown_point", str(error)) from error
    return {"inspected": _inspected(session)}


def pause(session: Session) -> Result:
    session.pause()
    return {"paused": True}


def resume(session: Session) -> Result:
    session.resume()
    return {"paused": False}


def status(session: Session) -> Result:
    tracks, window = session.tracks, session.tracker.frame_ids
    saved = None if session.keeper is None else session.keeper.outcome
    heartbeat = asdict(session.heartbeat())
    del heartbeat["published_unix_ns"]
    return {
        **heartbeat,
        "oldest_frame_id": min(window, default=-1),
        "visible": 0 if tracks is None else int(tracks.visible.sum()),
        "room": session.tracker.max_points - heartbeat["points"],
        "model": "" if tracks is None else tracks.model,
        "width": session.camera.size[0] if tracks is None else tracks.width,
        "height": session.camera.size[1] if tracks is None else tracks.height,
        "dropped": 0 if tracks is None else tracks.dropped,
        "skipped": session.skipped,
        "reconnects": session.health.reconnects,
        "corrupt": session.health.corrupt,
        "reason": session.health.reason,
        "replenish": session.replenishing is not None,
        "replenish_points": session.replenishing or 0,
        "inspected": _inspected(session),
        "saves": 0 if saved is None else saved.number,
        "save_error": "" if saved is None else saved.error,
        **_options(session),
    }


def snapshot(session: Session, format: str = "jpeg") -> Result:
    if format not in ENCODINGS:
        raise ControlError("bad_request", f"format {format[:40]!r} is none of {', '.join(ENCODINGS)}")
    frame = _newest(session)
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


def set_options(session: Session, heartbeat_s: float | None = None, patience_frames: int | None = None) -> Result:
    shortest, longest = HEARTBEAT_S
    if heartbeat_s is not None and not shortest <= heartbeat_s <= longest:
        raise ControlError("bad_request", f"heartbeat_s is {heartbeat_s:g}, not {shortest:g} to {longest:g} seconds")
    if heartbeat_s is not None:
        session.heartbeat_s = heartbeat_s
    if patience_frames is not None:
        session.wait_for_hidden(patience_frames)
    return _options(session)


def save(session: Session) -> Result:
    _newest(session)
    if session.keeper is None:
        raise ControlError("not_saved", "this run was started without --save-state, and so has no file for its points")
    saved = session.keeper.save()
    return {"save": saved.number, "frame_id": saved.state.frame_id, "points": saved.state.points}


def stop(session: Session) -> Result:
    session.stop.set()
    return {"stopping": True}


def _newest(session: Session) -> Frame:
    if session.frame is None:
        raise ControlError("no_frame", "no frame has been tracked yet; ask again when one has come")
    return session.frame


def _inspected(session: Session) -> int:
    inspected = session.tracker.inspected
    return -1 if inspected is None else inspected


def _options(session: Session) -> Result:
    return {"heartbeat_s": session.heartbeat_s, "patience_frames": session.patience_frames}


_COMMANDS: dict[str, Callable[..., Result]] = {
    "add": add,
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
    "save": save,
    "stop": stop,
}
