"""The page in a real browser: what a person sees and does, with mouse, touch and keys."""

import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect, sync_playwright

from online_tapir.points.placement import NOWHERE, Grid, Listed
from online_tapir.records import Label
from tests.web.conftest import DOWN_A_FRAME, HEIGHT, PERIOD, RIGHT_A_FRAME, WIDTH, Served

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no browser: apt install chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SECONDS = 20_000  # milliseconds
CUT = """() => [...document.querySelectorAll("body *")]
    .filter((e) => e.getBoundingClientRect().right > innerWidth + 1
        || (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflow === "hidden"))
    .map((e) => e.outerHTML)"""
expect.set_options(timeout=SECONDS)
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


def opened(browser: Browser, run: Served, **how: Any) -> Page:
    page = browser.new_page(**{"viewport": {"width": 1100, "height": 800}, **how})
    page.set_default_timeout(SECONDS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(run.page.url)
    page.wait_for_function("() => document.querySelector('#waiting').hidden", timeout=SECONDS)
    assert errors == []
    return page


def at_rest(page: Page, run: Served) -> None:
    """Stops the camera once every point is tracked, and waits until the page shows its last frame."""
    run.wait_for(lambda: run.streams[0].tracks, "a frame")
    run.wait_for(lambda: set(run.streams[0].tracks.ids.tolist()) == set(points(run)), "every point")
    expect(page.locator("#picture")).to_have_attribute("data-frame", str(run.rest()))


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where image position (x, y) is on the screen."""
    box = page.locator("#picture").bounding_box()
    assert box is not None
    return box["x"] + x * box["width"] / WIDTH, box["y"] + y * box["height"] / HEIGHT


def points(run: Served, which: int = 0) -> dict[int, tuple[NDArray[np.float32], int | None]]:
    """The points of the tracker: where they were named, and on which frame."""
    return dict(run.trackers[which]._queries)


def test_a_click_names_the_point_that_was_seen_though_the_tracker_is_far_ahead(
    browser: Browser, serve: Callable[..., Any]
) -> None:
    with serve(points=NOWHERE) as run:
        frozen = threading.Event()
        page = browser.new_page(viewport={"width": 1000, "height": 900})

        def relay(link: Any) -> None:
            server = link.connect_to_server()

            def pass_on(message: str | bytes) -> None:
                if not (frozen.is_set() and isinstance(message, bytes)):
                    link.send(message)

            server.on_message(pass_on)

        page.route_web_socket("**/stream", relay)
        page.goto(run.page.url)
        page.wait_for_function("() => document.querySelector('#waiting').hidden", timeout=SECONDS)
        page.wait_for_timeout(500)
        frozen.set()
        page.wait_for_timeout(200)
        before = run.streams[0].tracks.frame_id
        run.wait_for(lambda: run.streams[0].tracks.frame_id > before + 10, "ten frames")
        shot = cv2.imdecode(np.frombuffer(page.locator("#picture").screenshot(), np.uint8), cv2.IMREAD_COLOR)
        seen = cv2.resize(shot, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)[..., ::-1]
        middle = np.array([200.0, 120.0])  # of a landmark on the picture `known`
        known = 12
        template = run.cameras[0].pictures[known][110:130, 190:210]
        score = cv2.matchTemplate(np.ascontiguousarray(seen), template, cv2.TM_CCOEFF_NORMED)
        _, best, _, (left, top) = cv2.minMaxLoc(score)
        assert best > 0.9
        page.mouse.click(*place(page, left + 10, top + 10))
        [(xy, named_on)] = run.wait_for(lambda: list(points(run).values()), "the point")
        assert named_on is not None
        shown = (named_on + 1) % PERIOD
        truth = middle + np.array([RIGHT_A_FRAME, DOWN_A_FRAME]) * (shown - known)
        assert np.linalg.norm(xy - truth) < 1
        assert run.streams[0].tracks.frame_id - named_on >= 10
        page.close()


def test_points_are_added_removed_and_taken_back(browser: Browser, serve: Callable[..., Any]) -> None:
    with serve(points=NOWHERE) as run:
        page = opened(browser, run)
        expect(page.locator("#undo")).to_be_disabled()
        page.mouse.click(*place(page, 160, 120))
        run.wait_for(lambda: len(points(run)) == 1, "a point")
        expect(page.locator("#undo")).to_be_enabled()
        page.keyboard.press("u")
        run.wait_for(lambda: not points(run), "its end")
        start = place(page, 100, 60)
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(*place(page, 130, 90), steps=3)
        page.mouse.move(*place(page, 200, 150), steps=3)
        page.mouse.up()
        run.wait_for(lambda: len(points(run)) >= 9, "a grid")
        xy = np.array([xy for xy, _ in points(run).values()])
        assert (xy.min(axis=0) > np.array([100, 60]) - 1).all()
        assert (xy.max(axis=0) < np.array([200, 150]) + 1).all()
        assert len(np.unique(xy.round(1), axis=0)) == len(xy)
        many = len(xy)
        at_rest(page, run)  # the picture stands still, so that a point is where it is drawn
        [nearest, *_] = run.streams[0].tracks.xy[run.streams[0].tracks.visible]
        page.mouse.click(*place(page, *nearest.tolist()), button="right")
        run.wait_for(lambda: len(points(run)) == many - 1, "the end of one")
        page.locator("#clear").click()
        run.wait_for(lambda: not points(run), "the end of all")
        page.wait_for_timeout(200)  # for the page to hear of it
        page.locator("#undo").click()
        run.wait_for(lambda: len(points(run)) > 0, "their return")
        page.close()


def test_keys_do_what_the_mouse_does(browser: Browser, serve: Callable[..., Any]) -> None:
    with serve(points=NOWHERE) as run:
        page = opened(browser, run)
        page.locator("#picture").focus()
        for key in ("ArrowRight", "Shift+ArrowUp", "Enter"):
            page.keyboard.press(key)
        [(xy, _)] = run.wait_for(lambda: list(points(run).values()), "the point")
        assert xy[0] > WIDTH / 2
        assert xy[1] < HEIGHT / 2 - 5
        page.keyboard.press("Space")
        run.wait_for(lambda: run.streams[0].paused, "the pause")
        expect(page.locator("#source")).to_have_text("paused")  # no frame of before is drawn any more
        expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
        page.locator("#pause").click()
        run.wait_for(lambda: not run.streams[0].paused, "the end of the pause")
        page.keyboard.press("Delete")
        page.keyboard.press("c")
        run.wait_for(lambda: not points(run), "the end of the points")
        page.close()


def test_a_point_is_inspected_until_that_is_ended(browser: Browser, serve: Callable[..., Any]) -> None:
    with serve(points=Grid(2, 2)) as run:
        page = opened(browser, run)
        page.locator("#inspect").click()
        expect(page.locator("#say")).to_have_text("click a point to inspect it")
        page.mouse.click(*place(page, 80, 60))
        run.wait_for(lambda: run.trackers[0].inspected is not None, "the inspection")
        expect(page.locator("#inspect")).to_have_text("End inspection")
        page.locator("#inspect").click()
        run.wait_for(lambda: run.trackers[0].inspected is None, "its end")
        page.close()


def test_a_point_is_named_and_the_name_is_drawn_for_everyone(browser: Browser, serve: Callable[..., Any]) -> None:
    with serve(points=Grid(1, 1)) as run:
        page = opened(browser, run)
        page.locator("#name").click()
        page.mouse.click(*place(page, 100, 100))
        page.keyboard.type("left knee, with u and c in it")
        page.keyboard.press("Enter")
        label = run.wait_for(lambda: run.trackers[0].labels.get(0), "the name")
        assert label.name == "left knee, with u and c in it"
        assert len(points(run)) == 1, "typing is no command"
        expect(page.locator("#undo")).to_be_enabled()
        page.locator("#undo").click()
        run.wait_for(lambda: run.trackers[0].labels[0].name == "", "its end")
        page.close()


def test_what_is_cleared_comes_back_with_its_names_but_for_what_left_the_picture(
    browser: Browser, serve: Callable[..., Any]
) -> None:
    spots = Listed(np.array([[20, 60], [160, 120], [200, 200], [250, 100]], np.float32))
    with serve(points=spots) as run:
        page = opened(browser, run)
        run.streams[0].tracker.label(3, Label("knee"))
        run.wait_for(lambda: run.streams[0].tracks, "a frame")
        left = run.wait_for(
            lambda: one if ((one := run.streams[0].tracks).xy < 0).any() else None, "a point that leaves"
        )
        run.cameras[0].halts_at = (left.frame_id + 1) % PERIOD  # when that picture comes again
        run.wait_for(run.cameras[0].rests.is_set, "the camera's rest")
        at_rest(page, run)
        inside = int((run.streams[0].tracks.xy >= 0).all(axis=1).sum())
        assert 0 < inside < 4
        page.locator("#clear").click()
        run.wait_for(lambda: not points(run), "the end of all")
        page.locator("#undo").click()
        run.wait_for(lambda: len(points(run)) == inside, "the return of those in the picture")
        assert "knee" in {label.name for label in run.streams[0].tracker.labels.values()}
        page.close()


def test_a_browser_that_calls_a_long_press_a_right_click_removes_one_point(
    browser: Browser, serve: Callable[..., Any]
) -> None:
    with serve(points=NOWHERE) as run:
        page = opened(browser, run, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
        for x in (160, 175):
            page.touchscreen.tap(*place(page, x, 120))
        run.wait_for(lambda: len(points(run)) == 2, "two points")
        at_rest(page, run)
        x, y = place(page, *run.streams[0].tracks.xy[0].tolist())
        session = page.context.new_cdp_session(page)
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        page.wait_for_timeout(450)
        told = {"bubbles": True, "cancelable": True, "clientX": x, "clientY": y}
        page.locator("#picture").dispatch_event("contextmenu", told)
        run.wait_for(lambda: len(points(run)) < 2, "the end of one")
        page.wait_for_timeout(400)  # longer than a long press
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_timeout(300)
        assert len(points(run)) == 1
        page.close()


def test_a_session_that_the_run_no_longer_knows_is_told(browser: Browser, serve: Callable[..., Any]) -> None:
    with serve(host="0.0.0.0") as run:
        port = run.page.url.rstrip("/").rpartition(":")[2]
        token = run.page.links["control"].partition("token=")[2]
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/?token={token}")
        expect(page.locator("#link")).to_have_text("live")
        run.page._guard._sessions.clear()

        def hang_up() -> None:
            for connection in tuple(run.page._server.server_state.connections):
                connection.transport.abort()  # type: ignore[union-attr]

        run.page._bridge._loop.call_soon_threadsafe(hang_up)  # type: ignore[union-attr]
        expect(page.locator("#link")).to_contain_text("this session has ended")
        page.close()


def test_what_is_refused_is_told_in_a_sentence(browser: Browser, serve: Callable[..., Any]) -> None:
    with serve(points=Grid(8, 8)) as run:
        page = opened(browser, run)
        page.mouse.click(*place(page, 160, 120))
        expect(page.locator("#say")).to_contain_text("room for 0")
        page.locator("#record").click()
        expect(page.locator("#say")).to_contain_text("takes no recordings")
        page.close()


def test_it_says_that_the_tracker_is_away_and_comes_back_by_itself(browser: Browser, serve: Callable[..., Any]) -> None:
    with serve() as run:
        page = opened(browser, run)
        expect(page.locator("#link")).to_have_text("live")
        port = int(run.page.url.rstrip("/").rpartition(":")[2])
    expect(page.locator("#link")).to_contain_text("away", timeout=SECONDS)
    with serve(names=("desk",), port=port) as run:
        expect(page.locator("#link")).to_have_text("live", timeout=SECONDS)
        expect(page.locator("#waiting")).to_be_hidden(timeout=SECONDS)
        page.mouse.click(*place(page, 160, 120))
        run.wait_for(lambda: len(points(run)) == 5, "a point")
    page.close()


def test_two_viewers_see_each_others_points(browser: Browser, serve: Callable[..., Any]) -> None:
    with serve(points=NOWHERE) as run:
        one, other = opened(browser, run), opened(browser, run)
        one.bring_to_front()
        one.mouse.click(*place(one, 160, 120))
        run.wait_for(lambda: points(run), "the point")
        other.bring_to_front()
        expect(other.locator("#points")).to_contain_text("of 1", timeout=SECONDS)
        for page in (one, other):
            page.close()


def test_a_wall_of_cameras_and_one_click_to_one(browser: Browser, serve: Callable[..., Any]) -> None:
    with serve(("left", "right"), points=NOWHERE) as run:
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.goto(run.page.url)
        expect(page.locator("#wall button")).to_have_count(2, timeout=SECONDS)
        page.get_by_role("button", name="Show camera right").click()
        page.wait_for_function("() => document.querySelector('#waiting').hidden", timeout=SECONDS)
        page.mouse.click(*place(page, 160, 120))
        run.wait_for(lambda: points(run, 1), "a point of the second camera")
        assert not points(run, 0)
        page.keyboard.press("w")
        expect(page.locator("#wall")).to_be_visible()
        page.close()


def test_a_page_follows_cameras_that_leave_and_another_cameras_frames_are_never_mistaken(
    browser: Browser, serve: Callable[..., Any]
) -> None:
    with serve(("left", "middle", "right"), points=Grid(1, 1)) as run:
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.goto(run.page.url)
        expect(page.locator("#wall button")).to_have_count(3, timeout=SECONDS)
        page.get_by_role("button", name="Show camera left").click()
        expect(page.locator("#waiting")).to_be_hidden(timeout=SECONDS)
        page.keyboard.press("n")
        page.mouse.click(*place(page, 160, 120))
        expect(page.locator("#naming")).to_be_visible()
        run.cameras[2].away.set()  # it sends nothing for a while
        page.wait_for_timeout(300)
        page.get_by_role("button", name="right", exact=True).click()
        expect(page.locator("#naming")).to_be_hidden()
        run.cameras[2].away.clear()
        expect(page.locator("#waiting")).to_be_hidden(timeout=SECONDS)
        run.roster.remove("right")
        expect(page.locator("#wall")).to_be_visible(timeout=SECONDS)
        expect(page.locator("#wall button")).to_have_count(2)
        run.roster.remove("middle")
        expect(page.locator("#wall button")).to_have_count(1, timeout=SECONDS)
        page.close()


def test_a_link_that_falls_silent_is_given_up(browser: Browser, serve: Callable[..., Any]) -> None:
    with serve() as run:
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        silent = threading.Event()

        def relay(link: Any) -> None:
            server = link.connect_to_server()
            server.on_message(lambda message: None if silent.is_set() else link.send(message))

        def impatient(route: Any) -> None:
            reply = route.fetch()
            body = reply.text()
            assert "SILENT_MS = 10000" in body
            route.fulfill(response=reply, body=body.replace("SILENT_MS = 10000", "SILENT_MS = 1500"))

        page.route("**/link.js", impatient)
        page.route_web_socket("**/stream", relay)
        page.goto(run.page.url)
        expect(page.locator("#waiting")).to_be_hidden(timeout=SECONDS)
        silent.set()
        expect(page.locator("#link")).to_contain_text("away", timeout=SECONDS)
        silent.clear()
        expect(page.locator("#link")).to_have_text("live", timeout=SECONDS)
        page.close()


def test_who_may_only_watch_gets_no_tools(browser: Browser, serve: Callable[..., Any]) -> None:
    with serve(view_only=True) as run:
        page = opened(browser, run)
        expect(page.locator("#clear")).to_be_hidden()
        expect(page.locator("#snapshot")).to_be_visible()
        page.mouse.click(*place(page, 160, 120))
        page.keyboard.press("c")
        page.wait_for_timeout(300)
        assert len(points(run)) == 4
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1100])
def test_nothing_is_cut_and_a_checker_finds_nothing_serious(
    browser: Browser, serve: Callable[..., Any], width: int, scheme: Any
) -> None:
    with serve() as run:
        page = opened(browser, run, viewport={"width": width, "height": 700}, color_scheme=scheme, bypass_csp=True)
        page.locator("#help summary").click()
        assert page.evaluate(CUT) == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in SERIOUS] == []
        page.close()


def test_touch_adds_and_a_long_press_removes(browser: Browser, serve: Callable[..., Any]) -> None:
    with serve(points=NOWHERE) as run:
        page = opened(browser, run, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
        page.touchscreen.tap(*place(page, 160, 120))
        run.wait_for(lambda: len(points(run)) == 1, "a point")
        at_rest(page, run)
        x, y = place(page, *run.streams[0].tracks.xy[0].tolist())
        session = page.context.new_cdp_session(page)
        touch = {"touchPoints": [{"x": x, "y": y}]}
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", **touch})
        run.wait_for(lambda: not points(run), "its end")
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.close()
