"""The OpenAPI description of the page's read-only routes."""

from typing import Any

_CAMERA = {
    "name": "camera",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The camera's name, as in `/api/cameras`.",
}
_REFUSED = {
    "description": "Refused.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_NAMED = ("name", "state", "reason")


def _get(
    summary: str, schema: dict[str, Any] | None, *, of_camera: bool = False, kind: str = "application/json"
) -> Any:
    body = {"schema": schema or {"type": "string", "format": "binary"}}
    get: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {kind: body}}, "default": _REFUSED},
    }
    return {"get": get, **({"parameters": [_CAMERA]} if of_camera else {})}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


_TEXT, _WHOLE, _NUMBER, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}

OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "online-tapir",
        "version": "1",
        "description": "What a run tracks now. Changes are asked for on its control socket (`online-tapir control`).",
    },
    "paths": {
        "/api/cameras": _get(
            "The cameras of the run, and the state of each.",
            _object(
                cameras={"type": "array", "items": _TEXT},
                states={"type": "array", "items": _object(**dict.fromkeys(_NAMED, _TEXT))},
            ),
        ),
        "/api/cameras/{camera}": _get(
            "The status of a camera.", {"$ref": "#/components/schemas/Status"}, of_camera=True
        ),
        "/api/cameras/{camera}/points": _get(
            "The points of a camera on its newest frame; x and y are image pixels, (0, 0) the corner of the first.",
            _object(
                frame_id=_WHOLE,
                points={"type": "array", "items": _object(id=_WHOLE, x=_NUMBER, y=_NUMBER, visible=_FLAG)},
                waiting={"type": "array", "items": _WHOLE},
            ),
            of_camera=True,
        ),
        "/api/cameras/{camera}/picture.jpg": _get(
            "The newest frame; the header X-Frame-Id has its number.", None, of_camera=True, kind="image/jpeg"
        ),
    },
    "components": {
        "schemas": {
            "Status": _object(camera=_TEXT, state=_TEXT, frame_id=_WHOLE, points=_WHOLE, visible=_WHOLE, model=_TEXT)
            | {"additionalProperties": True},
            "Error": _object(error=_TEXT, message=_TEXT),
        }
    },
}
