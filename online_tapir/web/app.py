"""The page's routes: its files, the stream of pictures and requests, and read-only JSON for programs."""

import asyncio
import itertools
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from online_tapir.control import protocol
from online_tapir.control.protocol import ControlError
from online_tapir.plain_json import without_nan
from online_tapir.web import pictures
from online_tapir.web.bridge import Bridge
from online_tapir.web.guard import HEADERS, Guard, Right
from online_tapir.web.messages import Ack, Ask, HostileMessageError, Look, Moment, answer, encode, read
from online_tapir.web.openapi import OPENAPI
from online_tapir.web.viewer import Picture, Viewer

MOST_VIEWERS = 64
STALL_SECONDS = 20.0  # without an acknowledgement, after which a viewer is closed
HERE_SECONDS = 3.0  # between two words to a page, so that it notices when this program has gone
MOST_PENDING = 16  # requests of one viewer that wait for their answers
INSPECTION_NS = 200_000_000  # between two pictures of an inspected point
KEPT_JPEGS = 32
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/picture.js": ("picture.js", "text/javascript; charset=utf-8"),
    "/link.js": ("link.js", "text/javascript; charset=utf-8"),
    "/curve.js": ("curve.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
NO_RIGHT = "This page needs the link that online-tapir printed when it started; it begins your session.\n"
LEFT = (RuntimeError, WebSocketDisconnect)  # what sending to a page that was closed raises
POLICY, GOING, TOO_MANY = 1008, 1001, 1013  # WebSocket close codes


@dataclass(slots=True)
class Site:
    """What the routes share: who may come, the run, and a link to its Rerun viewer if there is one."""

    guard: Guard
    bridge: Bridge
    report: Callable[[str], None]
    rerun: str | None = None
    encoder: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "jpeg"))
    told: bool = False  # whether a hostile message was reported
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    jpegs: "OrderedDict[tuple[object, ...], asyncio.Future[bytes]]" = field(default_factory=OrderedDict)

    async def jpeg(self, key: tuple[object, ...], make: Callable[..., bytes], *arguments: object) -> bytes:
        """A picture, made in the encoder's thread once for all viewers that want the same."""
        if key not in self.jpegs:
            self.jpegs[key] = asyncio.get_running_loop().run_in_executor(self.encoder, make, *arguments)
            if len(self.jpegs) > KEPT_JPEGS:
                self.jpegs.popitem(last=False)
        return await asyncio.shield(self.jpegs[key])


def make_app(site: Site) -> ASGIApp:
    """The application behind its door."""
    page = files("online_tapir.web").joinpath("page")
    contents = {path: (page.joinpath(name).read_bytes(), kind) for path, (name, kind) in FILES.items()}

    async def file(request: Request) -> Response:
        token, path = request.query_params.get("token"), request.url.path
        if token is not None and path == "/":
            return _begin(request, token)
        body, kind = contents[path]
        return Response(body, media_type=kind)

    def _begin(request: Request, token: str) -> Response:
        key = site.guard.begin(token, _client(request))
        if key is None:
            return Response(NO_RIGHT, 403, media_type="text/plain")
        response = RedirectResponse("/", 303)
        # Lax: a link in a mail on another site brings the cookie along; what changes a run comes with a checked Origin.
        response.set_cookie(site.guard.cookie, key, httponly=True, samesite="lax", secure=site.guard.tls)
        return response

    async def asked(request: Request, command: str, **arguments: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"schema": protocol.SCHEMA, "version": protocol.VERSION, "command": command}
        if "camera" in request.path_params:
            body["camera"] = request.path_params["camera"]
        return await site.bridge.ask(_client(request), body | {"arguments": arguments}, may_change=False)

    async def cameras(request: Request) -> Response:
        return _json(await asked(request, "cameras"))

    async def status(request: Request) -> Response:
        return _json(await asked(request, "status"))

    async def points(request: Request) -> Response:
        found = await asked(request, "list")
        names = ("id", "x", "y", "visible")
        return _json({**found, "points": [dict(zip(names, row, strict=True)) for row in found["points"]]})

    async def picture(request: Request) -> Response:
        found = await asked(request, "snapshot", format="jpeg")
        return Response(found["image"], media_type="image/jpeg", headers={"x-frame-id": str(found["frame_id"])})

    async def described(request: Request) -> Response:
        return _json(OPENAPI)

    async def about(request: Request) -> Response:
        return _json({"right": request.state.right, "rerun": site.rerun})

    async def stream(socket: WebSocket) -> None:
        await _Session(site, socket).run()

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ControlError)
        code = {"rate_limited": 429, "no_answer": 503, "which_camera": 404, "no_frame": 404}.get(error.name, 400)
        return JSONResponse({"error": error.name, "message": error.message}, code)

    routes = [Route(path, file) for path in FILES]
    routes += [
        Route("/api/openapi.json", described),
        Route("/api/about", about),
        Route("/api/cameras", cameras),
        Route("/api/cameras/{camera}", status),
        Route("/api/cameras/{camera}/points", points),
        Route("/api/cameras/{camera}/picture.jpg", picture),
    ]
    app = Starlette(routes=[*routes, WebSocketRoute("/stream", stream)], exception_handlers={ControlError: refused})
    return Door(app, site.guard)


