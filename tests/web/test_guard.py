"""Who may open the page, by the headers of a request and the address that it comes from."""

from socket import gethostname

import pytest

from online_tapir.web.guard import IDLE_SECONDS, MOST_SESSIONS, Guard, Tokens

TOKENS = Tokens("to-control", "to-watch")


OWN = ["127.0.0.1:8080", "[::1]:8080", "localhost:8080", "LOCALHOST", "10.0.0.7:1", gethostname()]
OTHER = ["evil.example:8080", "127.0.0.1.evil.example", "", "localhost.evil.example:8080", "[evil]"]


@pytest.mark.parametrize("host", OWN)
def test_this_machine_is_known_by_its_addresses_and_names(host: str) -> None:
    assert Guard(8080).knows_host({"host": host})


@pytest.mark.parametrize("host", OTHER)
def test_a_name_that_is_not_its_own_is_refused(host: str) -> None:
    assert not Guard(8080).knows_host({"host": host})


@pytest.mark.parametrize(
    ("origin", "tls", "same"),
    [
        ("http://localhost:8080", False, True),
        ("https://localhost:8080", False, False),
        ("https://localhost:8080", True, True),
        ("http://localhost:8081", False, False),
        ("http://evil.example", False, False),
        ("null", False, False),
        (None, False, True),
    ],
)
def test_only_its_own_page_may_ask(origin: str | None, tls: bool, same: bool) -> None:
    headers = {"host": "localhost:8080"} | ({} if origin is None else {"origin": origin})
    assert Guard(8080, tls=tls).same_origin(headers) == same


def test_the_name_that_the_page_was_bound_to_is_this_machines() -> None:
    guard = Guard(8080, names=["Robot.Example.org."])
    assert guard.knows_host({"host": "robot.example.org:8080"})
    assert not guard.knows_host({"host": "evil.example.org:8080"})


def test_without_tokens_all_who_get_through_may_control_or_only_watch() -> None:
    assert Guard(1).right({}, "127.0.0.1") == "control"
    assert Guard(1, view_only=True).right({}, "127.0.0.1") == "watch"
    assert Guard(1).begin("anything", "127.0.0.1") is None


def test_a_link_begins_a_session_with_its_right() -> None:
    guard = Guard(1, tokens=TOKENS)
    assert guard.right({}, "10.0.0.2") is None
    assert guard.begin("wrong", "10.0.0.2") is None
    for token, right in (("to-control", "control"), ("to-watch", "watch")):
        key = guard.begin(token, "10.0.0.2")
        assert key is not None
        assert guard.right({guard.cookie: key}, "10.0.0.2") == right
    assert guard.right({guard.cookie: "to-control"}, "10.0.0.2") is None, "the token itself is no session"


def test_a_cookie_is_good_from_one_address_in_one_run_and_for_a_time() -> None:
    now = 0.0
    guard = Guard(1, tokens=TOKENS, clock=lambda: now)
    key = guard.begin("to-control", "10.0.0.2")
    assert key is not None
    cookies = {guard.cookie: key}
    assert guard.right(cookies, "10.0.0.3") is None
    assert Guard(1, tokens=TOKENS).right(cookies, "10.0.0.2") is None
    now = IDLE_SECONDS - 1
    assert guard.right(cookies, "10.0.0.2") == "control"
    now += IDLE_SECONDS - 1
    assert guard.right(cookies, "10.0.0.2") == "control", "it was used meanwhile"
    now += IDLE_SECONDS + 1
    assert guard.right(cookies, "10.0.0.2") is None


def test_sessions_are_bounded_and_the_oldest_go() -> None:
    guard = Guard(1, tokens=TOKENS)
    keys = [guard.begin("to-watch", "10.0.0.2") for _ in range(MOST_SESSIONS + 1)]
    assert guard.right({guard.cookie: str(keys[0])}, "10.0.0.2") is None
    assert guard.right({guard.cookie: str(keys[-1])}, "10.0.0.2") == "watch"


def test_view_only_holds_for_both_links() -> None:
    guard = Guard(1, tokens=TOKENS, view_only=True)
    key = guard.begin("to-control", "10.0.0.2")
    assert guard.right({guard.cookie: str(key)}, "10.0.0.2") == "watch"
