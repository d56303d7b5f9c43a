"""The page's server over real sockets: pictures, requests, JSON for programs, and everything that is refused."""

import asyncio
import json
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from online_tapir.errors import ConfigError, PublishError
from online_tapir.web import app
from online_tapir.web.app import MOST_PENDING
from online_tapir.web.openapi import OPENAPI
from online_tapir.web.server import MOST_CONNECTIONS, WebAddress, WebPage, open_browser
from tests.web.conftest import HEIGHT, WIDTH


def get(page: WebPage, path: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
    request = Request(
        page.url + path.lstrip("/"), headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urlopen(request, timeout=20) as reply:
            return reply.status, reply.read(), {name.lower(): value for name, value in reply.headers.items()}
    except HTTPError as error:
        return error.code, error.read(), {name.lower(): value for name, value in error.headers.items()}


def joined(page: WebPage, **how: Any) -> ClientConnection:
    return connect(page.url.replace("http", "ws", 1) + "stream", max_size=None, open_timeout=20, **how)


def opened(message: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """The header and the pictures of a message."""
    (length,) = struct.unpack_from("<I", message)
    header = json.loads(message[4 : 4 + length])
    at, pictures = 4 + length, []
    for size in header["pictures"]:
        pictures.append(message[at : at + size])
        at += size
    assert at == len(message)
    return header, pictures


def heard(link: ClientConnection, timeout: float = 20) -> tuple[dict[str, Any], list[bytes]]:
    """The next picture; answers and heartbeats before it are passed over."""
    while True:
        message = link.recv(timeout=timeout)
        if isinstance(message, bytes):
            return opened(message)


def drain(link: ClientConnection) -> None:
    """Reads until the link is closed, and raises that."""
    while True:
        link.recv(timeout=20)


def acknowledge(link: ClientConnection, header: dict[str, Any]) -> None:
    link.send(json.dumps({"ack": header["number"]}))


def asked(
    link: ClientConnection, command: str, number: int = 1, camera: str = "desk", **arguments: Any
) -> dict[str, Any]:
    """What the run answers; pictures before it are acknowledged."""
    link.send(json.dumps({"ask": number, "camera": camera, "command": command, "arguments": arguments}))
    while True:
        message = link.recv(timeout=20)
        if isinstance(message, str) and "answer" in (body := json.loads(message)):
            assert body["answer"] == number
            return body


def test_a_viewer_sees_frames_with_their_points(serve: Callable[..., Any]) -> None:
    with serve() as run, joined(run.page) as link:
        frames = []
        for _ in range(5):
            header, [jpeg] = heard(link)
            picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            assert picture.shape == (HEIGHT, WIDTH, 3)
            shown = run.cameras[0].pictures[(header["frame"] + 1) % 24]
            assert np.abs(picture[..., ::-1].astype(int) - shown).mean() < 12, "the picture is of another frame"
            assert header["ids"] == [0, 1, 2, 3]
            frames.append(header["frame"])
            acknowledge(link, header)
        assert frames == sorted(set(frames))
        assert header["latency_ms"] > 0


def test_one_picture_is_in_flight_and_the_next_is_the_newest(serve: Callable[..., Any]) -> None:
    with serve() as run, joined(run.page) as link:
        first, _ = heard(link)
        with pytest.raises(TimeoutError):
            heard(link, timeout=0.5)
        run.wait_for(lambda: run.streams[0].tracks.frame_id > first["frame"] + 5, "later frames")
        newest = run.streams[0].tracks.frame_id
        acknowledge(link, first)
        second, _ = heard(link)
        assert second["frame"] >= newest > first["frame"] + 5


def test_requests_are_those_of_the_control_protocol(serve: Callable[..., Any]) -> None:
    with serve() as run, joined(run.page) as link:
        header, _ = heard(link)
        added = asked(link, "add", xy=[[20, 30]], frame_id=header["frame"])["result"]
        assert added == {"ids": [4], "frame_id": header["frame"]}
        outside = asked(link, "add", 2, xy=[[-5, 30]])
        assert outside["error"] == "outside_frame"
        assert "(-5" in outside["message"]
        assert asked(link, "remove", 3, ids=[4])["result"] == {"removed": 1}
        assert asked(link, "fly", 4)["error"] == "unknown_command"
        assert asked(link, "add", 5, xy=[[1, 1]] * 100)["error"] == "no_room"
        assert asked(link, "snapshot", 6)["error"] == "bad_request"
        assert asked(link, "status", 7, camera="other")["error"] == "which_camera"


def test_a_click_on_a_frame_that_has_left_the_window_is_refused_with_a_sentence(serve: Callable[..., Any]) -> None:
    with serve(fps=200.0) as run, joined(run.page) as link:
        header, _ = heard(link)
        run.wait_for(lambda: header["frame"] not in run.trackers[0].frame_ids, "the end of the window")
        refused = asked(link, "add", xy=[[20, 30]], frame_id=header["frame"])
        assert refused["error"] == "frame_left_window"
        assert "name one from" in refused["message"]


@pytest.mark.parametrize(
    "message",
    [
        '{"ask": 1, "camera": "\\ud800", "command": "status"}',
        '{"ask": 1, "camera": "desk", "command": "add", "arguments": {"xy": [[1' + 400 * "0" + ", 1]]}}",
        '{"ask": 1, "camera": "desk", "command": "add", "arguments": {"xy": [[1, 1]], "names": ["\\ud800"]}}',
        '{"ask": 1, "camera": "desk", "command": "remove", "arguments": {"ids": [1' + 20 * "0" + "]}}",
    ],
)
def test_what_json_can_say_and_the_protocol_cannot_is_refused(serve: Callable[..., Any], message: str) -> None:
    with serve() as run, joined(run.page) as link:
        link.send(message)
        while not (isinstance(reply := link.recv(timeout=20), str) and "answer" in json.loads(reply)):
            pass
        assert json.loads(reply)["error"] == "bad_request"
        assert asked(link, "status", 2)["result"]["points"] == 4, "the run goes on"


def test_pausing_is_told_to_every_viewer_by_heartbeats(serve: Callable[..., Any]) -> None:
    with serve() as run, joined(run.page) as one, joined(run.page) as other:
        run.streams[0].heartbeat_s = 0.05
        acknowledge(other, heard(other)[0])
        assert asked(one, "pause")["result"] == {"paused": True}
        while True:
            message = other.recv(timeout=20)
            if isinstance(message, bytes):
                acknowledge(other, opened(message)[0])
            elif json.loads(message).get("heartbeat", {}).get("state") == "paused":
                break
        assert asked(one, "resume", 2)["result"] == {"paused": False}


def test_cameras_that_come_and_go_are_told_and_that_the_run_is_there(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "HERE_SECONDS", 0.05)
    with serve(("left", "right")) as run, ExitStack() as held:
        run.wait_for(lambda: len(run.page._bridge.cameras) == 2, "the second camera")
        link = held.enter_context(joined(run.page))
        told: list[Any] = []

        def hear(name: str) -> Any:
            while True:
                message = link.recv(timeout=20)
                if isinstance(message, bytes):
                    acknowledge(link, opened(message)[0])
                elif name in (body := json.loads(message)):
                    return body[name]

        told.append(hear("cameras"))
        assert hear("here") is True
        run.roster.remove("left")
        told.append(hear("cameras"))
        assert told == [["left", "right"], ["right"]]


def test_several_cameras_take_turns(serve: Callable[..., Any]) -> None:
    with serve(("left", "right")) as run, joined(run.page) as link:
        seen, last = [], dict[str, int]()
        for _ in range(8):
            header, _ = heard(link)
            seen.append(header["camera"])
            last[header["camera"]] = header["frame"]
            run.wait_for(
                lambda: all(s.tracks and s.tracks.frame_id > last.get(s.name, -1) for s in run.streams), "both"
            )
            acknowledge(link, header)
        assert set(seen) == {"left", "right"}
        assert 3 <= seen.count("left") <= 5
        link.send(json.dumps({"look": {"camera": "left", "width": 100}}))
        acknowledge(link, header)
        while (header := heard(link)[0])["camera"] != "left":
            acknowledge(link, header)
        acknowledge(link, header)
        header, [jpeg] = heard(link)
        assert header["camera"] == "left"
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (75, 100, 3)


def test_a_viewer_that_stops_reading_is_closed_and_the_tracker_goes_on(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("online_tapir.web.app.STALL_SECONDS", 0.4)
    with serve() as run, joined(run.page) as link:
        with pytest.raises(ConnectionClosed):
            drain(link)
        run.wait_for(lambda: run.page.viewers == 0, "the end of the viewer")
        before = run.streams[0].tracks.frame_id
        run.wait_for(lambda: run.streams[0].tracks.frame_id > before, "another frame")


@pytest.mark.parametrize("message", ["", "{}", b"\0\1\2", '{"ack": "one"}', "x" * 1000])
def test_a_hostile_message_closes_its_own_socket_and_is_told_once(serve: Callable[..., Any], message: Any) -> None:
    with serve() as run, joined(run.page) as good:
        for _ in range(3):
            with joined(run.page) as bad:
                bad.send(message)
                with pytest.raises(ConnectionClosed) as closed:
                    drain(bad)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
        header, _ = heard(good)
        acknowledge(good, header)
        assert heard(good)[0]["frame"] > header["frame"]
        assert sum("was closed" in line for line in run.reports) == 1


def test_more_requests_at_once_than_a_page_sends_are_hostile(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as run, joined(run.page) as link:
        monkeypatch.setattr(run.page._bridge, "serve", lambda stream: None)  # a run that is busy
        with suppress(ConnectionClosed):  # it may be closed before the last is sent
            for number in range(2 * MOST_PENDING):
                link.send(json.dumps({"ask": number, "command": "status"}))
        with pytest.raises(ConnectionClosed):
            drain(link)


def test_a_huge_message_is_refused_unread(serve: Callable[..., Any]) -> None:
    with serve() as run, joined(run.page) as link:
        with suppress(ConnectionClosed):
            link.send("[" * 100_000_000)
        with pytest.raises(ConnectionClosed):
            drain(link)
        before = run.streams[0].tracks.frame_id
        run.wait_for(lambda: run.streams[0].tracks.frame_id > before, "another frame")


def test_json_for_programs(serve: Callable[..., Any]) -> None:
    with serve() as run:
        run.wait_for(lambda: run.streams[0].tracks, "a frame")
        assert json.loads(get(run.page, "api/openapi.json")[1]) == OPENAPI
        assert json.loads(get(run.page, "api/cameras")[1])["states"][0]["name"] == "desk"
        status = json.loads(get(run.page, "api/cameras/desk")[1])
        assert (status["points"], status["state"]) == (4, "streaming")
        points = json.loads(get(run.page, "api/cameras/desk/points")[1])["points"]
        assert [point["id"] for point in points] == [0, 1, 2, 3]
        code, jpeg, headers = get(run.page, "api/cameras/desk/picture.jpg")
        assert code == 200
        assert int(headers["x-frame-id"]) >= 0
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (HEIGHT, WIDTH, 3)
        code, body, _ = get(run.page, "api/cameras/other/points")
        assert (code, json.loads(body)["error"]) == (404, "which_camera")
        assert get(run.page, "api/nothing")[0] == 404


def test_every_path_of_the_description_is_there(serve: Callable[..., Any]) -> None:
    with serve() as run:
        run.wait_for(lambda: run.streams[0].tracks, "a frame")
        for path in OPENAPI["paths"]:
            assert get(run.page, path.replace("{camera}", "desk"))[0] == 200


def test_every_reply_holds_a_page_to_what_it_needs(serve: Callable[..., Any]) -> None:
    with serve() as run:
        for path in ("", "page.js", "api/cameras", "nothing"):
            headers = get(run.page, path)[2]
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"


def test_another_host_name_and_another_origin_are_refused(serve: Callable[..., Any]) -> None:
    with serve() as run:
        assert get(run.page, "", Host="evil.example")[0] == 421
        assert get(run.page, "api/cameras", Origin="http://evil.example")[0] == 403
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}):
            with pytest.raises(InvalidStatus), joined(run.page, additional_headers=headers):
                pass
        port = run.page.url.rpartition(":")[2]
        with joined(run.page, additional_headers={"Origin": f"http://127.0.0.1:{port.rstrip('/')}"}) as link:
            heard(link)


def test_other_machines_need_the_link(serve: Callable[..., Any]) -> None:
    with serve(host="0.0.0.0") as run:
        port = run.page.url.rstrip("/").rpartition(":")[2]
        tokens = {right: link.partition("token=")[2] for right, link in run.page.links.items()}
        assert set(tokens) == {"control", "watch"}
        base = f"http://127.0.0.1:{port}/"

        def code(path: str, **headers: str) -> tuple[int, str]:
            try:
                with urlopen(Request(base + path, headers=headers), timeout=20) as reply:
                    return reply.status, ""
            except HTTPError as error:
                return error.code, error.headers.get("set-cookie", "")

        assert code("")[0] == 401
        assert code("api/cameras")[0] == 401
        assert code("?token=wrong")[0] == 403
        for path in (*OPENAPI["paths"], "/api/about", "/page.js", "/api/cameras/desk/picture.jpg"):
            assert code(f"{path.lstrip('/')}?token=wrong")[0] == 401, "only the page itself is opened by a token"
        with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{port}/stream"):
            pass
        cookies = {}
        for token in tokens.values():
            with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as plain:
                plain.sendall(f"GET /?token={token} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                reply = b"".join(iter(lambda plain=plain: plain.recv(4096), b"")).decode().lower()
            assert "303" in reply.splitlines()[0]
            [cookie] = [line for line in reply.splitlines() if line.startswith("set-cookie")]
            assert "httponly" in cookie
            assert "samesite=lax" in cookie, "a link in a mail of another site would bring no stricter one along"
        # case matters in the value, so it is taken from a session that the guard begins itself
        for right, token in tokens.items():
            key = run.page._guard.begin(token, "127.0.0.1")
            cookies[right] = f"{run.page._guard.cookie}={key}"
        assert code("api/cameras", Cookie=cookies["watch"])[0] == 200
        with connect(f"ws://127.0.0.1:{port}/stream", additional_headers={"Cookie": cookies["watch"]}) as link:
            heard(link)
            assert asked(link, "clear")["error"] == "view_only"
            assert asked(link, "status", 2)["result"]["points"] == 4
        with connect(f"ws://127.0.0.1:{port}/stream", additional_headers={"Cookie": cookies["control"]}) as link:
            heard(link)
            assert asked(link, "clear")["result"] == {"removed": 4}
        replayed = {"Cookie": cookies["control"]}
        with (
            pytest.raises(InvalidStatus),
            connect(f"ws://127.0.0.1:{port}/stream", additional_headers=replayed, source_address=("127.0.0.2", 0)),
        ):
            pass


def test_thousands_of_sockets_do_not_stop_the_tracker_or_the_page(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "STALL_SECONDS", 600.0)  # all of it happens before the first picture is acknowledged
    with serve() as run, joined(run.page) as link:
        header, _ = heard(link)
        port = int(run.page.url.rstrip("/").rpartition(":")[2])
        held: list[socket.socket] = []
        refused = 0
        for _ in range(10_000):
            one = socket.socket()
            one.settimeout(1)
            try:
                one.connect(("127.0.0.1", port))
            except OSError:
                refused += 1
                one.close()
                continue
            held.append(one)
            if len(held) > 400:
                held.pop(0).close()
        acknowledge(link, header)
        assert heard(link)[0]["frame"] > header["frame"]
        open_now = len(run.page._server.server_state.connections)
        assert open_now <= MOST_CONNECTIONS
        for one in held:
            one.close()
        run.wait_for(lambda: get(run.page, "api/cameras")[0] == 200, "an answer")


def test_a_connection_that_asks_nothing_is_closed(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("online_tapir.web.server.SILENT_SECONDS", 0.2)
    with serve() as run:
        port = int(run.page.url.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
            silent.sendall(b"GET / HT")
            with suppress(ConnectionResetError):
                assert silent.recv(100) == b""


def test_it_is_served_over_tls(serve: Callable[..., Any], tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run([*made, *subject], check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=certificate)

    async def seen(url: str) -> bytes | str:  # a threaded client reads and writes one TLS connection at the same time
        async with connect_async(url, ssl=trusting, max_size=None, open_timeout=20) as link, asyncio.timeout(20):
            return await anext(message async for message in link if isinstance(message, bytes))

    with serve(certificate=certificate, key=key) as run:
        assert run.page.url.startswith("https://")
        assert b"\xff\xd8" in asyncio.run(seen(run.page.url.replace("https", "wss") + "stream")), "no JPEG"


def test_what_cannot_be_served_is_refused_with_advice(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PublishError, match=f"port {port} of 127.0.0.1.*--web-address 8090"):
            WebPage(WebAddress("127.0.0.1", port))
    with pytest.raises(ConfigError, match="both --web-cert and --web-key"):
        WebPage(WebAddress("127.0.0.1", 0), certificate=tmp_path / "none.pem")
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="cannot be used"):
        WebPage(WebAddress("127.0.0.1", 0), certificate=tmp_path / "bad.pem", key=tmp_path / "bad.pem")
    for text in ("nothing", "localhost:", "1:99999", "é:1é"):
        with pytest.raises(ConfigError, match="is not a port"):
            WebAddress.parse(text)
    assert WebAddress.parse("8090") == WebAddress("127.0.0.1", 8090)
    assert WebAddress.parse("[::1]:8090") == WebAddress("::1", 8090)


def test_a_second_tracker_gets_the_next_port() -> None:
    first, second = WebPage(), WebPage()
    assert first.url != second.url
    for page in (first, second):
        page.close()


@pytest.mark.parametrize(
    ("environment", "platform", "opens"),
    [
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "w"}, "linux", True),
        ({}, "linux", False),
        ({}, "darwin", True),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "1 2"}, "linux", False),
    ],
)
def test_a_browser_is_opened_where_there_is_a_screen(
    environment: dict[str, str], platform: str, opens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    links: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda link: not links.append(link))
    assert open_browser("http://x/", environment, platform) == opens
    assert links == (["http://x/"] if opens else [])


def test_without_viewers_no_frame_is_kept(serve: Callable[..., Any]) -> None:
    with serve() as run:
        run.wait_for(lambda: run.streams[0].tracks, "a frame")
        with joined(run.page) as link:
            heard(link)
            assert run.page._bridge.newest
        run.wait_for(lambda: not run.page._bridge.newest, "that frames are let go")


def test_closing_ends_every_link(serve: Callable[..., Any]) -> None:
    with serve() as run, joined(run.page) as link:
        heard(link)
        closing = threading.Thread(target=run.page.close)
        closing.start()
        with pytest.raises(ConnectionClosed):
            drain(link)
        closing.join(20)
        assert not closing.is_alive()