class Door:
    """Lets through who may come, and adds the headers that hold a page to what it needs."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        headers = dict(connection.headers)
        refusal: Response | None = None
        right = self._guard.right(connection.cookies, _client(connection))
        if not self._guard.knows_host(headers):
            refusal = Response("this machine is not called that; open its address\n", 421, media_type="text/plain")
        elif not self._guard.same_origin(headers):
            refusal = Response("another page may not ask this\n", 403, media_type="text/plain")
        elif right is None and not _brings_a_token(connection):
            refusal = Response(NO_RIGHT, 401, media_type="text/plain")
        if refusal is not None and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY, "reason": ""})  # before it is accepted: HTTP 403
            return
        scope.setdefault("state", {})["right"] = right
        answering = refusal or self._app
        await answering(scope, receive, _with_headers(send))


def _brings_a_token(connection: HTTPConnection) -> bool:
    """Whether it opens one of the printed links; `file` looks at the token."""
    asks = (connection.scope["type"], connection.scope["path"])
    return asks == ("http", "/") and "token" in connection.query_params


def _with_headers(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _ in message["headers"]}
            more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in names]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sending


class _Session:
    """One open page: sends it pictures, carries out what it asks."""

    def __init__(self, site: Site, socket: WebSocket) -> None:
        self._site = site
        self._socket = socket
        self._viewer = Viewer()
        self._changed = asyncio.Event()  # the picture was drawn, or it looks elsewhere
        self._right: Right = socket.state.right
        self._name = f"page-{next(site.numbers)}"
        self._asking: set[asyncio.Task[None]] = set()
        self._inspected_ns = 0
        self._told: dict[str, object] = {}  # the last heartbeat that was told, by camera
        self._listed: tuple[str, ...] | None = None  # the cameras that were told last

    async def run(self) -> None:
        bridge = self._site.bridge
        if bridge.viewers >= MOST_VIEWERS:
            await self._socket.close(TOO_MANY)
            return
        await self._socket.accept()
        bridge.viewers += 1
        tasks = [asyncio.create_task(each) for each in (self._read(), self._write(), self._be_here())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            bridge.viewers -= 1
            for task in [*tasks, *self._asking]:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        hostile = next((end for end in ended if isinstance(end, HostileMessageError)), None)
        if hostile is not None and not self._site.told:
            self._site.told = True
            self._site.report(f"a viewer of the page was closed: it sent {hostile}; further ones are not told")
        with suppress(*LEFT):
            await self._socket.close(POLICY if hostile is not None else GOING)

    async def _read(self) -> None:
        while True:
            try:
                text = await self._socket.receive_text()
            except WebSocketDisconnect:
                return
            except KeyError as error:
                raise HostileMessageError("bytes in place of text") from error
            match read(text, self._name):
                case Ack(number):
                    if self._viewer.acknowledge(number, time.monotonic_ns()):
                        self._changed.set()
                case Look(camera, width):
                    self._viewer.look(camera, width)
                    self._changed.set()
                case Ask(number, body):
                    if len(self._asking) >= MOST_PENDING:
                        raise HostileMessageError("requests without waiting for answers")
                    task = asyncio.create_task(self._answer(number, body))
                    self._asking.add(task)
                    task.add_done_callback(self._asking.discard)

    async def _answer(self, number: int, body: dict[str, Any]) -> None:
        try:
            reply: dict[str, Any] | ControlError = await self._site.bridge.ask(
                self._name, body, may_change=self._right == "control"
            )
        except ControlError as error:
            reply = error
        if isinstance(reply, dict) and any(isinstance(value, bytes) for value in reply.values()):
            reply = ControlError("bad_request", "no files come here; a snapshot is at /api/cameras/NAME/picture.jpg")
        with suppress(*LEFT):
            await self._socket.send_text(answer(number, reply))

    async def _write(self) -> None:
        """Sends one picture at a time; ends when nothing is acknowledged for too long."""
        bridge, viewer = self._site.bridge, self._viewer
        while True:
            self._changed.clear()
            coming = bridge.news
            await self._tell_cameras()
            await self._tell_heartbeats()
            newest = {camera: moment.number for camera, moment in tuple(bridge.newest.items())}
            camera = None if viewer.in_flight else viewer.next(newest)
            moment = None if camera is None else bridge.newest.get(camera)
            if moment is not None:
                async with asyncio.timeout(STALL_SECONDS):  # not wait_for, which may swallow a cancellation (3.11)
                    await self._send(moment)
                continue
            changed, news = asyncio.create_task(self._changed.wait()), asyncio.create_task(coming.wait())
            waiting = {changed} if viewer.in_flight else {changed, news}
            try:
                done, _ = await asyncio.wait(
                    waiting, timeout=STALL_SECONDS if viewer.in_flight else None, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                changed.cancel()
                news.cancel()
            if not done:
                return

    async def _send(self, moment: Moment) -> None:
        self._site.guard.right(self._socket.cookies, _client(self._socket))  # a session that is looked at is in use
        frame, viewer = moment.frame, self._viewer
        wanted = viewer.picture(frame.rgb.shape[1])
        shown = [await self._jpeg(moment, wanted)]
        inspection, now_ns = moment.tracks.inspection, time.monotonic_ns()
        if inspection is not None and viewer.camera is not None and now_ns - self._inspected_ns > INSPECTION_NS:
            self._inspected_ns = now_ns
            key = (moment.tracks.camera, moment.number, "inspection")
            shown.append(await self._site.jpeg(key, pictures.inspection_jpeg, frame.rgb, inspection))
        number = viewer.send(moment.tracks.camera, moment.number, frame.captured_ns, time.monotonic_ns())
        await self._socket.send_bytes(encode(moment, number, shown, viewer.latency_ms))

    async def _jpeg(self, moment: Moment, wanted: Picture) -> bytes:
        key = (moment.tracks.camera, moment.number, wanted)
        return await self._site.jpeg(key, pictures.frame_jpeg, moment.frame.rgb, wanted.width, wanted.quality)

    async def _be_here(self) -> None:
        while True:
            await asyncio.sleep(HERE_SECONDS)
            await self._socket.send_text(json.dumps({"here": True}))

    async def _tell_cameras(self) -> None:
        """Tells which cameras run, at first and whenever one comes or goes."""
        cameras = self._site.bridge.cameras
        if cameras != self._listed:
            self._listed = cameras
            await self._socket.send_text(json.dumps({"cameras": cameras}))

    async def _tell_heartbeats(self) -> None:
        for camera, heartbeat in tuple(self._site.bridge.heartbeats.items()):
            if self._told.get(camera) is not heartbeat:
                self._told[camera] = heartbeat
                await self._socket.send_text(json.dumps({"heartbeat": asdict(heartbeat)}))


def _client(connection: HTTPConnection) -> str:
    return "" if connection.client is None else connection.client.host


def _json(body: dict[str, Any]) -> Response:
    return JSONResponse(without_nan(body, 4))
